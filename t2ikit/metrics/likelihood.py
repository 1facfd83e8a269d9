"""Likelihood of images under a diffusion model: the variational bound of DDPM, and the exact density of its ODE.

Numbers are per dimension, a mean over C·h·w: in bits for pixels, in nats for latents. They compare only in one space.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from t2ikit.errors import UserError
from t2ikit.objectives import DDPM

TOLERANCE = 1e-5  # of the ODE's solver, as Song et al. 2021 have it
Condition = tuple[Tensor, Tensor]  # states [B, L, W], mask [B, L]


class Predictor(Protocol):
    """A denoiser with its captions filled in: the noise in x_t (DDPM), or the velocity noise − x0 (rectified flow)."""

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """x [B, C, h, w]; t [B], timesteps of DDPM, which may lie between two, or flow times in [0, 1] → like x."""
        ...


def noise_of(model: nn.Module, objective: DDPM, condition: Condition) -> Predictor:
    """The noise that a DDPM backbone predicts, from what its objective trained: ε, or v (ε = √ᾱ v + √(1 − ᾱ) x)."""
    log_sigma = noise_levels(objective.alphas_cumprod)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        # backbones take floats as times in [0, 1] and feed their embedding 1000 of them
        out = model(x, t / 1000 if torch.is_floating_point(t) else t, *condition)
        if objective.prediction == "epsilon":
            return out
        a = _alpha(t, log_sigma).to(x).view(-1, 1, 1, 1)
        return a.sqrt() * out + (1 - a).sqrt() * x

    return predict


def velocity_of(model: nn.Module, condition: Condition) -> Predictor:
    """The velocity that a rectified-flow backbone predicts."""
    return lambda x, t: model(x, t, *condition)


def noise_of_flow(model: nn.Module, alphas_cumprod: Tensor, condition: Condition) -> Predictor:
    """The noise that a rectified-flow backbone predicts at DDPM's timesteps: with √ᾱ and σ = √(1 − ᾱ) the same noisy
    image is x / (√ᾱ + σ) at the flow time t = σ / (√ᾱ + σ), and ε = x_t + (1 − t) v."""
    log_sigma = noise_levels(alphas_cumprod)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        a = _alpha(t, log_sigma)
        total = a.sqrt() + (1 - a).sqrt()
        flow, total = ((1 - a).sqrt() / total).to(x), total.to(x).view(-1, 1, 1, 1)
        return x / total + (1 - flow).view(-1, 1, 1, 1) * model(x / total, flow, *condition)

    return predict


def noise_levels(alphas_cumprod: Tensor) -> np.ndarray:
    """log σ [T] of the timesteps, σ² = (1 − ᾱ) / ᾱ; between two timesteps it is taken to be linear."""
    a = alphas_cumprod.double().cpu().numpy()
    return 0.5 * np.log((1 - a) / a)


def _alpha(t: Tensor, log_sigma: np.ndarray) -> Tensor:
    """ᾱ float64 [B] at timesteps, whole or between two."""
    level = np.interp(t.cpu().numpy(), np.arange(len(log_sigma)), log_sigma)
    return torch.from_numpy(1 / (1 + np.exp(2 * level)))


@dataclass
class Bound:
    """A variational bound per image [B] and dimension. `terms` [B, K]: the KL of each step, from `timesteps` [K]."""

    total: np.ndarray
    prior: np.ndarray  # KL of q(x_T | x0) and the unit Gaussian
    terms: np.ndarray
    decoder: np.ndarray | None  # −log p(x0 | x_1) of 8-bit pixels; None for latents
    timesteps: np.ndarray
    unit: str


def chain(alphas_cumprod: Tensor, most: int = 64) -> np.ndarray:
    """At most `most` of the timesteps for `variational_bound`, evenly in log SNR: 2% above the bound of all 1,000 on a
    trained run. Evenly in time, nearly all of the bound would be the first step's discretisation."""
    log_snr = torch.logit(alphas_cumprod.double().cpu()).numpy()
    return np.unique(np.abs(log_snr[:, None] - np.linspace(log_snr[0], log_snr[-1], most)).argmin(0))


@torch.no_grad()
def variational_bound(
    predict: Predictor,
    x0: Tensor,
    alphas_cumprod: Tensor,
    timesteps: Sequence[int] | None = None,
    pixels: bool = False,
    seed: int = 0,
) -> Bound:
    """DDPM's bound on −log p(x0) (Ho et al. 2020, eq. 5), variance of the posterior, one draw of noise a term.

    Between noise levels s < t the KL is ½ (SNR(s) − SNR(t)) |x0 − x̂0(x_t)|² (Kingma et al. 2021, eq. 14). `timesteps`
    may be fewer than all: the chain of those is a bound too, a looser one. With `pixels` x0 is 8-bit levels / 127.5
    − 1, the last step is Ho's discretised Gaussian, and the unit is bits; else latents, without that step, in nats.
    """
    a = alphas_cumprod.double().cpu()
    steps = np.arange(len(a)) if timesteps is None else np.asarray(timesteps)
    if len(steps) < 2 or (np.diff(steps) <= 0).any() or not 0 <= steps[0] or steps[-1] != len(a) - 1:
        raise UserError(f"A chain needs two or more rising timesteps, none below 0, of which the last is {len(a) - 1}.")
    generator = torch.Generator().manual_seed(seed)
    x, b, signal = x0.double(), len(x0), (a / (1 - a))[torch.from_numpy(steps)]

    def denoised(step: int) -> Tensor:
        noise = torch.randn(x0.shape, generator=generator).to(x0.device)
        t = torch.full((b,), int(step), device=x0.device)
        x_t = (a[step].sqrt() * x + (1 - a[step]).sqrt() * noise).float()
        return (x_t - (1 - a[step]).sqrt() * predict(x_t, t).double()) / a[step].sqrt()

    terms = torch.zeros(b, len(steps), dtype=torch.float64)
    for k in range(1, len(steps)):
        error = (x - denoised(steps[k])).square().flatten(1).mean(1)
        terms[:, k] = 0.5 * (signal[k - 1] - signal[k]) * error.cpu()
    prior = 0.5 * (a[-1] * x.square().flatten(1).mean(1).cpu() - a[-1] - torch.log1p(-a[-1]))
    if not pixels:
        return Bound(*(p.numpy() for p in (prior + terms.sum(1), prior, terms)), None, steps, "nats/dim")
    first, second = a[steps[0]], a[steps[1]]
    variance = (1 - first) * (1 - second / first) / (1 - second)  # of the posterior at the second step, as Ho's
    decoder = -discretised_log_likelihood(x, denoised(steps[0]), variance.sqrt()).flatten(1).mean(1).cpu()
    parts = (prior + terms.sum(1) + decoder, prior, terms, decoder)
    return Bound(*(p.numpy() / math.log(2) for p in parts), steps, "bits/dim")


def discretised_log_likelihood(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """log of a Gaussian's mass in the bin of each level x = k / 127.5 − 1, the outer bins open (Ho et al., eq. 13)."""
    upper, lower = ((x - mean + side) / deviation for side in (1 / 255, -1 / 255))
    above = torch.where(x > 0.999, torch.ones_like(x), torch.special.ndtr(upper))
    below = torch.where(x < -0.999, torch.zeros_like(x), torch.special.ndtr(lower))
    return (above - below).clamp(min=1e-12).log()


def flow_log_likelihood(
    velocity: Predictor, x0: Tensor, tolerance: float = TOLERANCE, probes: int = 1, seed: int = 0
) -> Tensor:
    """log p(x0) [B] in nats under rectified flow, x_t = (1 − t) x0 + t ε and v = ε − x0: dx/dt = v from 0 to 1.

    log p(x0) = log N(x_1; 0, 1) + ∫ ∇·v dt (Chen et al. 2018, "Neural ODEs").
    """

    def field(t: float, x: Tensor) -> Tensor:
        return velocity(x, torch.full((len(x),), t, device=x.device))

    x1, gained = _solve(field, x0, 0.0, 1.0, tolerance, probes, seed)
    return _gaussian(x1, 1.0) + gained


def ddpm_log_likelihood(
    noise: Predictor, x0: Tensor, alphas_cumprod: Tensor, tolerance: float = TOLERANCE, probes: int = 1, seed: int = 0
) -> Tensor:
    """log p(x0) [B] in nats under DDPM's probability-flow ODE (Song et al. 2021).

    In y = x / √ᾱ it reads dy/dσ = ε(x_t, t) (Karras et al. 2022), solved over log σ between the first and the last
    timestep, where y ~ N(0, 1 + σ²). The density is that of data with the first timestep's noise (σ = 0.03 with LDM's
    schedule), taken at x0.
    """
    levels = noise_levels(alphas_cumprod)

    def field(level: float, y: Tensor) -> Tensor:
        sigma = math.exp(level)
        t = torch.full((len(y),), float(np.interp(level, levels, np.arange(len(levels)))), device=y.device)
        return sigma * noise(y / math.sqrt(1 + sigma**2), t)

    y, gained = _solve(field, x0, levels[0], levels[-1], tolerance, probes, seed)
    return _gaussian(y, 1 + math.exp(2 * levels[-1])) + gained


def bits_per_dim(log_likelihood: Tensor, size: int, levels_per_unit: float = 127.5) -> Tensor:
    """Nats of a density over x = levels / 127.5 − 1, dequantised uniformly → bits/dim of `size` 8-bit numbers."""
    return -log_likelihood / (size * math.log(2)) + math.log2(levels_per_unit)


def _solve(
    field: Callable[[float, Tensor], Tensor],
    x: Tensor,
    start: float,
    end: float,
    tolerance: float,
    probes: int,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Runge–Kutta of order 5(4), steps chosen so that its error stays within `tolerance`, absolute and relative, as an
    average over the batch: the end point and ∫ ∇·field [B], ∇· by Hutchinson's estimator.

    Rademacher probes, drawn once and kept for the whole path (Grathwohl et al. 2019): exact where the field's Jacobian
    is diagonal, and the integrand stays smooth. Six evaluations a step, each with `probes` backward passes.
    """
    if not tolerance > 0 or probes < 1:
        raise UserError(f"A tolerance of {tolerance} with {probes} probes solves no ODE: give more than 0 of each.")
    generator = torch.Generator().manual_seed(seed)
    draws, size = (torch.randint(0, 2, (probes, *x.shape), generator=generator) * 2 - 1).to(x), x.numel()

    def slope(s: float, state: np.ndarray) -> np.ndarray:
        with torch.enable_grad():
            at = torch.from_numpy(state[:size]).to(x).view_as(x).requires_grad_(True)
            out = field(s, at)
            along = [torch.autograd.grad(out, at, e, retain_graph=True)[0].mul(e).flatten(1).sum(1) for e in draws]
        found = np.concatenate([_numbers(out), _numbers(torch.stack(along).double().mean(0))])
        if not np.isfinite(found).all():  # the solver would look for a step small enough for ever
            raise UserError("The likelihood's ODE met NaN or infinity in what the model predicts: choose another step.")
        return found

    first = np.concatenate([_numbers(x), np.zeros(len(x))])
    solved = solve_ivp(slope, (start, end), first, "RK45", t_eval=[end], rtol=tolerance, atol=tolerance)
    if not solved.success:
        raise UserError(f"The ODE of the likelihood could not be solved ({solved.message.strip('. ')}).")
    last = torch.from_numpy(solved.y[:, -1]).to(x.device)
    return last[:size].view_as(x), last[size:]


def _numbers(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().flatten().numpy()


def _gaussian(x: Tensor, variance: float) -> Tensor:
    """log N(x; 0, variance) [B]."""
    flat = x.double().flatten(1)
    return -0.5 * (flat.square().sum(1) / variance + flat.shape[1] * math.log(2 * math.pi * variance))
