"""Scores kept by content: what was scored once is not computed again, whichever run or command asks for it.

One SQLite file holds (metric, image and prompt) → numbers; a metric is the hash of its name, weights and transform. A
batch is written as a whole, so what was scored before an error or an interruption is there the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from t2ikit.encoders import batches
from t2ikit.errors import UserError

BATCH = 128  # images scored, then written, at once


class Scores:
    """The file, made when it is first written to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Scores cannot be kept in {path.parent} ({error.strerror}): set T2IKIT_HOME to a folder of yours."
            ) from None
        with self._open() as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS scores (metric TEXT, key TEXT, value BLOB, PRIMARY KEY (metric, key))"
            )

    def of(
        self,
        metric: str,
        keys: Sequence[str],
        compute: Callable[[np.ndarray], Sequence[np.ndarray]],
        dtype: type = np.float64,
        name: str = "scoring",
    ) -> list[np.ndarray]:
        """A row of numbers for each key; `compute(rows)` gives those of rows that are not there yet."""
        found = self._read(metric, dict.fromkeys(keys))
        first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in found}
        todo = np.array(sorted(first.values()), dtype=int)
        with tqdm(total=len(keys), initial=len(keys) - len(todo), desc=name, unit="image", mininterval=1.0) as bar:
            for piece in batches(len(todo), BATCH):
                made = [np.asarray(x, dtype) for x in compute(todo[piece])]
                for row, x in zip(todo[piece], made, strict=True):
                    if not np.isfinite(x).all():
                        raise UserError(f"{name} of image {row} is not finite: look at that image and at the weights.")
                some = {keys[row]: x for row, x in zip(todo[piece], made, strict=True)}
                with self._open() as db:
                    db.executemany(
                        "INSERT OR REPLACE INTO scores VALUES (?, ?, ?)",
                        [(metric, key, x.tobytes()) for key, x in some.items()],
                    )
                found |= some
                bar.update(len(made))
        return [np.frombuffer(x, dtype) if isinstance(x := found[key], bytes) else x for key in keys]

    def _read(self, metric: str, keys: dict[str, None]) -> dict[str, bytes]:
        found, every = {}, list(keys)
        with self._open() as db:
            for piece in batches(len(every), 500):
                some = every[piece]
                marks = ",".join("?" * len(some))
                query = f"SELECT key, value FROM scores WHERE metric = ? AND key IN ({marks})"
                found |= dict(db.execute(query, (metric, *some)).fetchall())
        return found

    @contextlib.contextmanager
    def _open(self):
        """A connection whose changes are written when the block ends well; what SQLite refuses is one sentence."""
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=60)) as db, db:
                yield db
        except sqlite3.DatabaseError as error:
            damaged = not isinstance(error, sqlite3.OperationalError)  # locked, read-only, or the disk is full
            remedy = "delete it" if damaged else "see that it can be written to and that its disk has room"
            raise UserError(f"{self.path} cannot be read or written ({error}): {remedy}, and score again.") from None


def image_hashes(images: Tensor) -> list[str]:
    """SHA-256 of each image's shape and pixels."""
    shape = str(list(images.shape[1:])).encode()
    return [hashlib.sha256(shape + x.tobytes()).hexdigest() for x in images.numpy()]


def keys_of(images: Tensor, contexts: Sequence[object]) -> list[str]:
    """What a score is of: an image, and what it is held against."""
    pairs = zip(image_hashes(images), contexts, strict=True)
    return [hashlib.sha256(f"{image}{json.dumps(said)}".encode()).hexdigest() for image, said in pairs]
