"""How far the stand-ins can be trusted: docs/metrics.json and, written from it, docs/metrics.md.

    python -m benchmarks.metrics_page RUN… [--prompts 200] [--steps 50] [--speed evaluate_speed.json]
    python -m benchmarks.metrics_page --page

On images that finished runs draw, the VQA network's answers are held against those of a checker by colours and
components. What the networks score on true images comes from the assets' own `training.json`, the speed from what
benchmarks.evaluate_speed printed.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from t2ikit.encoders import ASSETS
from t2ikit.evaluation.sets import Sampling
from t2ikit.files import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "metrics.md"
KINDS = ("object", "color", "shape", "counting", "spatial", "other")


def agreement(path: Path, how: Sampling) -> dict:
    """Of one run's images by category: questions that network and checker score alike, what each scores, and the
    agreement beyond chance (Cohen's κ) of their scores."""
    from t2ikit.evaluation.sets import image_set
    from t2ikit.metrics.scenes_checker import Checker
    from t2ikit.standins.vqa import StandinVQA

    images = image_set(path, how, "cpu", print)
    row = {key: k for k, key in enumerate(images.prompts)}
    shown = images.images[[row[q["id"]] for q in images.questions]]
    asked = [q["question"] for q in images.questions], [q["choices"] for q in images.questions]
    answers = [vqa.answers(shown, *asked) for vqa in (StandinVQA(), Checker())]
    by_kind = defaultdict(list)
    for q, network, checker in zip(images.questions, *answers, strict=True):
        for kind in (q["element_type"], "all"):
            by_kind[kind].append((network == q["answer"], checker == q["answer"]))
    found = {}
    for kind, pairs in by_kind.items():
        a, b = np.array(pairs, float).T
        alike, chance = np.mean(a == b), a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
        numbers = {"alike": alike, "network": a.mean(), "checker": b.mean(), "kappa": (alike - chance) / (1 - chance)}
        found[kind] = {"questions": len(pairs)} | {k: round(float(v), 4) for k, v in numbers.items()}
    return {"run": images.name, "step": images.step, "prompts": len(images.prompts), "by_category": found}


def rows(head: list[str], lines: list[list]) -> str:
    cells = [head, ["---"] * len(head)] + [
        ["–" if x is None else f"{x:.3f}" if isinstance(x, float) else str(x) for x in line] for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def page(found: dict) -> str:
    """docs/metrics.md of docs/metrics.json and of the assets."""
    vqa, pair = (read_json(ASSETS / name / "training.json") for name in ("vqa-scenes-v1", "contrastive-v1"))
    table = [[key, row["tifa"], *(row.get(k) for k in KINDS)] for key, row in vqa["accuracy"].items()]
    mistakes = [
        [codec, kind, ", ".join(f"{mistaken} ({n})" for mistaken, n in some.items())]
        for codec, of in vqa["confusion"].items()
        for kind, some in sorted(of.items())
    ]
    alike = [
        [entry["run"], entry["step"], kind, *of.values()]
        for entry in found["agreement"]
        for kind in (*KINDS, "all")
        if (of := entry["by_category"].get(kind))
    ]
    retrieval = [
        [key, int(row[COLUMNS[0]]), *(row[k] for k in COLUMNS[1:])] for key, row in pair["retrieval_at_1"].items()
    ]
    flips = [[key, *(row.get(f"flip_{k}") for k in FLIPS)] for key, row in pair["retrieval_at_1"].items()
             if "flip_color" in row]  # fmt: skip
    parts = [
        TEXT.format(images=vqa["images"], vqa=vqa["processor_seconds"], pair=pair["processor_seconds"]),
        rows(["questions / images shown", "TIFA", *KINDS], table),
        "What is most taken for what on reconstructions, all captions together:\n",
        rows(["images shown", "category", "answer as mistaken for (how often)"], mistakes),
        AGREEMENT,
        rows(["run", "step", "category", "questions", "alike", "network", "checker", "κ"], alike),
        RETRIEVAL,
        rows(["captions", *(c.replace("_", " ") for c in COLUMNS)], retrieval),
        "How often the true caption is nearer than one with an attribute flipped:\n",
        rows(["captions", *FLIPS], flips),
    ]
    if speed := found.get("speed"):
        first = ", ".join(f"{metric} {seconds:.0f} s" for metric, seconds in speed["scored"].items())
        parts.append(SPEED.format(**speed, first=first, second=speed["from_cache"]["together"]))
    return "\n".join(parts)


COLUMNS = ("distinct_captions", "to_text", "to_image", "to_text_sdxl-like", "to_image_sdxl-like")
FLIPS = ("color", "shape", "counting", "spatial", "size", "background")
TEXT = """# What the CPU-size metrics see

Written by `python -m benchmarks.metrics_page` from `docs/metrics.json` and the assets' `training.json`.

At CPU size TIFA's questions are answered by our own network `vqa-scenes-v1` (`python -m t2ikit.standins.vqa`, {vqa} s
of one core), and CLIP's place is taken by `contrastive-v1` (`python -m t2ikit.standins.contrastive`, {pair} s). Both
are stand-ins: their numbers compare with nothing but themselves. `t2ikit evaluate RUN` scores with them and prints,
beside TIFA, its floor (each image asked about another prompt), its ceiling (true images through the run's VAE) and the
score between the two. BLIP, BLIP-2, Qwen-VL, CLIP, ImageReward and HPSv2 are chosen by name where their weights are at
hand.

## The VQA network on {images} validation images

`renders`: as drawn. `sd2-like`, `sdxl-like`: reconstructed by that VAE, the ceiling of runs in its latents (sd2-like
loses green and turns red and yellow to orange: what is asked about is then not there to be seen). `shuffled`: the
render of the prompt before, the floor.
"""
AGREEMENT = """## Against a checker by colours and components, on generated images

`alike`: the share of questions that both score alike, right or wrong; `κ`: the same beyond chance. The checker knows
palette and sprites and nothing else: of a shape that has lost its outline it names the nearest sprite. It may say that
it sees nothing of the kind; the network has to choose, and where images are poor it guesses: its spatial answers are
then at its floor (about 0.5 of two choices), and most of its counting is. What TIFA tells of such runs, it tells by
objects, colours and shapes.
"""
RETRIEVAL = """## The contrastive model on 500 validation pairs

Retrieval at 1 among 500; an equal caption counts as the right one. `sdxl-like`: of reconstructions.
"""
SPEED = """## Speed

{images} images of 64 px ({questions} questions) in a folder, {threads} threads, an empty cache: {first}, at most
{peak_memory_gb} GB. Again, from the cache: {second} s. `python -m benchmarks.evaluate_speed`. Of a run TIFA's ceiling
is asked too, once more as many questions, and alignment is measured on 256 validation images. Sampling comes before,
and `t2ikit evaluate` says what it will take.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=50, help="of the sampler")
    parser.add_argument("--speed", type=Path, help="what benchmarks.evaluate_speed printed")
    parser.add_argument("--page", action="store_true", help="write the page from the JSON, measure nothing")
    args = parser.parse_args()
    target = PAGE.with_suffix(".json")
    found = read_json(target) if target.exists() else {"agreement": []}
    if not args.page:
        fresh = [agreement(path, Sampling(prompts=args.prompts, steps=args.steps)) for path in args.runs]
        names = {entry["run"] for entry in fresh}
        found["agreement"] = [e for e in found["agreement"] if e["run"] not in names] + fresh
        if args.speed:
            found["speed"] = json.loads(args.speed.read_text())
        write_json(target, found)
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
