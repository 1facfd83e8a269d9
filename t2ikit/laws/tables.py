"""Tables of runs, from what people have: a CSV, JSON lines, or a folder of our runs. Read once, checked once, sorted
canonically (so that the order of rows changes no digit), with C = 6ND filling in whichever of the three is missing."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from t2ikit.errors import UserError

UNITS = {"C": "FLOPs", "N": "parameters", "D": "tokens"}
ALIASES = {
    "C": ("C", "flops", "C_flops", "compute", "flops_paper"),
    "N": ("N", "params", "parameters", "N_params", "n_params"),
    "D": ("D", "tokens", "D_tokens"),
    "loss": ("loss", "val_loss"),
}
EXTRA = {"run": ("run",), "steps": ("steps", "step"), "weight": ("weight", "weights")}
_SMALLEST = {"C": 1e6, "N": 1e3, "D": 1e3}  # below this the column must be in thousands, millions or billions
_SIX_ND = (0.05, 20.0)  # C / 6ND of honest conventions (embeddings, attention, MACs) stays within this


@dataclass(frozen=True)
class Table:
    """Columns by name (`C` FLOPs, `N` parameters, `D` tokens, `loss`, or the file's own names), rows sorted."""

    columns: dict[str, np.ndarray]
    runs: np.ndarray | None = None  # labels; points that share one are correlated
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.columns:
            raise UserError(f"There is no column {name!r}: the table has {', '.join(self.columns)}.")
        return self.columns[name]


def read(path: str | Path, needs: Iterable[str], *, run: str | None = None) -> Table:
    """The columns `needs` of a CSV, of a JSON-lines file, or of a folder of our runs, checked.

    A column is found under its own name or a usual one (`params` for `N`, `val_loss` for `loss`). `run` names the
    column that says which points are of one training; one called `run` with repeated values is taken for that unasked.
    """
    path = Path(path)
    return from_rows(_rows(path), needs, run=run, source=path.name)


def from_rows(rows: Iterable[Mapping], needs: Iterable[str], *, run: str | None = None, source: str = "table") -> Table:
    """The same from a list of mappings, such as the rows of `t2ikit runs --json`."""
    rows, needs = list(rows), list(dict.fromkeys(needs))
    if not rows:
        raise UserError(f"{source} has no rows: give a header line and one line a run.")
    names = list(dict.fromkeys(key for row in rows for key in row))
    if len(names) < 2:
        raise UserError(f"{source} has one column ({names[0]!r}): a law needs at least two, separated by commas.")
    found = {name: _find(name, names) for name in needs}
    for extra in ("steps", "weight"):
        if _find(extra, names):
            found[extra] = _find(extra, names)
    filled = [name for name in ("C", "N", "D") if name in needs and found[name] is None]
    if filled:
        for name in ("C", "N", "D"):
            found.setdefault(name, _find(name, names))
    missing = [name for name, column in found.items() if column is None and name not in ("C", "N", "D")]
    absent = [name for name in ("C", "N", "D") if name in found and found[name] is None]
    if len(absent) > 1:
        missing = absent + missing
    if missing:
        raise UserError(
            f"{source} has no column {' or '.join(map(repr, missing))}: it has {', '.join(names)}; "
            "rename one, or name it with --x or --y (two of C, N, D give the third by C = 6ND)."
        )
    columns = {name: _numbers(rows, column, source) for name, column in found.items() if column is not None}
    notes = []
    for name in absent:
        columns[name] = _six_nd(columns, name)
        notes.append(f"{name} ({UNITS[name]}) filled in by C = 6ND")
    _check_units(columns, source, derived=absent)
    labels = _runs(rows, run or _find("run", names), needed=run is not None)
    keys = [columns[name] for name in sorted(columns)]
    order = np.lexsort(keys if labels is None else [*keys, labels])
    columns = {name: values[order] for name, values in columns.items()}
    labels = None if labels is None else labels[order]
    _check_duplicates(columns, source)
    if labels is not None and len(np.unique(labels)) == len(labels):
        labels = None
    return Table(columns, labels, notes)


def _rows(path: Path) -> list[dict]:
    if path.is_dir():
        files = sorted(path.glob("*/row.json"))
        if not files:
            raise UserError(f"{path} holds no runs (no */row.json): give a folder of runs, a CSV or a JSON-lines file.")
        return [json.loads(file.read_text(encoding="utf-8")) for file in files]
    if not path.exists():
        raise UserError(f"{path} does not exist: give the path of a CSV, a JSON-lines file or a folder of runs.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 text: save it as a CSV or as JSON lines.") from error
    if not text.strip():
        raise UserError(f"{path.name} is empty: give a header line and one line a run.")
    if text.lstrip()[0] == "{":
        return _json_lines(text, path.name)
    header = text.lstrip().splitlines()[0]
    delimiter = next((mark for mark in ",;\t" if mark in header), ",")
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise UserError(f"{path.name} is not a CSV ({error}): save it again as one.") from error
    if not lines:
        raise UserError(f"{path.name} is empty: give a header line and one line a run.")
    names = [name.strip() for name in lines[0][1]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path.name} has two columns called {twice!r}: rename one of them.")
    for number, line in lines[1:]:
        if len(line) != len(names):
            raise UserError(
                f"{path.name}, line {number}, has {len(line)} values for {len(names)} columns: mend that line."
            )
    return [dict(zip(names, map(str.strip, line), strict=True)) for _, line in lines[1:]]


def _json_lines(text: str, source: str) -> list[dict]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{source}, line {number}, is not JSON ({error.msg}): one object a line.") from error
            if not isinstance(row, dict):
                raise UserError(f"{source}, line {number}, is not an object: write {{'C': …, 'loss': …}} on each line.")
            rows.append(row)
    return rows


def _find(name: str, names: list[str]) -> str | None:
    if name in names:
        return name
    lower = {other.lower(): other for other in reversed(names)}
    return next((lower[a.lower()] for a in (ALIASES | EXTRA).get(name, ()) if a.lower() in lower), None)


def _numbers(rows: list[Mapping], column: str, source: str) -> np.ndarray:
    values = np.empty(len(rows))
    for i, row in enumerate(rows):
        given = row.get(column)
        where = f"{source}, row {i + 1}, column {column!r}"
        if given is None or (isinstance(given, str) and given.lower() in ("", "nan", "na", "none", "null")):
            raise UserError(f"{where} is empty or NaN: drop that row or fill it in.")
        try:
            value = float(given)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where} is text ({given!r}): numbers such as 3e18 are needed.") from error
        if math.isnan(value):
            raise UserError(f"{where} is empty or NaN: drop that row or fill it in.")
        if math.isinf(value):
            raise UserError(f"{where} is infinite: drop that run, it diverged.")
        if value <= 0:
            kind = "zero" if value == 0 else "negative"
            raise UserError(f"{where} is {kind} ({given}): laws live in logarithms and need positive values.")
        values[i] = value
    return values


def _six_nd(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name == "C":
        return 6.0 * columns["N"] * columns["D"]
    return columns["C"] / (6.0 * columns["D" if name == "N" else "N"])


def _check_units(columns: dict[str, np.ndarray], source: str, derived: list[str]) -> None:
    for name, least in _SMALLEST.items():
        if name in columns and name not in derived and float(np.median(columns[name])) < least:
            raise UserError(
                f"{source}: column {name} has a median of {np.median(columns[name]):.4g}, too few {UNITS[name]}: "
                f"give {UNITS[name]} themselves, not thousands, millions or billions (GFLOPs × 1e9 = FLOPs)."
            )
    if {"C", "N", "D"} <= set(columns):
        ratio = float(np.median(columns["C"] / (6.0 * columns["N"] * columns["D"])))
        if not _SIX_ND[0] <= ratio <= _SIX_ND[1]:
            raise UserError(
                f"{source}: C is {ratio:.3g} × 6ND: one of C (FLOPs), N (parameters), D (tokens) is in another unit."
            )
        for name in derived:
            if float(np.median(columns[name])) < _SMALLEST[name]:
                raise UserError(
                    f"{source}: C = 6ND gives a median {name} of {np.median(columns[name]):.3g} {UNITS[name]}: "
                    "one of the two given columns is in another unit (C in FLOPs, N in parameters, D in tokens)."
                )


def _runs(rows: list[Mapping], column: str | None, needed: bool) -> np.ndarray | None:
    if column is None:
        return None
    if needed and not any(column in row for row in rows):
        raise UserError(f"There is no column {column!r} to tell runs apart: the table has {', '.join(rows[0])}.")
    return np.array([str(row.get(column, "")) for row in rows])


def _check_duplicates(columns: dict[str, np.ndarray], source: str) -> None:
    matrix = np.stack(list(columns.values()), 1)
    different, counts = np.unique(matrix, axis=0, return_counts=True)
    if len(different) < len(matrix):
        twice = different[int(np.argmax(counts > 1))]
        values = ", ".join(f"{name} = {value:.6g}" for name, value in zip(columns, twice, strict=True))
        raise UserError(
            f"{source} has {len(matrix) - len(different)} duplicated row(s) ({values}): a run counted twice narrows "
            "every interval; keep one of each."
        )
