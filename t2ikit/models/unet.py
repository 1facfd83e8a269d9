"""The UNets of paper S, Table 1 (SD2, SDXL, IF-XL) and their design space, as specs over UNet2DConditionModel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t2ikit.errors import UserError, choose
from t2ikit.models.spec import BackboneSpec, Tier, divides, shallower

if TYPE_CHECKING:
    from torch import nn

# As SD2, SDXL and IF-XL were released; paper S 3.3 speaks of C/4 heads, and no count here depends on their number.
HEAD_WIDTH = 64


@dataclass(frozen=True)
class UNetSpec(BackboneSpec):
    """A UNet: `depth[i]` transformer blocks after each residual block at downsampling rate 2^i (0: none there).

    `attention_block` "transformer" is SD2's and SDXL's (self-attention, cross-attention, feed-forward; linear
    projections); "simple" is IF-XL's single layer over text and image keys joined, so its depths are 0 or 1.
    No text pooling and no size conditioning but IF-XL's own (paper S 3.2, "without adding extra embedding layer").
    """

    channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4)
    res_blocks: int = 2
    depth: tuple[int, ...] = (0, 2, 10)
    mid_depth: int = 10
    attention_block: str = "transformer"
    heads: tuple[int, ...] = (5, 10, 20)  # a level
    norm_groups: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for levels in ("channel_mult", "depth", "heads"):
            object.__setattr__(self, levels, tuple(getattr(self, levels)))  # a list, from JSON say, cannot be hashed
        choose("attention_block", self.attention_block, ("transformer", "simple"))
        if not len(self.channel_mult) == len(self.depth) == len(self.heads):
            raise UserError(
                f"{self.name}: channel_mult, depth and heads give {len(self.channel_mult)}, {len(self.depth)} and "
                f"{len(self.heads)} levels: give as many of each."
            )
        if self.depth[-1] and self.mid_depth != self.depth[-1]:
            raise UserError(
                f"{self.name}: mid_depth {self.mid_depth} differs from the lowest level's depth {self.depth[-1]}: "
                "make them equal, diffusers builds both from one number."
            )
        if self.attention_block == "simple" and max(*self.depth, self.mid_depth) > 1:
            raise UserError(f"{self.name}: depth {self.depth} with simple attention blocks: each is 0 or 1.")
        divides(self, "latent side", self.latent_side, "the downsampling rate", 2 ** (len(self.channel_mult) - 1))
        for width, heads in zip(self.widths, self.heads, strict=True):
            divides(self, "width", width, "heads", heads)
            divides(self, "width", width, "norm_groups", self.norm_groups)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * m for m in self.channel_mult)

    def in_attention(self, layer: str) -> bool:
        """Every Linear of the transformer blocks, projections in and out too; SDXL's print leaves out the middle."""
        parts = layer.split(".")
        return "attentions" in parts and not (self.family == "SDXL" and parts[0] == "mid_block")

    def _resized(self, tier: Tier) -> dict[str, Any]:
        divides(self, "channels", self.channels, "this tier's divisor", tier.width)
        return {
            "width_divisor": tier.width,
            "channels": self.channels // tier.width,
            "res_blocks": shallower(self.res_blocks, tier),
            "depth": tuple(shallower(d, tier) for d in self.depth),
            "mid_depth": shallower(self.mid_depth, tier),
            "heads": (tier.unet_heads,) * len(self.heads) if tier.unet_heads else self.heads,
            "norm_groups": tier.norm_groups,
        }

    def network(self) -> nn.Module:
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        simple = self.attention_block == "simple"
        attend, plain = ("SimpleCrossAttn", "Resnet{}sample") if simple else ("CrossAttn", "{}")
        blocks = {
            way: tuple((attend + way if d else plain.format(way)) + "Block2D" for d in self.depth)
            for way in ("Down", "Up")
        }
        depth = [d or 1 for d in self.depth[:-1]] + [self.depth[-1] or self.mid_depth or 1]
        if simple:
            options: dict[str, Any] = {
                "attention_head_dim": 1,  # a placeholder: diffusers hands the up blocks their heads in the wrong order
                "resnet_time_scale_shift": "scale_shift",
                "addition_embed_type": "text",
                "addition_embed_type_num_heads": self.text_width // 16,
                "act_fn": "gelu",
            }
        else:
            options = {"attention_head_dim": self.heads, "use_linear_projection": True}  # diffusers' name for heads
        network = UNet2DConditionModel(
            sample_size=self.latent_side,
            in_channels=self.latent_channels,
            out_channels=self.latent_channels,
            block_out_channels=self.widths,
            layers_per_block=self.res_blocks,
            down_block_types=blocks["Down"],
            mid_block_type=f"UNetMidBlock2D{attend if self.mid_depth else ''}",
            up_block_types=blocks["Up"][::-1],
            transformer_layers_per_block=tuple(depth),
            cross_attention_dim=self.text_width,
            norm_num_groups=self.norm_groups,
            **options,
        )
        if simple:
            heads = dict(zip(self.widths, self.heads, strict=True))
            for layer in _joint_attentions(network):
                layer.heads = heads[layer.inner_dim]
                layer.scale = (layer.inner_dim // layer.heads) ** -0.5
        return network

    def initialise(self, network: nn.Module) -> None:
        """Zero the last layer of every residual and attention block, and of the network, as LDM's and IF's code does
        (diffusers' classes leave torch's defaults)."""
        from diffusers.models.resnet import ResnetBlock2D
        from diffusers.models.transformers.transformer_2d import Transformer2DModel

        last = [network.conv_out]
        for module in network.modules():
            if isinstance(module, ResnetBlock2D):
                last.append(module.conv2)
            elif isinstance(module, Transformer2DModel):
                last.append(module.proj_out)
        if self.attention_block == "simple":
            last += [layer.to_out[0] for layer in _joint_attentions(network)]
        for layer in last:
            layer.weight.data.zero_()
            layer.bias.data.zero_()

    def wrap(self, network: nn.Module) -> nn.Module:
        from t2ikit.models.denoiser import UNetDenoiser

        return UNetDenoiser(network)


def _joint_attentions(network: nn.Module) -> list[nn.Module]:
    """IF-XL's attention layers: queries from the image, keys and values from image and text."""
    from diffusers.models.attention_processor import Attention

    return [module for module in network.modules() if isinstance(module, Attention)]
