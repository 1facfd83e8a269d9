"""Training objectives: how noise is mixed in, what is predicted, and the loss.

The loop hands over latents, noise and a uniform number per sample and never asks which objective it is.
"""

from __future__ import annotations

from typing import Protocol

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from t2ikit.errors import choose

# Stable Diffusion's schedule (LDM, arXiv 2112.10752); DDIM's spacing is that of its released pipelines
LDM = {"num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


class Objective(Protocol):
    """Latents are [B, C, h, w]; `u` is uniform in [0, 1), one per sample."""

    def timesteps(self, u: Tensor) -> Tensor:
        """The timesteps [B] that the model is called with."""
        ...

    def mix(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noisy latents x_t."""
        ...

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the model is asked to predict."""
        ...


class DDPM:
    """Ho et al. 2020 with LDM's schedule, predicting noise or v (Salimans & Ho 2022); unweighted MSE."""

    def __init__(self, prediction: str = "epsilon") -> None:
        self.prediction = choose("prediction", prediction, ("epsilon", "v_prediction"))
        self.scheduler = DDPMScheduler(**LDM, prediction_type=prediction, clip_sample=False)
        self.alphas_cumprod = self.scheduler.alphas_cumprod.double()  # ours: diffusers moves its own to each device

    def timesteps(self, u: Tensor) -> Tensor:
        return (u * self.scheduler.config.num_train_timesteps).long()

    def mix(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return self.scheduler.add_noise(x0, noise, t)

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise if self.prediction == "epsilon" else self.scheduler.get_velocity(x0, noise, t)

    def sampling_scheduler(self) -> DDIMScheduler:
        """DDIM with the spacing of Stable Diffusion's pipelines."""
        return DDIMScheduler(
            **LDM, prediction_type=self.prediction, clip_sample=False, set_alpha_to_one=False, steps_offset=1
        )


class RectifiedFlow:
    """Liu et al. 2023: x_t = (1 − t) x0 + t noise, predicting the velocity noise − x0; unweighted MSE.

    Timesteps are times 0…1, in training uniform, or logit-normal(0, 1) as SD3's (Esser et al. 2024, eq. 19).
    """

    def __init__(self, times: str = "uniform") -> None:
        self.times = choose("distribution of times", times, ("uniform", "logit-normal"))

    def timesteps(self, u: Tensor) -> Tensor:
        return torch.sigmoid(torch.special.ndtri(u)) if self.times == "logit-normal" else u

    def mix(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return torch.lerp(x0, noise, t.view(-1, 1, 1, 1))

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - x0


def objective(name: str) -> Objective:
    """The objective that `RunConfig.objective` names."""
    made = {
        "ddpm-eps": lambda: DDPM("epsilon"),
        "ddpm-v": lambda: DDPM("v_prediction"),
        "rf-uniform": lambda: RectifiedFlow("uniform"),
        "rf-logit-normal": lambda: RectifiedFlow("logit-normal"),
    }
    return made[choose("objective", name, made)]()


def sample_losses(
    model: nn.Module, objective: Objective, x0: Tensor, noise: Tensor, t: Tensor, states: Tensor, mask: Tensor
) -> Tensor:
    """Mean squared error of each sample, [B] float32."""
    prediction = model(objective.mix(x0, noise, t), t, states, mask)
    return torch.mean((prediction.float() - objective.target(x0, noise, t)) ** 2, dim=(1, 2, 3))
