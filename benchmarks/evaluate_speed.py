"""What scoring costs: 5,000 images of 64 px with every CPU-size metric that needs no sampling, from PNG files to rows.

    OMP_NUM_THREADS=2 python -m benchmarks.evaluate_speed

The images are scenes through a VAE whose latents are noised, as far from the truth as samples are; the cache of scores
is empty at first. Then once more, from the cache. Prints seconds by metric and the most memory held, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image


def write(folder: Path, images: np.ndarray, questions: list[dict]) -> Path:
    """A folder as `t2ikit evaluate` takes it."""
    folder.mkdir()
    prompts = {q["id"]: q["caption"] for q in questions}
    (folder / "prompts.json").write_text(json.dumps([{"id": k, "caption": c} for k, c in prompts.items()]))
    (folder / "questions.json").write_text(json.dumps(questions))
    for key, image in zip(prompts, images, strict=True):
        Image.fromarray(image).save(folder / f"{key}.png")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["T2IKIT_HOME"] = temporary
        from t2ikit.data.world import get_world
        from t2ikit.evaluation import harness
        from t2ikit.metrics.scenes_questions import scene_questions
        from t2ikit.standins.training import reconstructed

        world, index = get_world("scenes"), np.arange(args.images)
        renders, questions = world.images("train", index), scene_questions(world, "train", index, "medium")
        noised = reconstructed(renders, "sdxl-like", noise=1.0)
        generated = write(Path(temporary) / "generated", noised, questions)
        true = write(Path(temporary) / "true", renders, questions)
        result = {"images": args.images, "questions": len(questions), "threads": torch.get_num_threads()}
        for turn in ("scored", "from_cache"):
            seconds = {}
            for metric in ("tifa", "contrastive", "fidelity"):
                start = time.perf_counter()
                harness.evaluate([generated], [metric], reference=true, say=lambda _: None)
                seconds[metric] = round(time.perf_counter() - start, 1)
            result[turn] = seconds | {"together": round(sum(seconds.values()), 1)}
    result["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
