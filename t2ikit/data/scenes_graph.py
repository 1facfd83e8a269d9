"""What a scene is: its vocabulary, the 3 × 3 grid on which things stand, and the exact scene graph.

A `Scene` is the graph of one image, for reading; `Graphs` holds many as arrays, for sampling and rendering.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

COLORS = {
    "red": (225, 35, 40),
    "green": (40, 175, 60),
    "blue": (45, 105, 255),
    "yellow": (255, 225, 25),
    "purple": (150, 50, 205),
    "orange": (255, 135, 0),
    "pink": (255, 150, 205),
    "white": (250, 250, 250),
}
BACKGROUNDS = {"black": (10, 10, 10), "gray": (110, 110, 110), "brown": (92, 58, 30), "navy": (18, 26, 78)}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "heart")
SIZES = {"large": 8.5, "small": 5.0}
"""Radius in px: each shape fits into the square of this half side."""

SIDE, CELL, MARGIN = 64, 21, 1
"""Image side, side of a grid cell and left/top border, in px: three cells of 21 px and one of 1 px make 64."""
MAX_JITTER = 1.0
"""px. Two of the largest shapes side by side then still have a pixel of plain background between them."""
MAX_COUNT = 4
MAX_THINGS = 3
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
"""Each relation with the one that holds when its two ends change places."""


def _formations() -> list[tuple[int, ...]]:
    """How 1 to 4 equal shapes stand: a cell, two neighbours, a line or an L of three, a block of four.

    A cell is 3·row+column.
    """
    cells = list(product(range(3), range(3)))
    found = [[(r, c)] for r, c in cells]
    found += [[(r, c), (r, c + 1)] for r, c in cells if c < 2] + [[(r, c), (r + 1, c)] for r, c in cells if r < 2]
    found += [[(r, c) for c in range(3)] for r in range(3)] + [[(r, c) for r in range(3)] for c in range(3)]
    blocks = [[(r + a, c + b) for a in (0, 1) for b in (0, 1)] for r in (0, 1) for c in (0, 1)]
    found += [[cell for cell in block if cell != out] for block in blocks for out in block]
    found += blocks
    return [tuple(sorted(3 * r + c for r, c in formation)) for formation in found]


FORMATIONS = _formations()
FORMATION_OF = {cells: i for i, cells in enumerate(FORMATIONS)}
FORMATION_MASK = np.array([[cell in cells for cell in range(9)] for cells in FORMATIONS])


@dataclass(frozen=True)
class Thing:
    """`count` equal shapes of one colour and size that stand together.

    cells: grid cells 3·row+column, ascending. offsets: (dx, dy) of each from its cell's centre, in quarter px.
    """

    color: str
    shape: str
    size: str
    cells: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        return len(self.cells)

    @cached_property
    def centers(self) -> tuple[tuple[float, float], ...]:
        """(x, y) of each shape in px from the image's upper left corner, y down."""
        first = MARGIN + CELL / 2
        return tuple(
            (first + CELL * (cell % 3) + dx / 4, first + CELL * (cell // 3) + dy / 4)
            for cell, (dx, dy) in zip(self.cells, self.offsets, strict=True)
        )

    @cached_property
    def _lean(self) -> tuple[int, int]:
        """(rows, columns) by which the shapes lie below and to the right of the middle, summed over them."""
        rows, columns = (sum(c // 3 for c in self.cells), sum(c % 3 for c in self.cells))
        return rows - self.count, columns - self.count

    @property
    def place(self) -> str:
        """Where the shapes' mean lies: "center", "left", "top", "top left" and so on."""
        rows, columns = self._lean
        words = ("", "bottom", "top")[(rows > 0) - (rows < 0)], ("", "right", "left")[(columns > 0) - (columns < 0)]
        return " ".join(word for word in words if word) or "center"

    def main_side(self, word: int) -> str:
        """`place` by the one side it is nearest to; between two as near, `word` decides."""
        sides = self.place.split()
        rows, columns = map(abs, self._lean)
        return sides[word % len(sides) if rows == columns else columns > rows and len(sides) > 1]

    def relations(self, other: Thing) -> tuple[str, ...]:
        """Which of `RELATIONS` hold between all shapes of this thing and all of the other: one or two."""
        rows, columns = [c // 3 for c in self.cells], [c % 3 for c in self.cells]
        other_rows, other_columns = [c // 3 for c in other.cells], [c % 3 for c in other.cells]
        holds = {
            "left of": max(columns) < min(other_columns),
            "right of": min(columns) > max(other_columns),
            "above": max(rows) < min(other_rows),
            "below": min(rows) > max(other_rows),
        }
        return tuple(name for name, true in holds.items() if true)


@dataclass(frozen=True)
class Scene:
    """The exact graph of one image. No two things share a colour or a shape, so "the red one" is never in doubt."""

    background: str
    things: tuple[Thing, ...]


@dataclass(frozen=True)
class Graphs:
    """B scene graphs as integer arrays: indices into `COLORS`, `SHAPES`, `SIZES`, `BACKGROUNDS` and `FORMATIONS`.

    color, shape, size, formation: [B, 3]; formation is -1 where there is no thing. background: [B].
    offset: quarter px [B, 9 cells, 2 (dx, dy)].
    """

    color: np.ndarray
    shape: np.ndarray
    size: np.ndarray
    formation: np.ndarray
    background: np.ndarray
    offset: np.ndarray

    def __len__(self) -> int:
        return len(self.background)

    def scene(self, b: int) -> Scene:
        things = []
        for k in range(MAX_THINGS):
            if self.formation[b, k] >= 0:
                cells = FORMATIONS[self.formation[b, k]]
                offsets = tuple((int(dx), int(dy)) for dx, dy in self.offset[b, list(cells)])
                color, shape, size = (int(a[b, k]) for a in (self.color, self.shape, self.size))
                things.append(Thing(_COLORS[color], SHAPES[shape], _SIZES[size], cells, offsets))
        return Scene(_BACKGROUNDS[int(self.background[b])], tuple(things))

    @classmethod
    def stack(cls, scenes: Iterable[Scene]) -> Graphs:
        """The arrays of given scenes."""
        scenes = list(scenes)
        b = len(scenes)
        color, shape, size = (np.zeros((b, MAX_THINGS), np.int64) for _ in range(3))
        formation = np.full((b, MAX_THINGS), -1)
        offset = np.zeros((b, 9, 2), np.int64)
        for i, scene in enumerate(scenes):
            for k, thing in enumerate(scene.things):
                color[i, k], shape[i, k] = _COLORS.index(thing.color), SHAPES.index(thing.shape)
                size[i, k], formation[i, k] = _SIZES.index(thing.size), FORMATION_OF[thing.cells]
                offset[i, list(thing.cells)] = thing.offsets
        background = np.array([_BACKGROUNDS.index(scene.background) for scene in scenes], np.int64)
        return cls(color, shape, size, formation, background, offset)


_COLORS, _BACKGROUNDS, _SIZES = list(COLORS), list(BACKGROUNDS), list(SIZES)
