"""Ladders of transformers for scaling studies: a rung is named by its depth and width, `incontext-d4-w128`.

The name says the size, the tier only what goes in: image, latents and text. All rungs have heads of one width, so that
the head's width is no second variable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from t2ikit.errors import UserError, choose
from t2ikit.models.pixart import PixArtSpec
from t2ikit.models.spec import BackboneSpec, Tier, divides

if TYPE_CHECKING:
    from torch import nn

HEAD_WIDTH = 32
# (depth, width) of each rung: 0.04M to 1B parameters in steps of about 2, at paper D's depths 2 to 15
RUNGS = (
    (2, 32),
    (4, 32),
    (2, 64),
    (4, 64),
    (3, 96),
    (4, 128),
    (4, 160),
    (5, 192),
    (6, 256),
    (7, 320),
    (8, 448),
    (9, 576),
    (10, 768),
    (11, 1024),
    (12, 1280),
    (13, 1600),
    (14, 1984),
    (15, 2368),
)


@dataclass(frozen=True)
class LadderSpec(BackboneSpec):
    """A transformer on patches of the latents, `width` channels wide and `depth` blocks deep."""

    patch: int = 2
    width: int = 128
    depth: int = 4
    head_width: int = HEAD_WIDTH
    joined: ClassVar[bool] = True  # text and image in one sequence

    def __post_init__(self) -> None:
        super().__post_init__()
        divides(self, "width", self.width, "the head width", self.head_width)
        divides(self, "latent side", self.latent_side, "patch", self.patch)

    @property
    def tokens(self) -> int:
        return (self.latent_side // self.patch) ** 2 + (self.text_tokens if self.joined else 0)

    def in_attention(self, layer: str) -> bool:
        """Every Linear of the blocks (no paper prints attention GMACs of these)."""
        return "blocks." in layer

    def _resized(self, tier: Tier) -> dict[str, Any]:
        return {}

    @property
    def _sizes(self) -> dict[str, int]:
        """What our own networks are built from."""
        names = ("patch", "text_width", "width", "depth", "head_width")
        return {"channels": self.latent_channels, "side": self.latent_side} | {k: getattr(self, k) for k in names}

    def initialise(self, network: nn.Module) -> None:
        network.initialise()

    def wrap(self, network: nn.Module) -> nn.Module:
        from t2ikit.models.denoiser import Denoiser

        return Denoiser(network)


@dataclass(frozen=True)
class InContextSpec(LadderSpec):
    """Paper D's vanilla in-context transformer; with `adaln` the time enters as in newer ones. See incontext.py."""

    adaln: bool = False

    def network(self) -> nn.Module:
        from t2ikit.models.incontext import InContext

        return InContext(**self._sizes, text_tokens=self.text_tokens, adaln=self.adaln)


@dataclass(frozen=True)
class CrossAttentionSpec(LadderSpec):
    """DiT blocks with cross-attention to the text. See crossattn.py."""

    joined: ClassVar[bool] = False

    def network(self) -> nn.Module:
        from t2ikit.models.crossattn import CrossAttention

        return CrossAttention(**self._sizes)


@dataclass(frozen=True)
class MMDiTSpec(LadderSpec):
    """SD3's MM-DiT (Esser et al. 2024): text and image joined in attention alone, each with weights of its own."""

    def network(self) -> nn.Module:
        from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

        return SD3Transformer2DModel(
            sample_size=self.latent_side,
            patch_size=self.patch,
            in_channels=self.latent_channels,
            out_channels=self.latent_channels,
            num_layers=self.depth,
            attention_head_dim=self.head_width,
            num_attention_heads=self.width // self.head_width,
            joint_attention_dim=self.text_width,
            caption_projection_dim=self.width,
            pooled_projection_dim=self.text_width,
            pos_embed_max_size=self.latent_side // self.patch,
        )

    def initialise(self, network: nn.Module) -> None:
        """As DiT, which SD3 follows (diffusers' class leaves torch's defaults)."""
        from diffusers.models import normalization as N

        from t2ikit.models.dit import initialise

        adaptive = (N.AdaLayerNormZero, N.AdaLayerNormZeroSingle, N.AdaLayerNormContinuous)
        modulations = [module.linear for module in network.modules() if isinstance(module, adaptive)]
        initialise(network, network.time_text_embed, [*modulations, network.proj_out])

    def wrap(self, network: nn.Module) -> nn.Module:
        from t2ikit.models.denoiser import MMDiTDenoiser

        return MMDiTDenoiser(network)


@dataclass(frozen=True)
class FluxSpec(MMDiTSpec):
    """FLUX.1: a third of the blocks are MM-DiT's, the others run over the joined sequence (FLUX.1: 19 and 38 of 57)."""

    def network(self) -> nn.Module:
        from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

        double, eighth = max(1, round(self.depth / 3)), self.head_width // 8
        return FluxTransformer2DModel(
            patch_size=1,
            in_channels=self.latent_channels * self.patch**2,
            num_layers=double,
            num_single_layers=self.depth - double,
            attention_head_dim=self.head_width,
            num_attention_heads=self.width // self.head_width,
            joint_attention_dim=self.text_width,
            pooled_projection_dim=self.text_width,
            axes_dims_rope=(eighth, 7 * eighth // 2, 7 * eighth // 2),  # FLUX.1's shares: 16, 56, 56 of 128
        )

    def wrap(self, network: nn.Module) -> nn.Module:
        from t2ikit.models.denoiser import FluxDenoiser

        return FluxDenoiser(network)


@dataclass(frozen=True)
class PixArtRung(PixArtSpec):
    """PixArt-α (`PixArtSpec`) at the name's size."""

    def _resized(self, tier: Tier) -> dict[str, Any]:
        return {}


def _pixart(name: str, family: str, width: int, depth: int) -> PixArtRung:
    divides(BackboneSpec(name, family), "width", width, "the head width", HEAD_WIDTH)
    return PixArtRung(name, family, hidden=width, depth=depth, heads=width // HEAD_WIDTH)


LADDERS: dict[str, Any] = {
    "incontext": InContextSpec,
    "incontext-adaln": lambda *names, **size: InContextSpec(*names, **size, adaln=True),
    "crossattn": CrossAttentionSpec,
    "mmdit": MMDiTSpec,
    "flux": FluxSpec,
    "pixart": _pixart,
}
FORMS = [f"{ladder}-dDEPTH-wWIDTH" for ladder in LADDERS]  # how rungs are called


def rung(name: str) -> BackboneSpec | None:
    """The rung of that name, or None where it names none; UserError if its width has no whole number of heads."""
    found = re.fullmatch(r"(.+?)-d(-?[1-9]\d*|0)-w(-?[1-9]\d*|0)", name)
    if not found or found[1] not in LADDERS:
        return None
    if not (0 < int(found[2]) < 100 and 0 < int(found[3]) < 100_000):
        raise UserError(
            f"{name}: a depth of {found[2]} and a width of {found[3]} are not possible: choose a depth from 1 to 99 "
            f"and a width from {HEAD_WIDTH} to 99,999."
        )
    return LADDERS[found[1]](name, found[1], width=int(found[3]), depth=int(found[2]))


def rungs(ladder: str) -> list[str]:
    """The names of the rungs of a ladder, rising; any other depth and width has a name of the same form."""
    return [f"{choose('ladder', ladder, LADDERS)}-d{depth}-w{width}" for depth, width in RUNGS]
