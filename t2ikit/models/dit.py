"""Parts that our own transformers share, in plain torch. Shapes: B images, T tokens, W channels, C latent channels."""

from __future__ import annotations

from collections.abc import Iterable

from diffusers.models.embeddings import TimestepEmbedding, Timesteps, get_2d_sincos_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F

from t2ikit.errors import UserError

SINUSOIDS = 256  # features of a timestep before its MLP, as in DiT, PixArt-α and SD3


class Attention(nn.Module):
    """Multi-head attention of x [B, T, W] to itself, or to `context` [B, S, W]; `mask` [B, S] bool, true where seen."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.heads = width // head_width
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(x if context is None else context).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, mask if mask is None else mask[:, None, None])
        return self.out(seen.transpose(1, 2).flatten(2))


def feed_forward(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """adaLN (Peebles & Xie 2023): x [B, T, W], shift and scale [B, 1, W]."""
    return x * (1 + scale) + shift


class Time(nn.Sequential):
    """Timesteps [B], 0…1000 → [B, W]."""

    def __init__(self, width: int) -> None:
        super().__init__(Timesteps(SINUSOIDS, True, 0), TimestepEmbedding(SINUSOIDS, width))


class Patches(nn.Module):
    """Latents [B, C, side, side] → tokens [B, (side/patch)², W] with fixed sines and cosines of two coordinates."""

    def __init__(self, channels: int, side: int, patch: int, width: int) -> None:
        super().__init__()
        self.side, self.patch, grid = side, patch, side // patch
        self.project = nn.Linear(channels * patch**2, width)
        places = get_2d_sincos_pos_embed(width, grid, base_size=grid, output_type="pt")
        self.register_buffer("places", places.float(), persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        if latents.shape[-2:] != (self.side, self.side):
            h, w = latents.shape[-2:]
            raise UserError(
                f"Latents of {h} × {w} do not fit a backbone of {self.side} × {self.side}: "
                "build it at their resolution (dataclasses.replace(spec, resolution=…))."
            )
        return self.project(F.pixel_unshuffle(latents, self.patch).flatten(2).mT) + self.places


class Head(nn.Module):
    """Tokens [B, (side/patch)², W] → latents [B, C, side, side]: norm, adaLN if asked for, one linear layer."""

    def __init__(self, channels: int, side: int, patch: int, width: int, adaln: bool) -> None:
        super().__init__()
        self.patch, self.grid = patch, side // patch
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not adaln)
        self.modulation = nn.Linear(width, 2 * width) if adaln else None
        self.project = nn.Linear(width, channels * patch**2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        x = self.norm(x)
        if self.modulation is not None:
            x = modulate(x, *self.modulation(F.silu(time))[:, None].chunk(2, -1))
        return F.pixel_shuffle(self.project(x).mT.unflatten(2, (self.grid, self.grid)), self.patch)


def initialise(network: nn.Module, time: nn.Module, zeros: Iterable[nn.Linear]) -> None:
    """DiT's weights, in place: Xavier, small layers of the `time` embedding, `zeros` (modulations, last layers)."""
    for layer in network.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(layer.weight.data.flatten(1))
            nn.init.zeros_(layer.bias)
    for layer in time.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
    for layer in zeros:
        nn.init.zeros_(layer.weight)
