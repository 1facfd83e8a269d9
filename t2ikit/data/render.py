"""SVG icons to 128 px RGB on white, in worker processes, each with the two numbers that find near-duplicates."""

from __future__ import annotations

import io
import os
import re
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

import numpy as np

from t2ikit.errors import UserError, need

SIDE = 128  # px
THUMB = 8  # px; the mean colours that near-duplicates are compared on
BACKGROUND = "#ffffff"
BLANK_RANGE = 8  # of 255: an image whose pixels all lie this close together shows nothing
_OUTSIDE = re.compile(
    r"""(?:href|src)\s*=\s*["']\s*(?!\#|data:)[^"'\s]|url\(\s*["']?\s*(?!\#|data:)[^"')\s]|<!ENTITY""", re.I
)


@dataclass(frozen=True)
class Icon:
    """One SVG icon: its name, what is inside its <svg>, and its view box (left, top, width, height)."""

    name: str
    body: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Rendered:
    """A rendered icon: lossless WebP of RGB [128, 128, 3], 64-bit pHash, mean colours uint8 [8, 8, 3] as bytes."""

    webp: bytes
    phash: int
    thumb: bytes


def svg(icon: Icon) -> str:
    """The whole SVG document; the view box is always written, since without one a renderer cannot scale."""
    left, top, width, height = icon.box
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{SIDE}" height="{SIDE}" viewBox="{left:g} {top:g} {width:g} {height:g}">{icon.body}</svg>'
    )


def rasterise(icon: Icon) -> np.ndarray:
    """uint8 RGB [128, 128, 3] on white, aspect ratio kept.

    Raises ValueError for an SVG that is not valid, or that refers to a file or an address.
    """
    import resvg_py
    from PIL import Image

    if _OUTSIDE.search(icon.body):
        raise ValueError("it refers to a file or an address outside itself")
    # System fonts are skipped: text would look different on every machine.
    png = resvg_py.svg_to_bytes(
        svg_string=svg(icon), width=SIDE, height=SIDE, background=BACKGROUND, skip_system_fonts=True
    )
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def is_blank(image: np.ndarray) -> bool:
    """Whether uint8 RGB [h, w, 3] shows nothing: no channel varies by more than 8 of 255."""
    from PIL import Image

    return all(high - low <= BLANK_RANGE for low, high in Image.fromarray(image).getextrema())


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Area means, uint8 [8, 8, 3], of uint8 RGB [128, 128, 3]."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).reduce(SIDE // THUMB))


def encode(image: np.ndarray) -> Rendered:
    """Lossless WebP and duplicate-finding numbers of uint8 RGB [128, 128, 3]; pHash as `imagehash.phash` defines it."""
    import imagehash
    from PIL import Image

    picture = Image.fromarray(image)
    stream = io.BytesIO()
    picture.save(stream, "WEBP", lossless=True, method=0)  # a third larger than method 4 and ten times as fast
    return Rendered(stream.getvalue(), int(str(imagehash.phash(picture)), 16), thumbnail(image).tobytes())


def render_one(icon: Icon) -> Rendered | str:
    """The rendered icon, or why there is none: "blank" or "invalid: …"."""
    try:
        image = rasterise(icon)
    except ValueError as error:
        return f"invalid: {error}"
    return "blank" if is_blank(image) else encode(image)


def render_all(icons: Iterable[Icon], workers: int = 2) -> Iterator[Rendered | str]:
    """`render_one` for each icon, in order, in `workers` processes (1: in this one)."""
    _check_installed()
    if workers == 1:
        yield from map(render_one, icons)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_die_with_parent) as pool:
        try:
            yield from pool.map(render_one, icons, chunksize=32)
        finally:
            pool.shutdown(cancel_futures=True)


def _check_installed() -> None:
    for module, package in (("resvg_py", "resvg-py"), ("imagehash", "imagehash")):
        if find_spec(module) is None:
            raise need("data", package)


def _die_with_parent() -> None:
    """A killed build must not leave workers waiting for ever."""
    parent = parent_process()
    if parent is None:
        raise UserError("The render workers must be started by render_all.")

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
