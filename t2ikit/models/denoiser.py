"""One call for every backbone, `(latents, t, states, mask) -> prediction`, over diffusers modules that take another."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def timestep(t: Tensor) -> Tensor:
    """Integer timesteps 0…999 as they are; float flow times 0…1 times 1000, as diffusers' flow pipelines feed them."""
    return t * 1000 if torch.is_floating_point(t) else t


class UNetDenoiser(nn.Module):
    """A UNet2DConditionModel. `mask` is not used: LDM, SD2 and SDXL attend to the padding tokens as well."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.network(latents, timestep(t), states, return_dict=False)[0]


class PixArtDenoiser(nn.Module):
    """A PixArtTransformer2DModel. `mask` [B, L], true on words, keeps padding out of cross-attention."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            mask = mask.to(latents.dtype)
        return self.network(latents, states, timestep(t), encoder_attention_mask=mask, return_dict=False)[0]
