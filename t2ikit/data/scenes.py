"""The procedural world `scenes`: coloured shapes on a plain background, with exact graphs, captions and flips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

import numpy as np

from t2ikit.config import digest
from t2ikit.data import scenes_captions
from t2ikit.data.scenes_graph import BACKGROUNDS, COLORS, SHAPES, SIDE, SIZES, Graphs, Scene
from t2ikit.data.scenes_render import render
from t2ikit.data.scenes_sample import VERSION, SceneConfig, below, draws, sample
from t2ikit.data.world import SPLITS, Flip, World
from t2ikit.errors import UserError, choose


class Scenes(World):
    """World of procedural scenes of 64 or 128 px, the same at both; options are the fields of `SceneConfig`.

    densities: "sparse" leaves out colours or shapes, "medium" states count, colour, shape and relations,
    "dense" adds size, place and background. No dense caption of val occurs in train, with any seed.
    """

    name = "scenes"
    densities, density = scenes_captions.DENSITIES, "medium"
    size = SIDE

    def __init__(self, size: int = SIDE, **options: object) -> None:
        for key in options:
            choose("option of scenes", key, [f.name for f in fields(SceneConfig)])
        self.size, self.config = drawn(size), SceneConfig(**options)
        self.fingerprint = digest({"world": self.name, "version": VERSION, **asdict(self.config), **self._larger})

    def split_fingerprint(self, split: str) -> str:
        """Hash of one split: val is the same with any size of train and any caption noise, which is train's alone."""
        own = asdict(self.config)
        for key in {"train": ["val"], "val": ["train", "caption_noise"]}[choose("split", split, SPLITS)]:
            del own[key]
        return digest({"world": self.name, "version": VERSION, "split": split, **own, **self._larger})

    @property
    def _larger(self) -> dict[str, int]:
        """What a fingerprint says of the size, where it is not the usual one."""
        return {} if self.size == SIDE else {"size": self.size}

    def length(self, split: str) -> int:
        return getattr(self.config, choose("split", split, SPLITS))

    def graphs(self, split: str, indices: Sequence[int] | np.ndarray) -> Graphs:
        return sample(self.config, split, self.check_indices(split, indices))

    def scene(self, split: str, index: int) -> Scene:
        return self.graphs(split, [index]).scene(0)

    def scenes(self, split: str, indices: Sequence[int] | np.ndarray) -> list[Scene]:
        graphs = self.graphs(split, indices)
        return [graphs.scene(b) for b in range(len(graphs))]

    def images(self, split: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        index = self.check_indices(split, indices)
        out = np.empty((len(index), self.size, self.size, 3), np.uint8)
        for start in range(0, len(index), 256):
            part = slice(start, start + 256)
            out[part] = render(self.graphs(split, index[part]), self.size // SIDE)
        return out

    def captions(self, split: str, indices: Sequence[int] | np.ndarray, density: str) -> list[str]:
        choose("density", density, self.densities)
        index = self.check_indices(split, indices)
        if split == "train" and self.config.caption_noise:
            index = self._swapped(index)
        return [scenes_captions.caption(d) for d in self.descriptions(split, index, density)]

    def flips(self, split: str, indices: Sequence[int] | np.ndarray, density: str, seed: int = 0) -> list[list[Flip]]:
        """For each index a flip a category that its caption mentions; never of a noised caption."""
        choose("density", density, self.densities)
        index = self.check_indices(split, indices)
        words = draws(seed, f"flips {split} {density}", index, scenes_captions.FLIP_WORDS)
        vocabulary = scenes_captions.Vocabulary(
            tuple(COLORS)[: self.config.colors],
            SHAPES[: self.config.shapes],
            tuple(SIZES)[: self.config.sizes],
            tuple(BACKGROUNDS)[: self.config.backgrounds],
            self.config.count,
        )
        scenes, described = self.scenes(split, index), self.descriptions(split, index, density)
        return [
            scenes_captions.flips(scene, description, vocabulary, row.tolist())
            for scene, description, row in zip(scenes, described, words, strict=True)
        ]

    def descriptions(
        self, split: str, indices: Sequence[int] | np.ndarray, density: str
    ) -> list[scenes_captions.Description]:
        """What each caption says, before any caption noise."""
        choose("density", density, self.densities)
        index = self.check_indices(split, indices)
        words = draws(self.config.seed, f"caption {split} {density}", index, scenes_captions.STYLE_WORDS)
        scenes = self.scenes(split, index)
        return [scenes_captions.describe(s, density, row.tolist()) for s, row in zip(scenes, words, strict=True)]

    def _swapped(self, index: np.ndarray) -> np.ndarray:
        """The index whose caption each image gets: with probability caption_noise another one's."""
        n = self.length("train")
        word = draws(self.config.seed, "caption noise", index, 2)
        noisy = (word[:, 0] >> np.uint64(11)) * 2.0**-53 < self.config.caption_noise
        other = (index + 1 + below(word[:, 1], max(n - 1, 1))) % n
        return np.where(noisy, other, index)


def drawn(size: int) -> int:
    """`size` in px, if scenes are drawn at it."""
    if size not in (SIDE, 2 * SIDE):
        raise UserError(f"Scenes of {size!r} px are not drawn: choose {SIDE} or {2 * SIDE}.")
    return size
