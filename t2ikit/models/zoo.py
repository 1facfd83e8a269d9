"""Every named backbone: the rows of paper S's Tables 1 and 2 as specs, and the rungs of ladders by their form."""

from __future__ import annotations

from collections.abc import Iterable

from t2ikit.errors import UserError, choose
from t2ikit.models import ladder
from t2ikit.models.pixart import PixArtSpec
from t2ikit.models.spec import BackboneSpec
from t2ikit.models.unet import HEAD_WIDTH, UNetSpec


def _unet(
    name: str,
    family: str,
    channels: int,
    mult: tuple[int, ...],
    res_blocks: int,
    depth: tuple[int, ...],
    mid_depth: int,
) -> UNetSpec:
    return UNetSpec(
        name,
        family,
        channels=channels,
        channel_mult=mult,
        res_blocks=res_blocks,
        depth=depth,
        mid_depth=mid_depth,
        attention_block="simple" if family == "IF-XL" else "transformer",
        heads=tuple(channels * m // HEAD_WIDTH for m in mult),
    )


def _sd2(name: str, channels: int) -> UNetSpec:
    return _unet(name, "SD2", channels, (1, 2, 4, 4), 2, (1, 1, 1, 0), 1)


def _ifxl(name: str, channels: int) -> UNetSpec:
    return _unet(name, "IF-XL", channels, (1, 2, 3, 4), 3, (1, 1, 1, 0), 1)


def _sdxl(name: str, channels: int, at_2x: int, at_4x: int) -> UNetSpec:
    return _unet(name, "SDXL", channels, (1, 2, 4), 2, (0, at_2x, at_4x), at_4x)


def _pixart(
    name: str, hidden: int, depth: int, caption_embedding: bool = True, text: tuple[int, int] = (77, 1024)
) -> PixArtSpec:
    return PixArtSpec(
        name,
        "PixArt",
        text_tokens=text[0],
        text_width=text[1],
        hidden=hidden,
        depth=depth,
        caption_embedding=caption_embedding,
    )


_SPECS: dict[str, BackboneSpec] = {
    spec.name: spec
    for spec in (
        _sd2("sd2-c320", 320),
        _sd2("sd2-c512", 512),
        _ifxl("ifxl-c512", 512),
        _ifxl("ifxl-c704", 704),
        _sdxl("sdxl-c128", 128, 2, 10),
        _sdxl("sdxl-c192", 192, 2, 10),
        _sdxl("sdxl-c320", 320, 2, 10),
        _sdxl("sdxl-c384", 384, 2, 10),
        _sdxl("sdxl-td2", 320, 2, 2),
        _sdxl("sdxl-td4", 320, 2, 4),
        _sdxl("sdxl-td12", 320, 2, 12),
        _sdxl("sdxl-td14", 320, 2, 14),
        _sdxl("sdxl-td4_4", 320, 4, 4),
        _sdxl("sdxl-td4_8", 320, 4, 8),
        _sdxl("sdxl-td4_12", 320, 4, 12),
        _sdxl("sdxl-c384-td4_12", 384, 4, 12),
        _pixart("pixart-xl2-t5", 1152, 28, text=(120, 4096)),
        _pixart("pixart-h1152-d28", 1152, 28),
        _pixart("pixart-h1536-d28", 1536, 28),
        _pixart("pixart-h1024-d28", 1024, 28, caption_embedding=False),
        _pixart("pixart-h1024-d56", 1024, 56, caption_embedding=False),
    )
}


def names() -> list[str]:
    """The names of all published backbones, in the order of the papers' tables."""
    return list(_SPECS)


def spec(name: str) -> BackboneSpec:
    """The published spec, or the rung of a ladder, of that name; UserError with the closest name if there is none."""
    if rung := ladder.rung(name):
        return rung
    if choose("backbone", name, [*_SPECS, *ladder.FORMS]) in ladder.FORMS:
        raise UserError(f"{name} is the form of a name: write numbers, as in {ladder.rungs('incontext')[5]}.")
    return _SPECS[name]


def table(tier: str = "paper", of: Iterable[str] = tuple(_SPECS)) -> list[dict[str, str | int]]:
    """Rows `{name, family, params, macs, attn_macs, flops_train}`: integers, one sample, the tier's own image and text.

    At "paper": 256 px, 77 text tokens of width 1024 (the T5 row: 120 of 4096).
    """
    counts = ("params", "macs", "attn_macs", "flops_train")
    specs = [spec(name).at(tier) for name in of]
    return [{"name": s.name, "family": s.family} | {k: getattr(s.cost(), k) for k in counts} for s in specs]
