"""One call for every backbone, `(latents, t, states, mask) -> prediction`, over diffusers modules that take another."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2ikit.models.attention import quick_attention


def timestep(t: Tensor) -> Tensor:
    """Integer timesteps 0…999 as they are; float flow times 0…1 times 1000, as diffusers' flow pipelines feed them."""
    return t * 1000 if torch.is_floating_point(t) else t


class Denoiser(nn.Module):
    """A network that takes this call itself, with timesteps 0…1000; `predict` is what the others do instead."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None = None) -> Tensor:
        with quick_attention(latents):
            return self.predict(latents, timestep(t), states, mask)

    def predict(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        return self.network(latents, t, states, mask)


class UNetDenoiser(Denoiser):
    """A UNet2DConditionModel. `mask` is not used: LDM, SD2 and SDXL attend to the padding tokens as well."""

    def predict(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        return self.network(latents, t, states, return_dict=False)[0]


class PixArtDenoiser(Denoiser):
    """A PixArtTransformer2DModel. `mask` [B, L], true on words, keeps padding out of cross-attention."""

    def predict(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            mask = mask.to(latents.dtype)
        return self.network(latents, states, t, encoder_attention_mask=mask, return_dict=False)[0]


def pooled(states: Tensor, mask: Tensor | None) -> Tensor:
    """The mean state of the words, [B, W], for the pooled text that SD3 and FLUX add to the time."""
    if mask is None:
        return states.mean(1)
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class MMDiTDenoiser(Denoiser):
    """An SD3Transformer2DModel. It attends to the padding tokens too, as SD3 does; `mask` keeps them from pooling."""

    def predict(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        return self.network(latents, states, pooled(states, mask), t, return_dict=False)[0]


class FluxDenoiser(Denoiser):
    """A FluxTransformer2DModel on patches of 2 × 2, packed and placed as in FluxPipeline; `mask` as in MM-DiT.

    Under autocast the network rounds its time to bf16, as FLUX does.
    """

    def predict(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        patches = F.pixel_unshuffle(latents, 2)
        grid, device = patches.shape[-2:], latents.device
        rows, columns = torch.meshgrid(*(torch.arange(n, device=device) for n in grid), indexing="ij")
        places = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1)
        prediction = self.network(
            patches.flatten(2).mT,
            states,
            pooled(states, mask),
            t / 1000,
            img_ids=places,
            txt_ids=places.new_zeros(states.shape[1], 3),
            return_dict=False,
        )[0]
        return F.pixel_shuffle(prediction.mT.unflatten(2, grid), 2)
