"""What is drawn at a step: index, noise, timestep and caption dropout, a pure function of (seed, step, slot).

Two backbones with the same seed see identical (x_t, t, ε), a resumed run sees what it would have seen, and the split
over processes does not matter.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from t2ikit.cache import SHARD

ORDER, DRAW = 0, 1  # streams of the counter-based generator


@dataclass(frozen=True)
class Draw:
    """The draws of one step, a row a slot."""

    indices: np.ndarray  # [B] int64, which items of the training split
    u: Tensor  # [B] float32 in [0, 1), becomes the timestep
    noise: Tensor  # [B, C, h, w] float32
    dropped: Tensor  # [B] bool, trained on the empty caption


def stream(seed: int, kind: int, *counter: int) -> np.random.Generator:
    """A generator for (seed, kind, counter), independent of all others (Philox, Salmon et al. 2011)."""
    words = [*counter, 0, 0][:2]
    return np.random.Generator(np.random.Philox(key=[seed, kind], counter=[0, 0, *words]))


def draw(seed: int, step: int, batch: int, n: int, shape: tuple[int, ...], caption_dropout: float) -> Draw:
    """Draws of `step` for a split of `n` items and latents of `shape` (C, h, w)."""
    rng = stream(seed, DRAW, step)
    return Draw(
        indices=items(seed, step * batch, batch, n),
        u=torch.from_numpy(rng.random(batch, dtype=np.float32)),
        noise=torch.from_numpy(rng.standard_normal((batch, *shape), dtype=np.float32)),
        dropped=torch.from_numpy(rng.random(batch) < caption_dropout),
    )


def items(seed: int, position: int, count: int, n: int) -> np.ndarray:
    """`count` items, int64, from `position` on in the endless stream of epochs, each a permutation of `n` items.

    Shards are shuffled, and items within them: a world's own order is random, so that is as good as a global shuffle,
    and a short run touches few shards.
    """
    parts = []
    while count:
        epoch, place = divmod(position, n)
        shards, ends = _shards(seed, epoch, n)
        k = int(np.searchsorted(ends, place, side="right"))
        shard, size = int(shards[k]), int(ends[k] - (ends[k - 1] if k else 0))
        offset = place - (int(ends[k]) - size)
        part = _within(seed, epoch, shard, size)[offset : offset + count]
        parts.append(shard * SHARD + part)
        position, count = position + len(part), count - len(part)
    return np.concatenate(parts)


@functools.lru_cache(maxsize=4)
def _shards(seed: int, epoch: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    count = -(-n // SHARD)
    order = stream(seed, ORDER, epoch).permutation(count)
    return order, np.cumsum(np.minimum(SHARD, n - order * SHARD))


@functools.lru_cache(maxsize=16)
def _within(seed: int, epoch: int, shard: int, size: int) -> np.ndarray:
    return stream(seed, ORDER, epoch, shard + 1).permutation(size)
