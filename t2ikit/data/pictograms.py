"""The worlds `pictograms` and `pictograms-whole`: icons of several styles with their names and tags as captions.

`get` builds their folders from npm packages, `leaks` counts what validation shares with training (nothing).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from t2ikit.config import digest
from t2ikit.data.pictograms_build import KEYS, MANIFEST, TABLE, fingerprint, get
from t2ikit.data.render import SIDE
from t2ikit.data.shards import decode, read_index, read_shard, read_table
from t2ikit.data.split import leaks
from t2ikit.data.world import SPLITS, World
from t2ikit.errors import UserError, choose
from t2ikit.files import file_hash, read_json, replacing, write_json
from t2ikit.runs import home

__all__ = ["Pictograms", "PictogramsWhole", "get", "leaks"]
SIZES = (128, 64, 32, 16)


class Pictograms(World):
    """A folder that `get` built, as a `World`: captions "name" or "tags", images area-averaged from 128 px to `size`.

    folder: default $T2IKIT_HOME/data/NAME. The order within a split was drawn once, when the folder was built.
    The first call of `images` decodes all shards into pixels-SIZE.npy beside them (64 px: 12 kB an image), or into
    memory where the folder cannot be written to; later ones check that file's hash and map it. A corrupt shard or
    picture is a UserError that names it.
    """

    name = "pictograms"
    densities, density = ("name", "tags"), "name"

    def __init__(self, folder: Path | str | None = None, size: int = 64) -> None:
        if size not in SIZES:
            raise UserError(f"Pictograms of {size!r} px are not served: choose one of {', '.join(map(str, SIZES))}.")
        self.folder, self.size = Path(folder) if folder else home() / "data" / self.name, size
        if not (self.folder / MANIFEST).exists() or not read_json(self.folder / MANIFEST, KEYS)["complete"]:
            raise UserError(
                f"There are no finished pictograms in {self.folder}: run `t2ikit data get {self.name}` first."
            )
        self.table = read_table(self.folder / TABLE)
        held = np.array(self.table["split"].to_pylist()) == "val"
        self._rows = {"train": np.flatnonzero(~held), "val": np.flatnonzero(held)}
        self._captions = {density: self.table[density].to_pylist() for density in self.densities}
        self._pixels: np.ndarray | None = None
        self.fingerprint = digest({"table": fingerprint(self.table), "size": size})

    def length(self, split: str) -> int:
        return len(self._rows[choose("split", split, SPLITS)])

    def images(self, split: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = self.rows(split, indices)
        if self._pixels is None:
            self._pixels = self._load_pixels()
        return np.array(self._pixels[rows])

    def captions(self, split: str, indices: Sequence[int] | np.ndarray, density: str) -> list[str]:
        said = self._captions[choose("caption density", density, self.densities)]
        return [said[row] for row in self.rows(split, indices)]

    def rows(self, split: str, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Row numbers in `self.table`, int64 [B]; it has the pictures' source set, licence, icon, cluster, shard."""
        return self._rows[choose("split", split, SPLITS)][self.check_indices(split, indices)]

    def _load_pixels(self) -> np.ndarray:
        """All pictures in the table's order, uint8 [n, size, size, 3]."""
        path = self.folder / f"pixels-{self.size}.npy"
        note = path.with_suffix(".json")
        if path.exists() and note.exists():
            if read_json(note) == {"fingerprint": self.fingerprint, "sha256": file_hash(path)}:
                return np.load(path, mmap_mode="r")
        if not os.access(self.folder, os.W_OK):
            return np.stack(list(self._decoded()))
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.table.num_rows, self.size, self.size, 3)}
        with replacing(path, prod(header["shape"])) as f:
            np.lib.format.write_array_header_1_0(f, header)
            for picture in self._decoded():
                f.write(picture.tobytes())
        write_json(note, {"fingerprint": self.fingerprint, "sha256": file_hash(path)})
        return np.load(path, mmap_mode="r")

    def _decoded(self) -> Iterator[np.ndarray]:
        """Each picture of the shards, uint8 [size, size, 3]; a UserError if they are not those of the table."""
        n, step, number = self.table.num_rows, SIDE // self.size, 0
        with tqdm(total=n, desc="decoding pictograms", unit="image", mininterval=1.0) as bar:
            for entry in read_index(self.folder):
                for sample in read_shard(self.folder / entry["url"], entry):
                    image = decode(sample)
                    if image.shape != (SIDE, SIDE, 3) or number >= n:
                        raise UserError(
                            f"Sample {sample.key} of {self.folder / entry['url']} is not of this table: build it again."
                        )
                    yield np.asarray(Image.fromarray(image).reduce(step)) if step > 1 else image
                    number += 1
                    bar.update()
        if number != n:
            raise UserError(f"The shards of {self.folder} hold {number:,} pictures, its table {n:,}: build it again.")


class PictogramsWhole(Pictograms):
    """All colour sets that are no logos: 40,000 pictures and more."""

    name = "pictograms-whole"
