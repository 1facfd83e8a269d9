"""Alignment without sampling: caption gap and flip accuracy of a probe, and the information between text and image.

For x_t at signal-to-noise ratio γ the I-MMSE relation (Guo, Shamai and Verdú 2005) gives the information that a caption
has about its image as ½ ∫ (MMSE(γ) − MMSE(γ | caption)) dγ, and in errors of the noise, ε = (x_t − √ᾱ x0) / √(1 − ᾱ),
as ½ ∫ E[|ε − ε̂(x_t)|² − |ε − ε̂(x_t, caption)|²] d log γ (Kong et al. 2024, arXiv 2310.07972): exact for the best
possible denoiser, an estimate for a trained one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from t2ikit.errors import UserError
from t2ikit.objectives import DDPM, Objective, RectifiedFlow
from t2ikit.probe import PROBE_SEED, Probe, standard_error

BINS = 24  # noise levels of the integral


@torch.no_grad()
def alignment(
    model: nn.Module,
    objective: Objective,
    probe: Probe,
    null: tuple[Tensor, Tensor],
    bins: int = BINS,
    device: str | torch.device = "cpu",
) -> dict[str, Any]:
    """What `probe.measure` finds, and the information between text and image, in nats an image.

    `null`: the empty caption's condition, batch of one. Adds `information`, its standard error `information_se`, and
    its density over log γ, `information_by_bin` at `log_snr`: what it integrates to beyond these ends is left out.
    """
    n, shape = probe.noise.shape[0], probe.noise.shape[2:]
    noise = np.random.default_rng(PROBE_SEED).standard_normal((n, bins, *shape), dtype=np.float32)
    fine = replace(probe, noise=torch.from_numpy(noise))
    empty = tuple(x.expand(n, *x.shape[1:]) for x in null)
    without, given = (fine.losses(model, objective, np.arange(n), c, range(bins), device) for c in (empty, probe.true))
    log_snr, weight = noise_error(objective, (torch.arange(bins) + 0.5) / bins)
    gap = (without - given) * weight * np.prod(shape)
    each = information(gap, log_snr)
    order = np.argsort(log_snr)
    return probe.measure(model, objective, device) | {
        "information": float(each.mean()),
        "information_se": standard_error(each, np.arange(n)),
        "information_by_bin": (gap.mean(0) / 2)[order].tolist(),
        "log_snr": log_snr[order].tolist(),
    }


def information(gap: np.ndarray, log_snr: np.ndarray) -> np.ndarray:
    """½ ∫ gap d log γ in nats, [...], by the trapezoidal rule.

    gap: [..., K], squared error of the noise without the caption less that with it, summed over dimensions. log_snr:
    [K], in any order.
    """
    order = np.argsort(log_snr)
    return 0.5 * np.trapezoid(np.asarray(gap)[..., order], np.asarray(log_snr)[order], axis=-1)


def noise_error(objective: Objective, u: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """At `u` [K] in [0, 1): log γ, and what turns the objective's squared error into that of the noise."""
    t = objective.timesteps(u)
    if isinstance(objective, DDPM):
        a = objective.alphas_cumprod[t]
        weight = torch.ones_like(a) if objective.prediction == "epsilon" else a  # ε = √ᾱ v + √(1 − ᾱ) x
        return torch.logit(a).numpy(), weight.numpy()
    if isinstance(objective, RectifiedFlow):
        t = t.double()
        return (2 * torch.log((1 - t) / t)).numpy(), ((1 - t) ** 2).numpy()  # ε = x_t + (1 − t) v
    raise UserError(f"The noise levels of {type(objective).__name__} are not known: choose DDPM or RectifiedFlow.")
