"""Images from a run: a snapshot's weights, prompts and a seed in, pixels out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from t2ikit.config import RunConfig, canonical
from t2ikit.encoders import batches
from t2ikit.errors import UserError
from t2ikit.files import read_json
from t2ikit.samplers import prompt_noise
from t2ikit.samplers import sampler as sampler_of
from t2ikit.train.checkpoint import load_snapshot
from t2ikit.train.setup import Parts, resolve


def snapshots(folder: Path) -> list[int]:
    """The steps of which the run has weights, rising."""
    return sorted(int(p.stem.removeprefix("step-")) for p in (folder / "snapshots").glob("step-*.safetensors"))


def snapshot_step(folder: Path, step: int | None = None) -> int:
    """`step`, or the last of which the run has weights; UserError if it has none of it."""
    if not (steps := snapshots(folder)):
        raise UserError(f"{folder.name} has no snapshot yet: train it first.")
    if step is not None and step not in steps:
        raise UserError(f"{folder.name} has no snapshot of step {step}: choose one of {', '.join(map(str, steps))}.")
    return steps[-1] if step is None else step


def load_run(folder: Path, step: int | None = None, averaged: bool = False) -> tuple[Parts, nn.Module]:
    """The parts of a run and its backbone with the weights of `step` (default: the last): raw, or their EMA."""
    if not folder.is_dir():
        raise UserError(f"There is no run folder {folder}: give one as `t2ikit train` prints it.")
    noted = read_json(folder / "config.json", ("config",))
    step = snapshot_step(folder, step)
    parts = resolve(config_of(folder / "config.json", noted["config"]))
    same_parts(folder.name, noted, parts)
    tensors = load_snapshot(folder, step)
    prefix = "ema." if averaged else ""
    model = parts.spec.build(seed=0)
    model.load_state_dict({name: tensors[prefix + name] for name in model.state_dict()})
    return parts, model.eval()


def config_of(path: Path, values: dict[str, Any]) -> RunConfig:
    """The configuration as it was written down in `path`."""
    try:
        return RunConfig(**values)
    except TypeError as error:
        raise UserError(f"{path} is of another version of t2ikit ({error}): train the run anew.") from None


def same_parts(name: str, noted: dict[str, Any], parts: Parts) -> None:
    """UserError if a part of the run called `name` (world, encoders, backbone) is another than was `noted` of it."""
    for key, now in parts.resolved.items():
        if canonical(noted.get(key)) != canonical(now):
            raise UserError(
                f"The {key} of {name} is not what it was trained with: restore that, or train the run anew."
            )


@torch.no_grad()
def generate(
    parts: Parts,
    model: nn.Module,
    prompts: Sequence[str],
    seed: int = 0,
    steps: int = 50,
    guidance: float = 7.5,
    batch: int = 32,
    device: str = "cpu",
    sampler: str | None = None,
    progress: bool = True,
) -> np.ndarray:
    """uint8 images [len(prompts), R, R, 3] by `sampler` (default: DDIM, or Euler for a rectified flow).

    A prompt's image depends on (weights, prompt, seed, steps, guidance, sampler) alone.
    """
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise UserError("A prompt is empty, or there is none: give at least one, and each some text.")
    draw = sampler_of(parts.objective, sampler)
    model, null = model.to(device), tuple(x.to(device) for x in parts.text.encode([""]))
    images = []
    pieces = list(batches(len(prompts), batch))
    for piece in tqdm(pieces, desc="sampling", unit="batch", mininterval=1.0, disable=not progress):
        some = list(prompts[piece])
        condition = tuple(x.to(device) for x in parts.text.encode(some))
        noise = prompt_noise(some, parts.latent_shape, seed).to(device)
        latents = draw(model, parts.objective, noise, condition, null, steps, guidance)
        images.append(parts.codec.decode(latents.cpu()))
    return np.concatenate(images)
