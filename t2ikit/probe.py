"""Alignment without sampling: how much a caption lowers the loss, at fixed images, timesteps and noise.

Two checkpoints of one loss space differ here by their weights alone. Three numbers come out, each from the same noisy latents:
the validation loss per timestep bin; the caption gap, loss(another image's caption) − loss(true caption); and, in worlds with exact captions,
the flip accuracy: how often the true caption has a lower loss than one with a single attribute changed, by category.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from t2ikit.data.world import World
from t2ikit.encoders import ImageCodec, TextEncoder, batches
from t2ikit.objectives import Objective, sample_losses

PROBE_SEED = 20_240_402  # fixed for all runs: part of what makes two losses comparable
BINS = 6  # timestep bins, the centre of each is used
FLIP_BINS = slice(1, 4)  # the middle of the schedule, where an attribute is decided


@dataclass
class Probe:
    """Fixed latents [n, C, h, w], noise [n, BINS, C, h, w] and conditions of validation images."""

    x0: Tensor
    noise: Tensor
    true: tuple[Tensor, Tensor]  # states [n, L, W], mask [n, L]
    shuffled: tuple[Tensor, Tensor]  # those of other images
    flipped: tuple[Tensor, Tensor]  # [m, L, W], [m, L]
    flip_of: np.ndarray  # [m] the image that each flipped caption belongs to
    flip_category: list[str]  # [m]

    @torch.no_grad()
    def measure(self, model: nn.Module, objective: Objective, device: str | torch.device = "cpu") -> dict[str, Any]:
        """`val_loss`, `caption_gap`, `flip_accuracy` (None where the world has no flips), and each by bin or category."""
        true = self._losses(model, objective, np.arange(len(self.x0)), self.true, range(BINS), device)
        shuffled = self._losses(model, objective, np.arange(len(self.x0)), self.shuffled, range(BINS), device)
        gaps = shuffled - true
        result: dict[str, Any] = {
            "val_loss": float(true.mean()),
            "val_loss_by_bin": true.mean(0).tolist(),
            "val_loss_se": float(true.mean(1).std(ddof=1) / len(true) ** 0.5),
            "caption_gap": float(gaps.mean()),
            "caption_gap_se": float(gaps.mean(1).std(ddof=1) / len(gaps) ** 0.5),
            "caption_gap_by_bin": gaps.mean(0).tolist(),
            "flip_accuracy": None,
            "flip_accuracy_se": None,
            "flip_accuracy_by_category": {},
        }
        if self.flip_category:
            bins = range(BINS)[FLIP_BINS]
            flipped = self._losses(model, objective, self.flip_of, self.flipped, bins, device).mean(1)
            right = flipped > true[:, FLIP_BINS].mean(1)[self.flip_of]
            by_image, by_category = defaultdict(list), defaultdict(list)
            for image, category, hit in zip(self.flip_of, self.flip_category, right, strict=True):
                by_image[image].append(hit)
                by_category[category].append(hit)
            means = np.array([np.mean(v) for v in by_image.values()])
            result["flip_accuracy"] = float(np.mean(right))
            result["flip_accuracy_se"] = float(means.std(ddof=1) / len(means) ** 0.5)  # flips of one image are one cluster
            result["flip_accuracy_by_category"] = {k: float(np.mean(v)) for k, v in sorted(by_category.items())}
        return result

    def _losses(self, model, objective, images, condition, bins, device) -> np.ndarray:
        """Losses [len(images), len(bins)] of the given images under the given condition."""
        out = np.zeros((len(images), len(bins)))
        for column, k in enumerate(bins):
            for piece in batches(len(images), 256):
                rows = images[piece]
                u = torch.full((len(rows),), (k + 0.5) / BINS)
                tensors = (self.x0[rows], self.noise[rows, k], objective.timesteps(u), *(c[piece] for c in condition))
                losses = sample_losses(model, objective, *(x.to(device) for x in tensors))
                out[piece, column] = losses.float().cpu().numpy()
        return out


def make_probe(world: World, density: str, codec: ImageCodec, text: TextEncoder, n: int = 256) -> Probe:
    """The probe over the first `n` validation images. The same (world, captions, encoders, n) gives the same probe."""
    n = min(n, world.length("val"))
    indices = np.arange(n)
    captions = world.captions("val", indices, density)
    x0 = codec.encode(world.images("val", indices)).cpu()
    rng = np.random.default_rng(PROBE_SEED)
    noise = torch.from_numpy(rng.standard_normal((n, BINS, *x0.shape[1:]), dtype=np.float32))
    flips = [(i, f) for i, of_image in enumerate(world.flips("val", indices, density, PROBE_SEED)) for f in of_image]
    return Probe(
        x0=x0,
        noise=noise,
        true=_encode(text, captions),
        shuffled=_encode(text, [captions[j] for j in others(captions)]),
        flipped=_encode(text, [f.flipped_caption for _, f in flips]) if flips else (torch.empty(0), torch.empty(0)),
        flip_of=np.array([i for i, _ in flips], dtype=int),
        flip_category=[f.category for _, f in flips],
    )


def others(captions: list[str]) -> list[int]:
    """For each caption the index of the next one, cyclically, that reads differently."""
    n = len(captions)
    return [next((j % n for j in range(i + 1, i + n) if captions[j % n] != captions[i]), i) for i in range(n)]


def _encode(text: TextEncoder, captions: list[str]) -> tuple[Tensor, Tensor]:
    parts = [text.encode(captions[piece]) for piece in batches(len(captions), 128)]
    return torch.cat([s for s, _ in parts]).cpu(), torch.cat([m for _, m in parts]).cpu()
