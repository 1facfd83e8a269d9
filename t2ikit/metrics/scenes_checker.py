"""What a picture of `scenes` shows, by colours and connected components: a check on the VQA network, without learning.

It knows the palette and the sprites that scenes are drawn with. Where a sample is no scene (blobs, mixed colours,
things grown together) it says what is nearest, as the network does: the two agree where an image is clear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from scipy import ndimage
from torch import Tensor

from t2ikit.data.scenes_graph import BACKGROUNDS, CELL, COLORS, SHAPES, SIDE, SIZES, Graphs, Scene, Thing
from t2ikit.data.scenes_render import render
from t2ikit.errors import UserError
from t2ikit.metrics.images import checked
from t2ikit.metrics.scenes_answers import NONE, Seen, Shape, answer

PALETTE, GROUND = (np.array(list(some.values()), float) for some in (COLORS, BACKGROUNDS))
LEAST, WIDEST = 14, CELL + 3  # px: the fewest of a shape, and the side of a component that may be one


class Checker:
    """A `t2ikit.metrics.vqa.VQA` by rules; where no choice is true it has no answer."""

    name = "checker-scenes"
    provenance: dict[str, Any] = {"rules": 2}

    def answers(self, images: Tensor, questions: Sequence[str], choices: Sequence[Sequence[str]]) -> list[str | None]:
        """See `VQA`; an image whose questions follow one another is read once."""
        height, width = checked(images, questions).shape[2:]
        if (height, width) != (SIDE, SIDE):
            raise UserError(
                f"{self.name} reads images of {SIDE} × {SIDE} px, not {width} × {height}: choose another VQA model."
            )
        out, last = [], None
        for image, question, some in zip(images, questions, choices, strict=True):
            if last is None or not image.equal(last):
                last, seen = image, look(image.permute(1, 2, 0).numpy())
            found = answer(seen, question, some)
            out.append(None if found == NONE else found)
        return out

    def probabilities(
        self, images: Tensor, questions: Sequence[str], choices: Sequence[Sequence[str]], answers: Sequence[str]
    ) -> np.ndarray:
        """Zeros and ones: see `VQA`."""
        found = self.answers(images, questions, choices)
        return np.array([float(f == a) for f, a in zip(found, answers, strict=True)])


def look(image: np.ndarray) -> Seen:
    """uint8 [64, 64, 3] → what it shows."""
    pixels = image.astype(float)
    nearest = ((pixels[:, :, None] - np.concatenate([GROUND, PALETTE])) ** 2).sum(-1).argmin(-1)
    ground = int(np.bincount(nearest.ravel(), minlength=len(GROUND))[: len(GROUND)].argmax())
    plain = np.median(pixels[nearest == ground], axis=0) if (nearest == ground).any() else GROUND[ground]
    away, toward = pixels - plain, PALETTE - plain
    cover = (away @ toward.T / (toward**2).sum(1)).clip(0, 1)  # [64, 64, colours]: how much of each a pixel would be
    rest = ((away[:, :, None] - cover[..., None] * toward) ** 2).sum(-1)
    color = rest.argmin(-1)
    own = np.take_along_axis(cover, color[..., None], -1)[..., 0]
    shapes = [_shape(cover, color, part) for part in _components(own)]
    return Seen(list(BACKGROUNDS)[ground], tuple(shapes))


def _components(cover: np.ndarray, threshold: float = 0.5) -> Iterator[np.ndarray]:
    """Masks [64, 64] of what stands together; what is too wide to be one shape is cut at a higher threshold."""
    labels, n = ndimage.label(cover > threshold)
    for k, box in enumerate(ndimage.find_objects(labels), 1):
        mask = labels == k
        if mask.sum() < LEAST:
            continue
        if max(s.stop - s.start for s in box) > WIDEST and threshold < 0.9:
            yield from _components(np.where(mask, cover, 0), threshold + 0.1)
        else:
            yield mask


def _shape(cover: np.ndarray, color: np.ndarray, mask: np.ndarray) -> Shape:
    """The colour of most pixels, and the sprite nearest to their coverage."""
    k = int(np.bincount(color[mask]).argmax())
    soft = np.pad(cover[..., k] * ndimage.binary_dilation(mask, iterations=2), CELL)
    y, x = (round((s.start + s.stop - 1) / 2) for s in ndimage.find_objects(mask.astype(int))[0])
    half = CELL // 2
    window = soft[y + CELL - half : y + CELL + half + 1, x + CELL - half : x + CELL + half + 1]
    kinds, table = _sprites()
    shape, size, (dx, dy) = kinds[int(((table - window.ravel()) ** 2).sum(1).argmin())]
    return Shape(list(COLORS)[k], shape, size, x + 0.5 + dx / 4, y + 0.5 + dy / 4)


@cache
def _sprites() -> tuple[list[tuple[str, str, tuple[int, int]]], np.ndarray]:
    """(shape, size, quarter px from the middle) of each sprite, and its coverage [n, 21²] in 0 … 1."""
    steps = range(-4, 5, 2)
    kinds = list(product(SHAPES, SIZES, product(steps, steps)))
    scenes = (Scene("black", (Thing("white", shape, size, (4,), (offset,)),)) for shape, size, offset in kinds)
    cell = slice(SIDE // 2 - CELL // 2, SIDE // 2 + CELL // 2 + 1)
    drawn = render(Graphs.stack(scenes))[:, cell, cell, 0].astype(float)
    return kinds, ((drawn - 10) / 240).reshape(len(kinds), -1)
