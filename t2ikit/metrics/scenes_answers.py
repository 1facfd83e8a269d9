"""The one right answer to a question about a scene: from its graph, or from what the checker found in pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from t2ikit.data.scenes_graph import CELL, COLORS, SHAPES, SIDE, Scene
from t2ikit.errors import UserError

NONE = "none"  # what is asked about is not there, or none of the choices is true of it
KINDS = ("object", "color", "shape", "count", "size", "place", "horizontal", "vertical", "background")
NEAR = CELL / 6  # px from the middle that are still no side: a third of a cell is the least lean of a scene's thing


class Shape(NamedTuple):
    """One shape as it is seen; x and y in px from the upper left corner."""

    color: str
    shape: str
    size: str
    x: float
    y: float


@dataclass(frozen=True)
class Seen:
    """What an image shows."""

    background: str
    shapes: tuple[Shape, ...]

    @classmethod
    def of(cls, scene: Scene) -> Seen:
        """The shapes of a scene graph."""
        shapes = (Shape(t.color, t.shape, t.size, *xy) for t in scene.things for xy in t.centers)
        return cls(scene.background, tuple(shapes))


class Parsed(NamedTuple):
    """A question of `scenes_questions`, taken apart: what it asks, and the (colour, shape) of what it names."""

    kind: str
    first: tuple[str | None, str | None] = (None, None)
    second: tuple[str | None, str | None] = (None, None)


@lru_cache(maxsize=65536)
def parse(question: str) -> Parsed:
    """The question's parts; a UserError for one that `scenes_questions` does not ask."""
    words = question.rstrip("?").split()
    nouns = {form: s for s in SHAPES for form in (s, f"{s}s", f"{s}es")} | {"shape": None, "shapes": None}
    nouns |= {"thing": None, "things": None}
    match words:
        case ["what", "color", "is", "the", "background"]:
            return Parsed("background")
        case ["is", "there", _, *rest]:
            kind = "object"
        case ["what", ("color" | "shape" | "size") as kind, "is" | "are", "the", *rest]:
            pass
        case ["how", "many", *rest, "are", "there"]:
            kind = "count"
        case ["where", "is" | "are", "the", *rest]:
            kind = "place"
        case ["is" | "are", "the", *rest] if "or" in rest:
            kind = "vertical" if "above" in rest else "horizontal"
        case _:
            rest = []
    cut = [k for k, word in enumerate(rest) if word in ("left", "above")][:1] or [len(rest)]
    parts = [rest[: cut[0]], [w for w in rest[cut[0] :] if w in COLORS or w in nouns]]
    found = []
    for part in parts:
        colors, shapes = [w for w in part if w in COLORS], [nouns[w] for w in part if w in nouns]
        found.append((colors[0] if colors else None, shapes[0] if shapes else None))
    if not rest or not any(found[0]):
        raise UserError(
            f"The question {question!r} is not one about scenes: ask those of t2ikit.metrics.scenes_questions, or "
            "choose another VQA model."
        )
    return Parsed(kind, *found)


def answer(seen: Seen, question: str, choices: Sequence[str]) -> str:
    """The choice that is true of what is seen, or `NONE`. Of shapes that differ the more frequent value counts."""
    kind, first, second = parse(question)
    shapes, others = _fitting(seen, first), _fitting(seen, second)
    if kind == "object":
        return "yes" if shapes else "no"
    if kind == "background":
        true = {seen.background}
    elif not shapes or (kind in ("horizontal", "vertical") and not others):
        true = set()
    elif kind == "count":
        true = {str(len(shapes))}
    elif kind == "place":
        sides = set(_place(shapes).split())
        true = {c for c in choices if set(c.split()) <= sides}
    elif kind in ("horizontal", "vertical"):
        true = {_relation(shapes, others, kind)}
    else:
        true = {Counter(getattr(s, kind) for s in shapes).most_common(1)[0][0]}
    return next((c for c in choices if c in true), NONE)


def _fitting(seen: Seen, wanted: tuple[str | None, str | None]) -> list[Shape]:
    return [s for s in seen.shapes if all(w in (None, is_) for w, is_ in zip(wanted, s[:2], strict=True))]


def _place(shapes: Sequence[Shape]) -> str:
    x, y = (sum(getattr(s, k) for s in shapes) / len(shapes) - (SIDE + 1) / 2 for k in "xy")
    sides = ["bottom" if y > 0 else "top"] * (abs(y) > NEAR) + ["right" if x > 0 else "left"] * (abs(x) > NEAR)
    return " ".join(sides) or "center"


def _relation(shapes: Sequence[Shape], others: Sequence[Shape], kind: str) -> str:
    """All shapes of the one at least half a cell before all of the other: the same as other rows or columns."""
    axis, names = {"horizontal": ("x", ("left of", "right of")), "vertical": ("y", ("above", "below"))}[kind]
    a, b = ([getattr(s, axis) for s in some] for some in (shapes, others))
    if max(a) < min(b) - CELL / 2:
        return names[0]
    return names[1] if min(a) > max(b) + CELL / 2 else NONE
