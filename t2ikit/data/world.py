"""Where image-text pairs come from: the `World` base class, a caption `Flip`, and `get_world` by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar

import numpy as np

from t2ikit.config import digest
from t2ikit.errors import UserError, choose

SPLITS = ("train", "val")
WORLDS = {
    "scenes": ("t2ikit.data.scenes", "Scenes"),
    "scenes-enumerated": ("t2ikit.data.scenes_enumerated", "ScenesEnumerated"),
    "scenes-single": ("t2ikit.data.scenes_enumerated", "ScenesSingle"),
    "pictograms": ("t2ikit.data.pictograms", "Pictograms"),
    "pictograms-whole": ("t2ikit.data.pictograms", "PictogramsWhole"),
}


@dataclass(frozen=True)
class Flip:
    """A caption that is true of an image beside one that is false because a single attribute was changed.

    `category` names the attribute as TIFA does: color, shape, counting, spatial; also size and background.
    """

    category: str
    true_caption: str
    flipped_caption: str


class World(ABC):
    """Image-text pairs by (split, index): deterministic, the same in any order and any batch."""

    name: ClassVar[str]
    densities: ClassVar[tuple[str, ...]]
    density: ClassVar[str]
    """The one of `densities` that is trained with unless another is asked for."""
    size: int
    """Side of the square images, in px."""
    fingerprint: str
    """Hash of the code version, all parameters and the split sizes."""

    @abstractmethod
    def length(self, split: str) -> int:
        """How many pairs `split` ("train" or "val") has."""

    @abstractmethod
    def images(self, split: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """uint8 RGB [B, size, size, 3]."""

    @abstractmethod
    def captions(self, split: str, indices: Sequence[int] | np.ndarray, density: str) -> list[str]:
        """One caption an index, at one of `self.densities`."""

    def flips(
        self, split: str, indices: Sequence[int] | np.ndarray, density: str, seed: int = 0
    ) -> Sequence[Sequence[Flip]]:
        """For each index its single-attribute flips; an empty tuple in a world without exact answers."""
        return ()

    def split_fingerprint(self, split: str) -> str:
        """Hash of what one split consists of; a world may leave out what cannot touch that split."""
        return digest({"world": self.fingerprint, "split": choose("split", split, SPLITS)})

    def check_indices(self, split: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """int64 [B]; raises a UserError if the split is unknown, or an index is no integer or out of range."""
        n = self.length(split)
        out = np.asarray(indices)
        if out.size == 0:
            return np.zeros(0, np.int64)
        if out.ndim != 1 or out.dtype.kind not in "iu":
            raise UserError(
                f"Indices must be a one-dimensional list of integers, not {out.dtype} of shape {out.shape}."
            )
        bad = out[(out < 0) | (out >= n)]
        if bad.size:
            raise UserError(f"Index {bad[0]} is outside the {split} split of {self.name}: choose from 0 to {n - 1}.")
        return out.astype(np.int64)


def world_class(name: str) -> type[World]:
    """The class of the world called `name`, one of `WORLDS`."""
    module, cls = WORLDS[choose("world", name, WORLDS)]
    return getattr(import_module(module), cls)


def get_world(name: str, **options: object) -> World:
    """The world called `name`, one of `WORLDS`, built with its own options."""
    return world_class(name)(**options)
