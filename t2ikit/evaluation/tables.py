"""Rows of scores as a CSV file: what decides each in columns of its own, `metric.weights`, `images.guidance` and so on.

A row: run, step, metric, value, low, high (95%), n, versus (the run it is compared with, else None), provenance.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from t2ikit.errors import UserError
from t2ikit.files import write_csv
from t2ikit.runs import merging

KEY = (
    "run", "step", "metric", "versus", "images.seed", "images.steps", "images.guidance", "images.prompts",
    "images.content", "metric.reference", "metric.sentences",
)  # fmt: skip
HASHES = ("prompts", "content", "loss_space", "weights", "sentences_weights", "reference", "text")
ROW = ("run", "step", "metric", "value", "low", "high", "n", "versus", "provenance")


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows, what decides them in columns of its own: `metric.weights`, `images.guidance` and so on."""
    return pd.DataFrame([{k: row[k] for k in ROW[:-1]} | _flat(row["provenance"]) for row in rows])


def export(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Merge the rows into a CSV file; one of the same run (or folder and its content), step, metric, images, reference
    and sentence encoder replaces the older."""
    with merging(path):
        frames = [table(rows)]
        if path.exists():
            frames.insert(0, read(path))
        merged = pd.concat(frames, ignore_index=True)
        merged = merged.drop_duplicates([c for c in KEY if c in merged], keep="last")
        write_csv(path, merged)


def read(path: Path) -> pd.DataFrame:
    """A CSV file as `export` writes it."""
    try:
        columns = pd.read_csv(path, nrows=0).columns
        text = [c for c in columns if c in ("run", "versus", "commit") or c.rpartition(".")[2] in HASHES]
        table = pd.read_csv(path, dtype=dict.fromkeys(text, str))  # a hash of digits alone is no number
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable as a table ({error}): restore it, or name another file.") from None
    if missing := [c for c in ROW[:-1] if c not in table]:
        raise UserError(f"{path} is no table of scores, it has no column {missing[0]!r}: name another file.")
    return table


def _flat(value: dict[str, Any], head: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        out |= _flat(item, f"{head}{key}.") if isinstance(item, dict) else {head + key: item}
    return out
