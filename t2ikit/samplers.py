"""Samplers with one signature, and classifier-free guidance."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from t2ikit.errors import UserError
from t2ikit.objectives import DDPM

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
    progress: bool = False,
) -> Tensor:
    """Deterministic DDIM (Song et al. 2021, η = 0): noise [B, C, h, w] → latents [B, C, h, w].

    `null` is the empty caption's condition, batch of one. Paper S samples with 50 steps and guidance 7.5.
    """
    most = objective.scheduler.config.num_train_timesteps - 1
    if not 1 <= steps <= most:
        raise UserError(f"{steps} DDIM steps are not possible: choose 1 to {most}.")
    if not math.isfinite(guidance):
        raise UserError(f"A guidance scale of {guidance} is not possible: choose a finite number, 1 for none.")
    scheduler = objective.sampling_scheduler()
    scheduler.set_timesteps(steps)
    x = noise * scheduler.init_noise_sigma
    for t in tqdm(scheduler.timesteps, desc="DDIM", disable=not progress, mininterval=1.0):
        prediction = guided(model, x, t.expand(len(x)).to(x.device), condition, null, guidance)
        x = scheduler.step(prediction, t, x).prev_sample
    return x
