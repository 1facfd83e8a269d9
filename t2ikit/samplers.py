"""Samplers with one signature, which objective each is for, and classifier-free guidance."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from t2ikit.errors import UserError, choose
from t2ikit.objectives import DDPM, Objective, RectifiedFlow

Condition = tuple[Tensor, Tensor]  # states [B, L, W], mask [B, L]


def prompt_noise(prompts: Sequence[str], shape: tuple[int, int, int], seed: int) -> Tensor:
    """Starting noise [B, *shape]: each prompt's depends on (seed, prompt) alone, whatever batch it is sampled in."""
    keys = [
        int.from_bytes(hashlib.sha256(f"{seed}\n{p}".encode(errors="surrogatepass")).digest()[:8], "big")
        for p in prompts
    ]
    return torch.from_numpy(np.stack([np.random.default_rng(k).standard_normal(shape, np.float32) for k in keys]))


def guided(model: nn.Module, x: Tensor, t: Tensor, condition: Condition, null: Condition, scale: float) -> Tensor:
    """Classifier-free guidance (Ho & Salimans 2022): null + scale · (conditional − null), one batched forward pass."""
    if scale == 1.0:
        return model(x, t, *condition)
    both = [torch.cat([c, n.expand_as(c)]) for c, n in zip(condition, null, strict=True)]
    conditional, unconditional = model(torch.cat([x, x]), torch.cat([t, t]), *both).chunk(2)
    return unconditional + scale * (conditional - unconditional)


@torch.no_grad()
def ddim(
    model: nn.Module,
    objective: DDPM,
    noise: Tensor,
    condition: Condition,
    null: Condition,
    steps: int = 50,
    guidance: float = 7.5,
) -> Tensor:
    """Deterministic DDIM (Song et al. 2021, η = 0): noise [B, C, h, w] → latents [B, C, h, w].

    `null` is the empty caption's condition, batch of one. Paper S samples with 50 steps and guidance 7.5. Timesteps are
    k·⌊T/steps⌋ + 1, as in Stable Diffusion, the first a stride below the noisy end: UserError where rounding the stride
    leaves out more than another tenth.
    """
    timesteps = objective.scheduler.config.num_train_timesteps
    possible("DDIM", steps, guidance, timesteps - 1)
    if not _spans(steps, timesteps):
        near = (next(k for k in range(steps, end, by) if _spans(k, timesteps)) for end, by in ((0, -1), (timesteps, 1)))
        raise UserError(
            f"{steps} DDIM steps would start from pure noise at timestep {(steps - 1) * (timesteps // steps) + 1} of "
            f"{timesteps}: choose {' or '.join(map(str, near))}."
        )
    scheduler = objective.sampling_scheduler()
    scheduler.set_timesteps(steps)
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        prediction = guided(model, x, t.expand(len(x)).to(x.device), condition, null, guidance)
        x = scheduler.step(prediction, t, x).prev_sample
    return x


@torch.no_grad()
def euler(
    model: nn.Module,
    objective: RectifiedFlow,
    noise: Tensor,
    condition: Condition,
    null: Condition,
    steps: int = 50,
    guidance: float = 7.5,
) -> Tensor:
    """Euler's method along the flow, in equal steps from t = 1 to 0: noise [B, C, h, w] → latents [B, C, h, w].

    One guided prediction a step.
    """
    velocity, x = _velocity(model, condition, null, guidance), noise
    for t, after in _times("Euler", steps, guidance):
        x = x + (after - t) * velocity(x, t)
    return x


@torch.no_grad()
def heun(
    model: nn.Module,
    objective: RectifiedFlow,
    noise: Tensor,
    condition: Condition,
    null: Condition,
    steps: int = 50,
    guidance: float = 7.5,
) -> Tensor:
    """Heun's method, of second order: Euler's step, then again with the mean of the velocities at its two ends.

    Two guided predictions a step.
    """
    velocity, x = _velocity(model, condition, null, guidance), noise
    for t, after in _times("Heun", steps, guidance):
        v = velocity(x, t)
        v = (v + velocity(x + (after - t) * v, after)) / 2
        x = x + (after - t) * v
    return x


SAMPLERS: dict[type, dict[str, Callable[..., Tensor]]] = {
    DDPM: {"ddim": ddim},
    RectifiedFlow: {"euler": euler, "heun": heun},
}


def sampler(objective: Objective, name: str | None = None) -> Callable[..., Tensor]:
    """The sampler called `name` of those for `objective` (default: the first, DDIM or Euler); UserError if none is."""
    able = SAMPLERS[type(objective)]
    return able[next(iter(able)) if name is None else choose(f"{type(objective).__name__} sampler", name, able)]


def _velocity(model: nn.Module, condition: Condition, null: Condition, scale: float) -> Callable[..., Tensor]:
    """The guided prediction as a function of x and one time for all of it."""
    return lambda x, t: guided(model, x, torch.full((len(x),), t, device=x.device), condition, null, scale)


def _times(name: str, steps: int, guidance: float) -> Iterator[tuple[float, float]]:
    """The two ends of each step."""
    possible(name, steps, guidance)
    return pairwise(1 - k / steps for k in range(steps + 1))


def _spans(steps: int, timesteps: int) -> bool:
    """Whether so many equal strides of whole timesteps cover nine tenths of them."""
    return steps * (timesteps // steps) >= 0.9 * timesteps


def possible(name: str, steps: int, guidance: float, most: int = 10_000) -> None:
    """UserError unless a sampler can draw so."""
    if not 1 <= steps <= most:
        raise UserError(f"{steps} {name} steps are not possible: choose 1 to {most}.")
    if not math.isfinite(guidance):
        raise UserError(f"A guidance scale of {guidance} is not possible: choose a finite number, 1 for none.")
