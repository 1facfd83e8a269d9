"""Alignment without sampling: how much a caption lowers the loss, at fixed images, timesteps and noise.

Two checkpoints of one loss space differ here by their weights alone. Three numbers come out, each from the same noisy
latents: the validation loss per timestep bin; the caption gap, loss(another image's caption) − loss(true caption); and,
in worlds with exact captions, the flip accuracy: how often the true caption has a lower loss than one with a single
attribute changed, by category. A tie counts half, so a model that ignores text scores one half.
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
BINS = 6  # timestep bins, equally likely in training; the centre of each is used
FLIP_BINS = slice(1, 4)  # the middle of the schedule, where an attribute is decided
ROUNDING = 1e-6  # relative difference of two float32 losses that are equal but for the batch they were computed in
FORWARD = 64  # samples in one forward pass: a training step has as many at tiny, so evaluation needs no more memory
ENCODE = 32  # images encoded at once: at 256 px a VAE needs gigabytes for more


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
        """`val_loss`, `caption_gap`, `flip_accuracy` (None in a world without flips), and each by bin or category."""
        true = self.losses(model, objective, np.arange(len(self.x0)), self.true, range(BINS), device)
        shuffled = self.losses(model, objective, np.arange(len(self.x0)), self.shuffled, range(BINS), device)
        gaps = shuffled - true
        result: dict[str, Any] = {
            "val_loss": float(true.mean()),
            "val_loss_by_bin": true.mean(0).tolist(),
            "val_loss_se": standard_error(true.mean(1), np.arange(len(true))),
            "caption_gap": float(gaps.mean()),
            "caption_gap_se": standard_error(gaps.mean(1), np.arange(len(gaps))),
            "caption_gap_by_bin": gaps.mean(0).tolist(),
            "flip_accuracy": None,
            "flip_accuracy_se": None,
            "flip_accuracy_by_category": {},
        }
        if self.flip_category:
            bins = range(BINS)[FLIP_BINS]
            flipped = self.losses(model, objective, self.flip_of, self.flipped, bins, device).mean(1)
            difference = flipped - true[:, FLIP_BINS].mean(1)[self.flip_of]
            tied = np.abs(difference) <= ROUNDING * flipped
            right = np.where(tied, 0.5, difference > 0)
            by_category = defaultdict(list)
            for category, hit in zip(self.flip_category, right, strict=True):
                by_category[category].append(hit)
            result["flip_accuracy"] = float(np.mean(right))
            result["flip_accuracy_se"] = standard_error(right, self.flip_of)
            result["flip_accuracy_by_category"] = {k: float(np.mean(v)) for k, v in sorted(by_category.items())}
        return result

    @torch.no_grad()
    def loss(self, model: nn.Module, objective: Objective, device: str | torch.device = "cpu") -> dict[str, Any]:
        """`val_loss`, `val_loss_se` and `n` images: the part of `measure` that true captions give."""
        images = np.arange(len(self.x0))
        of_image = self.losses(model, objective, images, self.true, range(BINS), device).mean(1)
        return {"val_loss": float(of_image.mean()), "val_loss_se": standard_error(of_image, images), "n": len(images)}

    def losses(self, model, objective, images, condition, bins, device) -> np.ndarray:
        """Losses [len(images), len(bins)] of the given images under the given condition; a bin for each noise."""
        out = np.zeros((len(images), len(bins)))
        for column, k in enumerate(bins):
            for piece in batches(len(images), FORWARD):
                rows = images[piece]
                u = torch.full((len(rows),), (k + 0.5) / self.noise.shape[1])
                tensors = (self.x0[rows], self.noise[rows, k], objective.timesteps(u), *(c[piece] for c in condition))
                losses = sample_losses(model, objective, *(x.to(device) for x in tensors))
                out[piece, column] = losses.float().cpu().numpy()
        return out


def standard_error(values: np.ndarray, cluster: np.ndarray) -> float | None:
    """Of the mean of `values` [m], where those of one cluster (an image) are not independent; None with one.

    Cluster-robust, for clusters of unequal size: √(G/(G−1) Σ_g (Σ_{i∈g} (x_i − x̄))²) / m.
    """
    _, of = np.unique(cluster, return_inverse=True)
    sums = np.bincount(of, values - values.mean())
    if (g := len(sums)) < 2:
        return None
    return float(np.sqrt(g / (g - 1) * np.sum(sums**2)) / len(values))


def make_probe(world: World, density: str, codec: ImageCodec, text: TextEncoder, n: int) -> Probe:
    """The probe over the first `n` validation images. The same (world, captions, encoders, n) gives the same probe."""
    n = min(n, world.length("val"))
    indices = np.arange(n)
    captions = world.captions("val", indices, density)
    x0 = torch.cat([codec.encode(world.images("val", indices[piece])).cpu() for piece in batches(n, ENCODE)])
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
