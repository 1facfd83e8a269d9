"""What the training loop costs, against two peers in one run: `python -m benchmarks.training_loop`.

plain   a diffusers-style loop of the same backbone, batch and precision, which at each step decodes (pictograms) or
        renders (scenes) and encodes its images and encodes its captions; AdamW as torch has it by default
bare    forward, backward, clip and optimiser step over tensors that lie in memory
ours    t2ikit.train.loop

The three take turns, `--rounds` times `--steps` steps each; printed are images/s (medians), the ratios of ours over
each peer (median, lowest, highest round), and how much of a run goes into checkpoints at the default interval.
docs/training_loop.json keeps what it printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from t2ikit import runs
from t2ikit.cache import cached_latents, cached_states
from t2ikit.config import Budget
from t2ikit.data.pictograms import Pictograms
from t2ikit.data.shards import decode, read_index, read_shard
from t2ikit.objectives import sample_losses
from t2ikit.study import preset
from t2ikit.train.checkpoint import save_checkpoint
from t2ikit.train.draw import draw
from t2ikit.train.journal import device_name
from t2ikit.train.loop import Loop
from t2ikit.train.setup import resolve


def reader(world):
    """Training images by index as a plain loop reads them: a picture of `pictograms` decoded when it is drawn."""
    if not isinstance(world, Pictograms):
        return lambda indices: world.images("train", indices)
    samples = [s for entry in read_index(world.folder) for s in read_shard(world.folder / entry["url"], entry)]

    def read(indices: np.ndarray) -> np.ndarray:
        pictures = [Image.fromarray(decode(samples[row])) for row in world.rows("train", indices)]
        return np.stack([np.asarray(p.reduce(p.width // world.size)) for p in pictures])

    return read


def peers(loop: Loop):
    """The two other loops as functions of a step's number, on their own copies of the backbone."""
    parts, config = loop.parts, loop.config
    text, codec, objective = parts.text, parts.codec, parts.objective

    def fresh(**options):
        model = parts.spec.build(seed=config.seed)
        return model, torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, **options)

    def update(model, optimizer, *tensors):
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            loss = sample_losses(model, objective, *tensors).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    plain_model, bare_model, read = fresh(), fresh(fused=True), reader(parts.world)

    def plain(step: int) -> None:
        rng = np.random.default_rng(step)
        indices = rng.integers(parts.world.length("train"), size=config.batch)
        x0 = codec.encode(read(indices))
        captions = parts.world.captions("train", indices, config.captions)
        states, mask = text.encode([c if rng.random() >= config.caption_dropout else "" for c in captions])
        update(*plain_model, x0, torch.randn_like(x0), objective.timesteps(torch.rand(config.batch)), states, mask)

    drawn = draw(config.seed, 0, config.batch, loop.latents.n, parts.latent_shape, config.caption_dropout)
    x0, rows = loop.latents.rows(drawn.indices)["latents"], loop.states.rows(drawn.indices)

    def bare(step: int) -> None:
        update(*bare_model, x0, drawn.noise, objective.timesteps(drawn.u), rows["states"], rows["mask"])

    return plain, bare


def measure(backbone: str, world: str, rounds: int, steps: int, threads: int) -> dict:
    """Images/s of the three (medians over rounds), their ratios, and the share of a run that checkpoints take."""
    config, budget = preset(backbone, world, "tiny", threads=threads)
    parts = resolve(config)
    with tempfile.TemporaryDirectory() as scratch, runs.leased(Path(scratch) / parts.id) as lease:
        folder = Path(scratch) / parts.id
        loop = Loop(parts, budget, folder, lease)
        loop.latents = cached_latents(parts.world, "train", parts.codec)
        loop.states = cached_states(parts.world, "train", config.captions, parts.text)
        loop.null = parts.text.encode([""])
        plain, bare = peers(loop)
        contenders = {"plain": plain, "bare": bare, "ours": lambda step: loop.train_step(*loop.batch())}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(rounds + 1):
            for name, step in contenders.items():
                start = time.perf_counter()
                for i in range(steps):
                    step(number * steps + i)
                if number:  # the first round warms up: caches are filled, kernels chosen
                    rates[name].append(steps * config.batch / (time.perf_counter() - start))
        start = time.perf_counter()
        save_checkpoint(folder, loop.step, loop.state(), lease)
        seconds = time.perf_counter() - start

    def over(peer: str) -> list[float]:
        ratios = sorted(a / b for a, b in zip(rates["ours"], rates[peer], strict=True))
        return [round(x, 3) for x in (statistics.median(ratios), ratios[0], ratios[-1])]

    return {
        "backbone": backbone,
        "world": world,
        "threads": torch.get_num_threads(),
        "precision": config.precision,
        "torch": torch.__version__,
        "device": device_name(torch.device("cpu")),
        "images_per_second": {k: round(statistics.median(v), 1) for k, v in rates.items()},
        "ours_over_plain_median_low_high": over("plain"),
        "ours_over_bare_median_low_high": over("bare"),
        "checkpoint_share": round(seconds / Budget().checkpoint_seconds, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["sd2-c320"])
    parser.add_argument("--worlds", nargs="+", default=["pictograms"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    pairs = [(b, w) for w in args.worlds for b in args.backbones]
    print(json.dumps([measure(b, w, args.rounds, args.steps, args.threads) for b, w in pairs], indent=1))


if __name__ == "__main__":
    main()
