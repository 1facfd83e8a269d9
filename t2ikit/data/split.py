"""A split in which no validation image, caption or concept was trained on, and the count that proves it.

A split by name alone leaves a third of validation with a near-duplicate in training (variants of one drawing), and a
split by image alone leaves the same thing drawn in another style. So whole connected components are dealt out: icons
are linked if they are near-duplicates, share a concept (the set of word stems of the name, without skin tone, gender,
side and numbers), show the same emoji, or one's alias is another's name. What is held out is thus concepts in all
styles, not words: "red apple" may be in validation while "green apple" is in training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import pyarrow as pa

from t2ikit.data.dedup import groups, near_duplicates
from t2ikit.data.render import THUMB
from t2ikit.errors import need

VALIDATION = 0.055  # share of images
# share of images, and images: larger components are trained on, or a few would fill validation
LARGEST, AT_LEAST = 0.003, 8
STOP = frozenset("a an the of with and in on for to at by or".split())
MODIFIERS = frozenset(  # of one concept: gender, and the two sides of one drawing
    """man woman person men women people boy girl male female
    left right leftward leftwards rightward rightwards facing""".split()
)


def concept(subject: str) -> str:
    """Sorted word stems of `subject`, without stop words, gender, side and numbers unless nothing else is left."""
    every = re.findall(r"\w+", subject.lower())
    content = [word for word in every if word not in STOP] or every
    kept = [word for word in content if word not in MODIFIERS and not word.isdigit()] or content
    return " ".join(sorted({stem(word) for word in kept}))


def stems(caption: str) -> str:
    """All words of `caption` as stems, in order: "Two red apples!" and "two red apple" are one caption."""
    return " ".join(stem(word) for word in re.findall(r"\w+", caption.lower()))


@cache
def stem(word: str) -> str:
    """The word's Snowball stem (English): apples and apple are both appl."""
    try:
        import snowballstemmer
    except ImportError as error:
        raise need("data", "snowballstemmer") from error
    return snowballstemmer.stemmer("english").stemWord(word)


def components(keys: Sequence[Iterable[str]], pairs: np.ndarray) -> np.ndarray:
    """Labels int64 [n]: items are linked by a shared key (`keys[i]`: of item i) or by near-duplicate `pairs` [m, 2]."""
    owner: dict[str, int] = {}
    links = [(item, owner.setdefault(key, item)) for item, own in enumerate(keys) for key in own]
    return groups(len(keys), np.concatenate([pairs, np.array(links, np.int64).reshape(-1, 2)]))


def hold_out(labels: np.ndarray, seed: int, share: float = VALIDATION, largest: float = LARGEST) -> np.ndarray:
    """Mask bool [n] of validation: whole components in an order drawn from `seed`, up to `share` of the items."""
    sizes = np.bincount(labels)
    held = np.zeros(len(sizes), bool)
    count = 0
    for label in np.random.default_rng(seed).permutation(len(sizes)):
        if sizes[label] <= max(AT_LEAST, largest * len(labels)) and count + sizes[label] <= share * len(labels):
            held[label] = True
            count += sizes[label]
    return held[labels]


def leaks(table: pa.Table) -> dict[str, int]:
    """How many validation rows of `Pictograms.table` were trained on, counted anew from captions, hashes and colours.

    Keys: `images` (a near-duplicate in training), `captions` (either caption, as stems, in training), `concepts` (its
    concept in training), `emoji` (the same emoji in training), `clusters` (its cluster in training). All must be 0.
    """
    held = np.array(table["split"].to_pylist()) == "val"
    thumbs = np.frombuffer(b"".join(table["thumb"].to_pylist()), np.uint8).reshape(-1, THUMB, THUMB, 3)
    phash = np.array([int(text, 16) for text in table["phash"].to_pylist()], np.uint64)
    pairs = near_duplicates(phash, thumbs)
    crossing = pairs[held[pairs[:, 0]] != held[pairs[:, 1]]]
    captions = np.zeros(len(held), bool)
    for density in ("name", "tags"):
        captions |= _seen([stems(text) for text in table[density].to_pylist()], held)
    return {
        "images": len(np.unique(np.where(held[crossing[:, 0]], crossing[:, 0], crossing[:, 1]))),
        "captions": int(captions.sum()),
        "concepts": int(_seen([concept(text) for text in table["subject"].to_pylist()], held).sum()),
        "emoji": int((_seen(table["emoji"].to_pylist(), held) & ~np.array(table["emoji"].is_null())).sum()),
        "clusters": int(_seen(table["cluster"].to_pylist(), held).sum()),
    }


def _seen(values: Sequence[object], held: np.ndarray) -> np.ndarray:
    """Mask bool [n] of held-out items whose value occurs among the others."""
    trained = {value for value, out in zip(values, held, strict=True) if not out}
    return np.array([bool(out) and value in trained for value, out in zip(values, held, strict=True)], bool)
