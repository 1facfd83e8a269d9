"""The transformers of paper S, Table 2, as specs over diffusers' PixArtTransformer2DModel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ikit.errors import UserError
from t2ikit.models.spec import BackboneSpec, Tier, divides, shallower

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class PixArtSpec(BackboneSpec):
    """PixArt-α: `depth` blocks of self-attention, cross-attention and feed-forward on patches of the latents.

    Without `caption_embedding` the text states enter the cross-attention as they are, so `hidden` must equal the text
    width (paper S 3.4). The noise alone is predicted (the released PixArt-α predicts its variance as well).
    """

    patch: int = 2
    hidden: int = 1152
    depth: int = 28
    heads: int = 16
    caption_embedding: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.caption_embedding and self.hidden != self.text_width:
            raise UserError(
                f"{self.name}: hidden {self.hidden} differs from the text width {self.text_width}: "
                "make them equal or set caption_embedding."
            )
        divides(self, "hidden", self.hidden, "heads", self.heads)
        divides(self, "hidden", self.hidden, "the sines and cosines of two coordinates,", 4)
        divides(self, "latent side", self.latent_side, "patch", self.patch)

    @property
    def tokens(self) -> int:
        return (self.latent_side // self.patch) ** 2

    def in_attention(self, layer: str) -> bool:
        """Every Linear of the transformer blocks (Table 2 prints no attention GMACs)."""
        return layer.startswith("transformer_blocks.")

    def _resized(self, tier: Tier) -> dict[str, Any]:
        divides(self, "hidden", self.hidden, "this tier's divisor", tier.width)
        return {
            "width_divisor": tier.width,
            "hidden": self.hidden // tier.width,
            "depth": shallower(self.depth, tier),
            "heads": tier.pixart_heads or self.heads,
        }

    def network(self) -> nn.Module:
        from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel

        return PixArtTransformer2DModel(
            num_attention_heads=self.heads,
            attention_head_dim=self.hidden // self.heads,
            in_channels=self.latent_channels,
            out_channels=self.latent_channels,
            num_layers=self.depth,
            cross_attention_dim=self.hidden,
            caption_channels=self.text_width if self.caption_embedding else None,
            sample_size=self.latent_side,
            patch_size=self.patch,
            use_additional_conditions=False,
        )

    def initialise(self, network: nn.Module) -> None:
        """PixArt-α's own: Xavier, small time and caption layers, zero cross-attention and output
        (diffusers' class leaves torch's defaults)."""
        from torch import nn

        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(network.pos_embed.proj.weight.data.flatten(1))
        time, caption = network.adaln_single, network.caption_projection
        small = [time.emb.timestep_embedder.linear_1, time.emb.timestep_embedder.linear_2, time.linear]
        for layer in small + ([caption.linear_1, caption.linear_2] if caption else []):
            nn.init.normal_(layer.weight, std=0.02)
        for block in network.transformer_blocks:
            nn.init.zeros_(block.attn2.to_out[0].weight)
        nn.init.zeros_(network.proj_out.weight)

    def wrap(self, network: nn.Module) -> nn.Module:
        from t2ikit.models.denoiser import PixArtDenoiser

        return PixArtDenoiser(network)
