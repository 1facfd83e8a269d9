"""The floor: the lowest loss that any model can have in the world `scenes-enumerated`, in the latents of a codec.

The clean latents x0 are one of a finite set, each as likely. Given noisy latents x_t = a x0 + s ε their posterior is a
softmax over the set, and no prediction has a lower mean squared error than the one made of its mean (Karras et al.
2022, appendix B.3). An objective's target is p x0 + q ε, and ε = (x_t − a x0) / s: so the error of the best prediction
is (p − q a / s) (x0 − E[x0 | x_t]), for noise, v and velocity alike.

What a scene is says little beside 1,024 latents: over all signal-to-noise ratios ∫ E‖x0 − E[x0 | x_t]‖² dSNR = 2 H
(Guo, Shamai and Verdú 2005), with H = ln 52,488 = 10.9 nats, less with a caption. So the floor of a prediction of noise
is low; that of a velocity is higher, for at t = 1 it asks for x0 itself. At little noise errors are few and rare, and
so their standard errors large.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from t2ikit.cache import SHARD, cached_latents
from t2ikit.data.scenes_enumerated import ScenesEnumerated
from t2ikit.encoders import batches
from t2ikit.errors import UserError
from t2ikit.objectives import Objective
from t2ikit.probe import Probe, make_probe, standard_error
from t2ikit.train.setup import Parts

CONDITIONS = ("none", "caption")
AT_ONCE = 128  # draws: 54 MB a matrix of their float64 weights over 52,488 scenes


@dataclass(frozen=True)
class Distribution:
    """All that can be drawn: latents [n, d] float64, each as likely; caption [n], one number for equal captions."""

    latents: Tensor
    caption: Tensor

    @cached_property
    def squares(self) -> Tensor:
        return self.latents.square().sum(1)


def distribution(parts: Parts) -> Distribution:
    """That of `parts`' world, codec and captions: the cached latents, rounded to 16 bits, which training draws from.

    Encodes what the cache lacks first: minutes on a CPU, once.
    """
    world = parts.world
    if not isinstance(world, ScenesEnumerated):
        raise UserError(f"The floor of the world {world.name!r} is not known: choose {ScenesEnumerated.name!r}.")
    n, split = world.length("train"), cached_latents(world, "train", parts.codec)
    shards = tqdm(list(batches(n, SHARD)), desc="latents", unit="shard", mininterval=1.0)
    latents = [split.rows(np.arange(n)[piece])["latents"].flatten(1) for piece in shards]
    _, caption = np.unique(world.captions("train", np.arange(n), parts.config.captions), return_inverse=True)
    return Distribution(torch.cat(latents).double(), torch.from_numpy(caption))


def posterior_means(data: Distribution, x_t: Tensor, a: Tensor, s: Tensor, caption: Tensor) -> Tensor:
    """E[x0 | x_t] and E[x0 | x_t, caption], [2, B, d], of x_t = a x0 + s ε [B, d]; a and s [B, 1], caption [B]."""
    logits = (a / s**2) * (x_t @ data.latents.T) - (a / s) ** 2 / 2 * data.squares
    means = logits.softmax(1) @ data.latents
    told = logits.masked_fill_(caption[:, None] != data.caption, -torch.inf).softmax(1) @ data.latents
    return torch.stack([means, told])


def coefficients(objective: Objective, t: Tensor) -> tuple[Tensor, ...]:
    """a, s, p, q, each [B, 1] float64, of x_t = a x0 + s ε and target p x0 + q ε at the timesteps [B]."""
    zero, one = torch.zeros(len(t), 1, 1, 1), torch.ones(len(t), 1, 1, 1)
    found = [part(*x, t) for part in (objective.mix, objective.target) for x in ((one, zero), (zero, one))]
    return tuple(x.double().view(-1, 1) for x in found)


@torch.no_grad()
def losses(data: Distribution, objective: Objective, rows: Tensor, noise: Tensor, t: Tensor) -> np.ndarray:
    """The loss of the best prediction on each draw, float64 [B, 2]: not told the caption, and told it.

    rows [B]: which of the set is drawn; noise [B, …] of d numbers each; t [B] timesteps.
    """
    out = np.empty((len(rows), len(CONDITIONS)))
    for piece in tqdm(list(batches(len(rows), AT_ONCE)), desc="floor", unit="batch", mininterval=1.0):
        a, s, p, q = coefficients(objective, t[piece])
        x0, caption = data.latents[rows[piece]], data.caption[rows[piece]]
        means = posterior_means(data, a * x0 + s * noise[piece].flatten(1).double(), a, s, caption)
        out[piece] = ((p - q * a / s) * (x0 - means)).square().mean(2).T
    return out


def estimate(
    data: Distribution, objective: Objective, draws: int = 4096, bins: int = 16, seed: int = 0
) -> pd.DataFrame:
    """The mean of `losses` over scenes, noise and the objective's own timesteps, by Monte Carlo.

    A row a condition ("none", "caption") and bin: `bins` equal parts of the timesteps' distribution, then "all" of it;
    columns condition, bin, t (its mean timestep), value, standard_error, n. Each bin has draws // bins draws.
    """
    n = draws // bins if bins > 0 else 0
    if n < 2:
        raise UserError(f"{draws} draws in {bins} bins are too few for a standard error: give at least two a bin.")
    rng = np.random.default_rng(seed)
    u = (np.repeat(np.arange(bins), n) + rng.random(bins * n)) / bins
    t = objective.timesteps(torch.from_numpy(u).float().clamp(2**-24, 1 - 2**-24))
    rows = torch.from_numpy(rng.integers(len(data.latents), size=bins * n))
    noise = torch.from_numpy(rng.standard_normal((bins * n, data.latents.shape[1]), dtype=np.float32))
    by_bin = losses(data, objective, rows, noise, t).reshape(bins, n, len(CONDITIONS))
    mean, error, times = by_bin.mean(1), by_bin.std(1, ddof=1) / n**0.5, t.double().view(bins, n).mean(1).tolist()
    table = []
    for k, condition in enumerate(CONDITIONS):
        parts = zip(map(str, range(bins)), times, mean[:, k], error[:, k], [n] * bins, strict=True)
        whole = ("all", np.mean(times), mean[:, k].mean(), (error[:, k] ** 2).sum() ** 0.5 / bins, bins * n)
        table += [(condition, *row) for row in (*parts, whole)]
    return pd.DataFrame(table, columns=["condition", "bin", "t", "value", "standard_error", "n"])


def of(parts: Parts, draws: int = 4096, bins: int = 16, seed: int = 0) -> pd.DataFrame:
    """The floor of a configuration, `floor.of(resolve(config))`, or of a run, `floor.of(load_run(folder)[0])`.

    `estimate`'s table: condition "caption" is what a model that reads captions can reach, "none" what one without can.
    """
    return estimate(distribution(parts), parts.objective, draws, bins, seed)


def on_probe(parts: Parts, probe: Probe) -> np.ndarray:
    """The floor on the draws of `probe`, those that a run's `val_loss` is the mean of: [images, bins, 2] (`losses`)."""
    data, (n, bins) = distribution(parts), probe.noise.shape[:2]
    # validation image i is scene i, and the probe encodes it anew, unrounded
    data.latents[:n] = probe.x0.flatten(1)
    u = (torch.arange(bins) + 0.5) / bins
    rows, t = torch.arange(n).repeat_interleave(bins), parts.objective.timesteps(u.repeat(n))
    return losses(data, parts.objective, rows, probe.noise.flatten(0, 1), t).reshape(n, bins, len(CONDITIONS))


def excess(parts: Parts, model: nn.Module, device: str | torch.device = "cpu") -> dict[str, Any]:
    """How far a model is above the floor, draw by draw of its probe: `floor.excess(*load_run(folder))`.

    `val_loss` is the run's own at that step (in fp32: the log of a run in bf16 has it in bf16) and `floor` the best
    possible on the same draws, told the caption; `excess` is their difference, `excess_se` its standard error over the
    `n` images, `…_by_bin` are by timestep bin.
    """
    probe = make_probe(parts.world, parts.config.captions, parts.codec, parts.text, parts.config.probe_images)
    floor, images = on_probe(parts, probe)[..., 1], np.arange(len(probe.x0))
    with torch.no_grad():
        loss = probe.losses(model, parts.objective, images, probe.true, range(floor.shape[1]), device)
    above = loss - floor
    return {
        "val_loss": float(loss.mean()),
        "floor": float(floor.mean()),
        "excess": float(above.mean()),
        "excess_se": standard_error(above.mean(1), images),
        "n": len(images),
        "floor_by_bin": floor.mean(0).tolist(),
        "excess_by_bin": above.mean(0).tolist(),
    }
