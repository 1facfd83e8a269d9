"""Captions of scenes at three densities, whether a caption is true of a scene, and flips of a single attribute.

A caption is written from a `Description` of what it says; truth and flips are decided there, not on text. Every word
is one piece of MiniLM's vocabulary, and a caption has at most 18 pieces (20 with [CLS] and [SEP]).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations

from t2ikit.data.scenes_graph import RELATIONS, Scene, Thing
from t2ikit.data.world import Flip

DENSITIES = ("sparse", "medium", "dense")
CATEGORIES = ("color", "shape", "counting", "spatial", "size", "background")
STYLE_WORDS, FLIP_WORDS = 8, len(CATEGORIES)
NUMBERS = ("a", "two", "three", "four")
PLACES = ("center", "left", "right", "top", "bottom", "top left", "top right", "bottom left", "bottom right")
_OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


@dataclass(frozen=True)
class Phrase:
    """What a caption says of one thing; None where it says nothing."""

    count: int
    color: str | None = None
    shape: str | None = None
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True)
class Description:
    """What a caption says. relations: (relation, k) puts the first phrase's thing in relation to that of phrase k.
    style: words that choose between equal wordings."""

    phrases: tuple[Phrase, ...]
    relations: tuple[tuple[str, int], ...] = ()
    background: str | None = None
    style: tuple[int, ...] = (0,) * STYLE_WORDS


@dataclass(frozen=True)
class Vocabulary:
    """The values that a flip may choose from."""

    colors: tuple[str, ...]
    shapes: tuple[str, ...]
    sizes: tuple[str, ...]
    backgrounds: tuple[str, ...]
    count: int


def describe(scene: Scene, density: str, style: list[int]) -> Description:
    """A true description of the scene at a density; `style` holds `STYLE_WORDS` random words."""
    things = scene.things
    if density == "sparse":
        drop = ("color", "shape")[style[0] % 2]
        phrases = [Phrase(t.count, t.color, t.shape) for t in things]
        return Description(tuple(replace(p, **{drop: None}) for p in phrases), style=tuple(style))
    if density == "medium":
        phrases = [Phrase(t.count, t.color, t.shape) for t in things]
        relations = [things[0].relations(other) for other in things[1:]]
        chosen = tuple((names[style[k] % len(names)], k) for k, names in enumerate(relations, 1))
        return Description(tuple(phrases), chosen, style=tuple(style))
    phrases = [Phrase(t.count, t.color, t.shape, t.size, t.place) for t in things]
    if len(things) == 3:
        # 3 × (count size color shape place) + "and on gray" are the 18 words that fit: one side names a corner.
        phrases = [
            replace(p, place=t.main_side(style[k])) for k, (t, p) in enumerate(zip(things, phrases, strict=True), 1)
        ]
    return Description(tuple(phrases), background=scene.background, style=tuple(style))


def caption(description: Description) -> str:
    """The description in words."""
    style, n = description.style, len(description.phrases)
    phrases = [_words(p, style, at=n < 3) for p in description.phrases]
    if description.relations:
        relations = [name for name, _ in description.relations]
        if n == 2 and style[4] % 2:
            relations = [
                name.replace("left of", "to the left of").replace("right of", "to the right of") for name in relations
            ]
        text = phrases[0] + " " + " and ".join(f"{r} {p}" for r, p in zip(relations, phrases[1:], strict=True))
    else:
        text = _joined(phrases, style, description.background is not None)
    if description.background is None:
        return text
    if n < 3 and style[5] % 2:
        return (
            f"{text} on a {description.background} background"
            if n == 1
            else f"{text}, {description.background} background"
        )
    return f"{text} on {description.background}"


def _joined(phrases: list[str], style: tuple[int, ...], dense: bool) -> str:
    if len(phrases) == 3:
        return f"{phrases[0]}{' ' if dense else ', '}{phrases[1]} and {phrases[2]}"
    return (" and ", " with ", ", ")[style[6] % 3].join(phrases) if not dense else " and ".join(phrases)


def _words(phrase: Phrase, style: tuple[int, ...], at: bool) -> str:
    noun = phrase.shape or "shape"
    if phrase.count > 1:
        noun += "es" if noun.endswith("s") else "s"
    number = NUMBERS[phrase.count - 1]
    if phrase.count == 1:
        number = "one" if style[7] % 4 == 0 else "an" if _first(phrase)[0] in "aeiou" else "a"
    size = phrase.size and (phrase.size if style[3] % 3 else {"large": "big", "small": "tiny"}[phrase.size])
    place = f"at {phrase.place}" if phrase.place and at else phrase.place
    return " ".join(word for word in (number, size, phrase.color, noun, place) if word)


def _first(phrase: Phrase) -> str:
    return phrase.size or phrase.color or phrase.shape or "shape"


def describes(scene: Scene, description: Description) -> bool:
    """Whether it is true: each phrase has a thing of its own, counts are exact, and all else that is said holds."""
    if description.background not in (None, scene.background) or len(description.phrases) > len(scene.things):
        return False
    return any(
        all(_fits(t, p) for t, p in zip(things, description.phrases, strict=True))
        and all(name in things[0].relations(things[k]) for name, k in description.relations)
        for things in permutations(scene.things, len(description.phrases))
    )


def _fits(thing: Thing, phrase: Phrase) -> bool:
    place = set(phrase.place.split()) <= set(thing.place.split()) if phrase.place else True
    stated = (phrase.color, thing.color), (phrase.shape, thing.shape), (phrase.size, thing.size)
    return place and phrase.count == thing.count and all(said in (None, is_) for said, is_ in stated)


def flips(scene: Scene, description: Description, vocabulary: Vocabulary, words: list[int]) -> list[Flip]:
    """One flip of each category that the description mentions, chosen by the words.

    Each differs from the description in one attribute and is false of the scene. A category without a false alternative
    in the vocabulary is left out.
    """
    out = []
    for category, word in zip(CATEGORIES, words, strict=True):
        options = list(_alternatives(description, category, vocabulary))
        start = word % max(len(options), 1)
        for option in options[start:] + options[:start]:
            if not describes(scene, option):
                out.append(Flip(category, caption(description), caption(option)))
                break
    return out


def _alternatives(description: Description, category: str, vocabulary: Vocabulary) -> Iterator[Description]:
    """Every description that differs in one attribute of the category and names no two things alike."""
    if category == "background" and description.background:
        for value in vocabulary.backgrounds:
            if value != description.background:
                yield replace(description, background=value)
    if category == "spatial":
        for k, (name, other) in enumerate(description.relations):
            changed = (*description.relations[:k], (RELATIONS[name], other), *description.relations[k + 1 :])
            yield replace(description, relations=changed)
    for k, phrase in enumerate(description.phrases):
        for changed in _changed(phrase, category, vocabulary):
            rest = description.phrases[:k] + description.phrases[k + 1 :]
            if all((changed.color, changed.shape) != (p.color, p.shape) for p in rest):
                yield replace(description, phrases=(*description.phrases[:k], changed, *description.phrases[k + 1 :]))


def _changed(phrase: Phrase, category: str, vocabulary: Vocabulary) -> Iterator[Phrase]:
    if category == "color" and phrase.color:
        yield from (replace(phrase, color=v) for v in vocabulary.colors if v != phrase.color)
    if category == "shape" and phrase.shape:
        yield from (replace(phrase, shape=v) for v in vocabulary.shapes if v != phrase.shape)
    if category == "counting":
        yield from (replace(phrase, count=v) for v in range(1, vocabulary.count + 1) if v != phrase.count)
    if category == "size" and phrase.size:
        yield from (replace(phrase, size=v) for v in vocabulary.sizes if v != phrase.size)
    if category == "spatial" and phrase.place:
        yield from (replace(phrase, place=v) for v in _mirrored(phrase.place))


def _mirrored(place: str) -> Iterator[str]:
    """Places that exclude the given one, one side of it changed."""
    if place == "center":
        yield from _OPPOSITE
    sides = place.split()
    for k, side in enumerate(sides):
        if side in _OPPOSITE:
            yield " ".join([*sides[:k], _OPPOSITE[side], *sides[k + 1 :]])
