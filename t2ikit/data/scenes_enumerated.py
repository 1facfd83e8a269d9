"""The world `scenes-enumerated`: every scene of a small vocabulary, once, so that its lowest loss is known (floor.py).

The set is the distribution: nothing is held out, an epoch draws every scene once with fresh noise, D
counts draws, and knowing every scene by heart is the optimum, not overfitting. Validation is the same set, so there is
no generalisation gap; what a model's loss has above the floor is what it has not learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from typing import ClassVar

import numpy as np

from t2ikit.config import digest
from t2ikit.data import scenes_captions
from t2ikit.data.scenes import Scenes, drawn
from t2ikit.data.scenes_graph import SIDE, Graphs
from t2ikit.data.scenes_sample import VERSION, SceneConfig, draws, enumerate_scenes
from t2ikit.data.world import SPLITS, World
from t2ikit.errors import choose

ENUMERATION = 1
"""Raised by hand whenever the set, its order or a caption of the same options changes; beside `scenes`' own version."""
# one thing: 9 cells × 6 colours × 3 shapes × 2 sizes × 2 backgrounds = 648; two, of different colours and shapes:
# 36 pairs of cells × (6 · 5) × (3 · 2) × 2² × 2 = 51,840; in all 52,488
VOCABULARY = {"seed": 0, "things": 2, "count": 1, "colors": 6, "shapes": 3, "sizes": 2, "backgrounds": 2}
WORDING = [0, 0, 0, 1, 0, 0, 0, 1]
"""`STYLE_WORDS` that are the same for all: "a", not "one"; "large", not "big"; left and right before above and below;
sparse leaves out colours."""


class ScenesEnumerated(Scenes):
    """52,488 scenes: one or two shapes on the grid, without jitter; options are the keys of `VOCABULARY`.

    Both splits are the whole set in one order, shuffled by `seed`. Captions have one wording and name things in reading
    order: they say what is so in the scene and nothing else, so scenes alike in what is said share a caption. Sparse
    leaves out all but shapes (8,640 scenes have one caption of two things), medium size, place and background (72 or
    144; 36 one of one thing), dense nothing: it names one scene.
    """

    name = "scenes-enumerated"
    vocabulary: ClassVar[dict[str, int]] = VOCABULARY

    def __init__(self, size: int = SIDE, **options: object) -> None:
        for key in options:
            choose(f"option of {self.name}", key, VOCABULARY)
        self.size, self.config = drawn(size), SceneConfig(**self.vocabulary | options, jitter=0.0)
        own = {key: getattr(self.config, key) for key in VOCABULARY}
        self.fingerprint = digest({"world": self.name, "version": [VERSION, ENUMERATION], **own, **self._larger})

    def split_fingerprint(self, split: str) -> str:
        return World.split_fingerprint(self, split)

    def length(self, split: str) -> int:
        choose("split", split, SPLITS)
        return len(self._every)

    def graphs(self, split: str, indices: Sequence[int] | np.ndarray) -> Graphs:
        index = self.check_indices(split, indices)
        return Graphs(**{f.name: getattr(self._every, f.name)[index] for f in fields(Graphs)})

    def descriptions(
        self, split: str, indices: Sequence[int] | np.ndarray, density: str
    ) -> list[scenes_captions.Description]:
        choose("density", density, self.densities)
        return [scenes_captions.describe(scene, density, WORDING) for scene in self.scenes(split, indices)]

    @cached_property
    def _every(self) -> Graphs:
        """All scenes, in an order that is as good as random: a short run's first shards are then a fair sample."""
        scenes = list(enumerate_scenes(self.config))
        order = np.argsort(draws(self.config.seed, "enumeration", np.arange(len(scenes)), 1)[:, 0], kind="stable")
        return Graphs.stack(scenes[i] for i in order)


class ScenesSingle(ScenesEnumerated):
    """The 648 scenes of one shape alone: a floor that is found in seconds."""

    name = "scenes-single"
    vocabulary: ClassVar[dict[str, int]] = VOCABULARY | {"things": 1}
