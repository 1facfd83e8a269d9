"""Questions about captions of `scenes`, in TIFA's format and categories, with answers from the scene graph.

They ask for what the caption says, so that every image which it describes is scored alike. A caption names all things
of its scene: what it does not name is not there, and half of the questions for an object are answered with no. No
choice but the answer is true of such an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from t2ikit.data.scenes import Scenes
from t2ikit.data.scenes_captions import PLACES, Description, caption
from t2ikit.data.scenes_graph import BACKGROUNDS, COLORS, MAX_COUNT, RELATIONS, SHAPES, SIZES

CHOICES = 4  # at most, as in TIFA
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
NUMBERS = [str(n) for n in range(1, MAX_COUNT + 1)]


def scene_questions(
    world: Scenes, split: str, indices: Sequence[int] | np.ndarray, density: str
) -> list[dict[str, Any]]:
    """A list of `{id, caption, question, choices, answer, element_type, element}`, caption after caption.

    element_type: object, color, shape, counting, spatial, and other (size and background).
    """
    out = []
    for index, said in zip(indices, world.descriptions(split, indices, density), strict=True):
        head = {"id": f"scenes_{split}_{density}_{index}", "caption": caption(said)}
        out += [head | q for q in questions(said, int(index))]
    return out


def questions(said: Description, turn: int) -> list[dict[str, Any]]:
    """The questions about one description; `turn` varies which wrong choices are offered."""
    out: list[dict[str, Any]] = []

    def ask(kind: str, question: str, answer: str, order: Iterable[str], wrong: Sequence[str] = ()) -> None:
        """Choices: the answer, `wrong` first and then others of `order`, in its order: the place is no hint."""
        others = [v for v in dict.fromkeys([*wrong, *_turned(order, turn)]) if v != answer]
        choices = [v for v in order if v in (answer, *others[: CHOICES - 1])]
        record = {"question": question, "choices": choices, "answer": answer, "element_type": kind, "element": answer}
        out.append(record)

    colors, shapes = [p.color for p in said.phrases if p.color], [p.shape for p in said.phrases if p.shape]
    for k, phrase in enumerate(said.phrases):
        color, shape, many = phrase.color, phrase.shape, phrase.count > 1
        thing, things, are = name(color, shape, many), name(color, shape, True), "are" if many else "is"
        absent = [v for v in _turned(COLORS if color else SHAPES, turn) if v not in colors + shapes]
        # the colour of another thing first: colours must be bound to their shapes
        other = (colors[k + 1 :] + colors[:k] + absent)[0] if color and shape else absent[k]
        wrong = name(other, shape) if color else name(None, other)
        for asked, answer in ((name(color, shape), "yes"), (wrong, "no")):
            ask("object", f"is there {'an' if asked[0] in 'aeiou' else 'a'} {asked}?", answer, ("yes", "no"))
            out[-1]["element"] = asked
        if color and shape:
            ask("color", f"what color {are} the {name(None, shape, many)}?", color, COLORS, colors)
            ask("shape", f"what shape {are} the {color} {'things' if many else 'thing'}?", shape, SHAPES, shapes)
        ask("counting", f"how many {things} are there?", str(phrase.count), NUMBERS)
        if phrase.size:
            ask("other", f"what size {are} the {thing}?", phrase.size, SIZES)
        if phrase.place:
            places = [p for p in PLACES if p == phrase.place or p in excluded(phrase.place)]
            ask("spatial", f"where {are} the {thing}?", phrase.place, places)
    for relation, k in said.relations:
        first, second = (said.phrases[i] for i in (0, k))
        both = [r for r in RELATIONS if r in (relation, RELATIONS[relation])]
        names = [name(p.color, p.shape, p.count > 1) for p in (first, second)]
        are = "are" if first.count > 1 else "is"
        ask("spatial", f"{are} the {names[0]} {both[0]} or {both[1]} the {names[1]}?", relation, both)
    if said.background:
        ask("other", "what color is the background?", said.background, BACKGROUNDS)
    return out


def name(color: str | None, shape: str | None, many: bool = False) -> str:
    """What to call things of which colour, shape or both are known: "red crosses", "star", "blue shape"."""
    noun = shape or "shape"
    noun += ("es" if noun.endswith("s") else "s") if many else ""
    return f"{color} {noun}" if color else noun


def excluded(place: str) -> list[str]:
    """Places at which nothing is that may be said to be at `place` ("left" is also said of what is at the top left)."""
    sides = {OPPOSITE[s] for s in place.split() if s in OPPOSITE} or set(OPPOSITE)
    return [p for p in PLACES if sides & set(p.split()) or (p == "center" != place)]


def _turned(values: Iterable[str], turn: int) -> list[str]:
    values = list(values)
    return values[turn % len(values) :] + values[: turn % len(values)]
