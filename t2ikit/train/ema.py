"""The power-function EMA of weights (Karras et al. 2024, arXiv 2312.02696, section 3.1), beside the raw weights."""

from __future__ import annotations

import torch
from scipy.optimize import brentq
from torch import Tensor


def power_of(std: float) -> float:
    """γ of the averaging profile t^γ whose relative width is `std` (eq. 127: σ = (γ+1)^½ (γ+2)^-1 (γ+3)^-½)."""
    return float(brentq(lambda g: (g + 1) ** 0.5 / ((g + 2) * (g + 3) ** 0.5) - std, 0.0, 1e4))


@torch.no_grad()
def update(average: list[Tensor], weights: list[Tensor], step: int, gamma: float) -> None:
    """Fold the weights after step `step` (from 1) into the average: β = (1 − 1/step)^(γ+1) (eq. 5)."""
    torch._foreach_lerp_(average, weights, 1.0 - (1.0 - 1.0 / step) ** (gamma + 1.0))
