"""Look at the same prompts drawn by several runs: side by side, split by a divider, or blinking from one to the other.

One anywidget: live in JupyterLab, and in an exported report (`t2ikit.report`), where it needs no kernel.
"""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image, UnidentifiedImageError

from t2ikit.errors import UserError, choose

VIEWS = ("side by side", "split", "blink")


class Compare(anywidget.AnyWidget):
    """Compare(images, prompts): one image per run and prompt.

    images: {label of a run: its images, one a prompt}; an image is encoded bytes (PNG, JPEG, WebP, GIF), a PIL image or
        a uint8 array [H, W], [H, W, 3] or [H, W, 4]. They travel as lossless WebP, about 3 KB for 64 px.
    prompts: the texts, in the order of the images. Shown as text, whatever they contain.
    scores: optional {label of a run: its scores, by position}: a text or number under each image.
    In JupyterLab synchronised both ways: `index` (prompt, from 0), `shown` (runs side by side), `pair` (the two runs
    of the views split and blink), `view` (one of VIEWS), `pixelated`, `size` (width of an image in CSS pixels).
    Raises UserError for a run without as many images as there are prompts, and for what is no image.
    """

    _esm = Path(__file__).with_name("compare.js")
    _css = Path(__file__).with_name("compare.css")

    prompts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    runs = traitlets.List(traitlets.Unicode()).tag(sync=True)
    images = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    scores = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    index = traitlets.Int(0).tag(sync=True)
    shown = traitlets.List(traitlets.Unicode()).tag(sync=True)
    pair = traitlets.List(traitlets.Unicode()).tag(sync=True)
    view = traitlets.Unicode(VIEWS[0]).tag(sync=True)
    pixelated = traitlets.Bool(True).tag(sync=True)
    size = traitlets.Int(192).tag(sync=True)

    def __init__(
        self,
        images: Mapping[str, Sequence[Any]],
        prompts: Sequence[str],
        scores: Mapping[str, Sequence[Any] | Mapping[int, Any]] | None = None,
        **state: Any,
    ):
        prompts, labels = list(prompts), list(images)
        if not prompts or not labels:
            raise UserError(
                f"There are {len(labels)} runs and {len(prompts)} prompts to compare: give one of each at least."
            )
        for thing, texts in {"run's label": labels, "prompt": prompts}.items():
            if wrong := [text for text in texts if not isinstance(text, str)]:
                raise UserError(f"A {thing} is {wrong[0]!r} ({type(wrong[0]).__name__}): give a string.")
        for label in labels:
            if len(images[label]) != len(prompts):
                raise UserError(
                    f"Run {label!r} has {len(images[label])} images for {len(prompts)} prompts: give one for each."
                )
        for label in scores or {}:
            choose("run in scores", label, labels)
        super().__init__(
            prompts=prompts,
            runs=labels,
            images=[[data_uri(image, label, i) for i, image in enumerate(images[label])] for label in labels],
            scores=[_texts((scores or {}).get(label, ()), label, len(prompts)) for label in labels] if scores else [],
            **{"shown": labels, "pair": [labels[0], labels[min(1, len(labels) - 1)]], **state},
        )

    @traitlets.validate("index")
    def _an_index(self, proposal: Any) -> int:
        index = proposal["value"]
        if not 0 <= index < len(self.prompts):
            raise UserError(f"There is no prompt {index}: give a number from 0 to {len(self.prompts) - 1}.")
        return index

    @traitlets.validate("view")
    def _a_view(self, proposal: Any) -> str:
        view = choose("view", proposal["value"], VIEWS)
        if view != VIEWS[0] and len(self.runs) < 2:
            raise UserError(f"View {view!r} needs two runs and there is one: give another, or use {VIEWS[0]!r}.")
        return view

    @traitlets.validate("shown", "pair")
    def _known_runs(self, proposal: Any) -> list[str]:
        name, labels = proposal["trait"].name, proposal["value"]
        if not labels or (name == "pair" and len(labels) != 2):
            raise UserError(f"`{name}` is {labels!r}: give {'two runs' if name == 'pair' else 'at least one run'}.")
        return [choose("run", label, self.runs) for label in labels]

    @traitlets.validate("size")
    def _a_size(self, proposal: Any) -> int:
        if not 16 <= proposal["value"] <= 1024:
            raise UserError(f"`size` is {proposal['value']}: give a width from 16 to 1024 pixels.")
        return proposal["value"]


def data_uri(image: Any, run: str, index: int) -> str:
    """An image as a data URI. Lossy files stay as they are; everything else becomes lossless WebP, equal to the bit.

    UserError for what is no image, is damaged, or has more than 8 bits a channel or WebP's 16,383 pixels a side.
    """
    what = f"a {type(image).__name__}"
    if isinstance(image, np.ndarray):
        what = f"an array of {image.dtype} {list(image.shape)}"
        if image.dtype == np.uint8 and (image.ndim == 2 or image.shape[2:] in ((3,), (4,))):
            image = Image.fromarray(image)
    elif isinstance(image, bytes):
        what, data = f"{len(image)} bytes that are no PNG, JPEG, WebP or GIF", image
        with contextlib.suppress(UnidentifiedImageError, Image.DecompressionBombError):
            image = Image.open(io.BytesIO(data))
            if image.format in ("JPEG", "WEBP", "GIF"):
                return _uri(image.get_format_mimetype(), data)
    if not isinstance(image, Image.Image):
        raise UserError(
            f"Image {index} of run {run!r} is {what}: give encoded bytes, a PIL image or a uint8 array [H, W, 3]."
        )
    if image.mode.startswith(("I", "F")):
        raise UserError(f"Image {index} of run {run!r} has the mode {image.mode}: give one of 8 bits a channel.")
    try:
        return _uri("image/webp", _webp(image))
    except (OSError, ValueError, MemoryError, SyntaxError) as error:  # as Pillow's decoders and WebP's encoder tell
        raise UserError(
            f"Image {index} of run {run!r} cannot be shown ({error}): give a whole one of 1 to 16,383 pixels a side."
        ) from None


def _webp(image: Image.Image) -> bytes:
    """Lossless WebP."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode not in ("L", "LA", "RGB", "RGBA"):  # what WebP keeps to the bit
        image = image.convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, exact=True, method=4)
    return buffer.getvalue()


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def _texts(scores: Sequence[Any] | Mapping[int, Any], run: str, n: int) -> list[str]:
    texts = [""] * n
    for index, score in scores.items() if isinstance(scores, Mapping) else enumerate(scores):
        if not isinstance(index, int) or not 0 <= index < n:
            raise UserError(f"Run {run!r} has a score for prompt {index!r}: give positions from 0 to {n - 1}.")
        if not isinstance(score, str | Real | None):
            raise UserError(f"Run {run!r} has a {type(score).__name__} as score {index}: give a text or a number.")
        if score is not None:
            texts[index] = str(score) if isinstance(score, str | Integral) else f"{score:.3g}"
    return texts
