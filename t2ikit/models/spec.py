"""A backbone as a frozen spec: the numbers that decide its architecture, and the tiers (sizes) it can be built at.

Nothing here loads torch: a spec is written, scaled, compared and hashed before a module exists.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Self

from t2ikit.errors import UserError, choose

if TYPE_CHECKING:
    from torch import nn

    from t2ikit.models.cost import Cost


@dataclass(frozen=True)
class Tier:
    """How a published backbone is resized. `None` keeps what the spec publishes.

    Two heads in every UNet layer at tiny: a training step of `sd2-c320`, `sdxl-c128`, `sdxl-c320` (batch 32, one core)
    ran at 66, 115, 40 images/s, against 52, 94, 39 with four and 49, 85, 33 with the published numbers; after 150
    steps on drawn shapes two and four heads were 3% apart in loss (one seed). Text and latents are one at smoke and
    tiny, so that caches are shared; `small` reads wider text because PixArt's rows without caption embedding need
    hidden = text width.
    """

    width: int  # widths are divided by this
    depth: int  # depths and residual blocks are divided by this, rounded up
    resolution: int | None  # image side in pixels
    vae_factor: int | None  # pixels per latent, along a side
    text_tokens: int | None
    text_width: int | None
    unet_heads: int | None  # in every attention layer
    pixart_heads: int | None
    norm_groups: int | None


_TINY = Tier(16, 1, 64, vae_factor=4, text_tokens=20, text_width=64, unet_heads=2, pixart_heads=4, norm_groups=2)
TIERS = {
    "smoke": replace(_TINY, depth=8),
    "tiny": _TINY,
    "small": replace(_TINY, width=4, text_width=256, unet_heads=None, pixart_heads=None, norm_groups=8),
    "paper": Tier(1, 1, None, None, None, None, None, None, None),
}


@dataclass(frozen=True)
class BackboneSpec:
    """What every backbone has in common. Subclasses add the architecture.

    `dataclasses.asdict(spec)` holds every resolved number and no tier's name, so equal specs are equal experiments.
    """

    name: str
    family: str
    width_divisor: int = 1  # 1: published size; tiers set it
    resolution: int = 256  # image side, px
    vae_factor: int = 8
    latent_channels: int = 4
    text_tokens: int = 77
    text_width: int = 1024

    def __post_init__(self) -> None:
        for what in ("resolution", "vae_factor", "latent_channels", "text_tokens", "text_width"):
            if getattr(self, what) < 1:
                raise UserError(f"{self.name}: {what} {getattr(self, what)}: choose 1 or more.")
        divides(self, "resolution", self.resolution, "vae_factor", self.vae_factor)

    @property
    def latent_side(self) -> int:
        """Height and width of the latents."""
        return self.resolution // self.vae_factor

    @property
    def tokens(self) -> int:
        """Tokens of one sample as D counts them: latent cells, or patches of them, and the text's where it is joined
        to them (padding included)."""
        return self.latent_side**2

    def at(self, tier: str, resolution: int | None = None) -> Self:
        """This backbone at a tier of `TIERS`, on images of `resolution` px (default: the tier's); UserError if the tier
        is unknown, if the spec is resized already, or if a width or the resolution does not divide."""
        size = TIERS[choose("tier", tier, TIERS)]
        if self.width_divisor != 1:
            raise UserError(
                f"{self.name} is already at 1/{self.width_divisor} of its published width: "
                f"call .at({tier!r}) on the published spec."
            )
        pixels = {"resolution": resolution} if resolution else {}
        if tier == "paper":
            return replace(self, **pixels)
        inputs = {k: getattr(size, k) for k in ("resolution", "vae_factor", "text_tokens", "text_width")}
        return replace(self, **inputs | pixels | self._resized(size))

    def build(self, device: str = "cpu", seed: int = 0) -> nn.Module:
        """The module `(latents [B,C,h,w], t [B], states [B,L,W], mask [B,L] bool) -> prediction [B,C,h,w]`, float32.

        `t` is an integer DDPM timestep 0…999, or a float flow time 0…1 (read as 1000 t). The weights are a function
        of `seed` alone: drawn on the CPU, then moved, and the caller's random state is left as it was.
        On "meta" no weights are drawn.
        """
        import torch

        if torch.device(device).type == "meta":
            with torch.device("meta"):
                return self.wrap(self.network())
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = self.network()
            self.initialise(network)
        return self.wrap(network).to(device)

    def cost(self, resolution: int | None = None, text_tokens: int | None = None) -> Cost:
        """Parameters, MACs and FLOPs of one sample; see `t2ikit.models.cost.cost`."""
        from t2ikit.models.cost import cost

        return cost(self, resolution, text_tokens)

    def in_attention(self, layer: str) -> bool:
        """Whether paper S counts the Linear of this module name in its attention GMACs."""
        raise NotImplementedError

    def _resized(self, tier: Tier) -> dict[str, Any]:
        """The fields that `tier` changes besides those of image and text."""
        raise NotImplementedError

    def network(self) -> nn.Module:
        """The bare module, on the current default device."""
        raise NotImplementedError

    def initialise(self, network: nn.Module) -> None:
        """Weights as the published training code draws them, in place."""
        raise NotImplementedError

    def wrap(self, network: nn.Module) -> nn.Module:
        """`network` behind the uniform call."""
        raise NotImplementedError


def shallower(depth: int, tier: Tier) -> int:
    """A depth at a tier: divided and rounded up, so that no attention disappears."""
    return ceil(depth / tier.depth)


def divides(spec: BackboneSpec, what: str, whole: int, part_name: str, part: int) -> None:
    """UserError unless `whole` is a multiple of `part`."""
    if part < 1 or whole % part:
        raise UserError(f"{spec.name}: {what} {whole} is no multiple of {part_name} {part}: change one of the two.")
