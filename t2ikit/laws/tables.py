"""Tables of runs, from what people have: a CSV, JSON, JSON lines, a folder of our runs. Read once, checked once, in an
order that no shuffling of rows changes, with C = 6ND filling in whichever of the three is missing."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from t2ikit.errors import UserError
from t2ikit.files import read_json
from t2ikit.laws.points import LARGEST

UNITS = {"C": "FLOPs", "N": "parameters", "D": "tokens"}
ALIASES = {
    "C": ("flops", "C_flops", "compute", "flops_paper", "C (FLOPs)"),
    "N": ("params", "parameters", "N_params", "n_params", "N (parameters)"),
    "D": ("tokens", "D_tokens", "D (tokens)"),
    "loss": ("val_loss",),
    "steps": ("step",),
    "weight": ("weights",),
}
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


def read(
    path: str | Path, needs: Iterable[str], *, run: str | None = None, names: Mapping[str, str] | None = None
) -> Table:
    """The columns `needs` of a CSV, of a JSON or JSON-lines file, or of a folder of our runs, checked.

    A column is found under its own name or a usual one (`params` for `N`, `val_loss` for `loss`), or as `names` says
    ({"N": "model size"}). `run` names the column that says which points are of one training; one called `run` with
    repeated values is taken for that unasked.
    """
    return from_rows(rows(path), needs, run=run, names=names, source=Path(path).name)


def from_rows(
    rows: Iterable[Mapping],
    needs: Iterable[str],
    *,
    run: str | None = None,
    names: Mapping[str, str] | None = None,
    source: str = "table",
) -> Table:
    """The same from a list of mappings, such as the rows of `t2ikit runs --json`; runs whose `status` is failed are
    left out, and noted."""
    every = renamed(rows, names)
    if not every:
        raise UserError(f"{source} has no rows: give a header line and one line a run.")
    rows = [row for row in every if row.get("status") != "failed"]
    if not rows:
        raise UserError(f"All {len(every)} runs of {source} failed: train one again, with a lower rate.")
    fields = list(dict.fromkeys(key for row in rows for key in row))
    if len(fields) < 2:
        raise UserError(f"{source} has one column ({fields[0]!r}): a law needs at least two, separated by commas.")
    if run is not None and run not in fields:
        raise UserError(f"There is no column {run!r} to tell runs apart: {source} has {', '.join(fields)}.")
    found = {name: _find(name, fields) for name in needs}
    missing = [name for name, column in found.items() if column is None]
    if set(missing) & set(UNITS):
        found |= {name: _find(name, fields) for name in UNITS}
    absent = [name for name in UNITS if name in found and found[name] is None]
    if len(absent) == 1:
        missing = [name for name in missing if name not in absent]
    if missing:
        raise UserError(
            f"{source} has no column {' or '.join(map(repr, missing))}: it has {', '.join(fields)}; rename one, or say "
            "which it is with --name, as in --name N=params (two of C, N, D give the third by C = 6ND)."
        )
    found |= {name: column for name in ("steps", "weight") if (column := _find(name, fields))}
    columns = {name: _numbers(rows, column, source) for name, column in found.items() if column is not None}
    notes = [f"{failed} failed run(s) left out"] if (failed := len(every) - len(rows)) else []
    for name in absent:
        columns[name] = _six_nd(columns, name)
        notes.append(f"{name} ({UNITS[name]}) filled in by C = 6ND")
    _check_units(columns, source, derived=absent)
    _check_rows(rows, columns, found, source)
    run = run or _find("run", fields)
    labels = np.array([str(row.get(run, "")) for row in rows]) if run else None
    order = np.lexsort([*(columns[name] for name in sorted(columns)), *([] if labels is None else [labels])])
    if labels is not None:
        labels = labels[order] if len(np.unique(labels)) < len(labels) else None
    return Table({name: values[order] for name, values in columns.items()}, labels, notes)


def renamed(rows: Iterable[Mapping], names: Mapping[str, str] | None) -> list[Mapping]:
    """The rows with the fields that `names` says ({"loss": "train/loss"}) under our names as well."""
    rows = list(rows)
    for name, given in (names or {}).items():
        if not any(given in row for row in rows):
            have = ", ".join(dict.fromkeys(key for row in rows for key in row))
            raise UserError(f"There is no column {given!r} to take for {name}: the table has {have}.")
        rows = [{**row, name: row[given]} if given in row else row for row in rows]
    return rows


def rows(path: str | Path) -> list[dict]:
    """The rows of a CSV, a JSON array, JSON lines, or a folder of runs (those that have a loss)."""
    path = Path(path)
    if path.is_dir():
        found = [read_json(file, ("run",)) for file in sorted(path.glob("*/row.json"))]
        found = [row for row in found if row.get("loss") is not None or row.get("val_loss") is not None]
        if not found:
            raise UserError(f"{path} holds no runs (no */row.json with a loss): give a folder of runs or a table.")
        return found
    if not path.exists():
        raise UserError(f"{path} does not exist: give the path of a CSV, a JSON-lines file or a folder of runs.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not UTF-8 text: save it as a CSV or as JSON lines.") from error
    if not text.strip():
        raise UserError(f"{path.name} is empty: give a header line and one line a run.")
    return _json(text, path.name) if text.lstrip()[0] in "[{" else _csv(text, path.name)


def _csv(text: str, source: str) -> list[dict]:
    header = text.lstrip().splitlines()[0]
    reader = csv.reader(io.StringIO(text), delimiter=next((mark for mark in ",;\t" if mark in header), ","))
    try:
        lines = [(reader.line_num, line) for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise UserError(f"{source} is not a CSV ({error}): save it again as one.") from error
    if not lines:
        raise UserError(f"{source} is empty: give a header line and one line a run.")
    names = [name.strip() for name in lines[0][1]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{source} has two columns called {twice!r}: rename one of them.")
    for number, line in lines[1:]:
        if len(line) != len(names):
            raise UserError(f"{source}, line {number}, has {len(line)} values for {len(names)} columns: mend it.")
    return [dict(zip(names, map(str.strip, line), strict=True)) for _, line in lines[1:]]


def _json(text: str, source: str) -> list[dict]:
    try:
        found = json.loads(text) if text.lstrip()[0] == "[" else None
    except json.JSONDecodeError as error:
        raise UserError(f"{source}, line {error.lineno}, is not JSON ({error.msg}): mend it.") from error
    if found is None:
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                found += [json.loads(line)] if line.strip() else []
            except json.JSONDecodeError as error:
                raise UserError(f"{source}, line {number}, is not JSON ({error.msg}): one object a line.") from error
    wrong = next((row for row in found if not isinstance(row, dict)), None)
    if wrong is not None:
        raise UserError(f"{source} holds {str(wrong)[:40]!r} where a row should be: write {{'C': …, 'loss': …}}.")
    return found


def _find(name: str, fields: list[str]) -> str | None:
    if name in fields:
        return name
    lower = {other.lower(): other for other in reversed(fields)}
    return next((lower[a.lower()] for a in (name, *ALIASES.get(name, ())) if a.lower() in lower), None)


def _numbers(rows: list[Mapping], column: str, source: str) -> np.ndarray:
    values = np.empty(len(rows))
    for i, row in enumerate(rows):
        given = row.get(column)
        where = f"{source}, row {i + 1}, column {column!r}"
        if given is None or str(given).lower() in ("", "nan", "na", "none", "null"):
            raise UserError(f"{where} is empty or NaN: drop that row or fill it in.")
        try:
            value = math.nan if isinstance(given, bool) or "_" in str(given) else float(given)
        except (TypeError, ValueError):
            value = math.nan
        if math.isnan(value):
            raise UserError(f"{where} is text ({given!r}): numbers such as 3e18 are needed.")
        if math.isinf(value):
            raise UserError(f"{where} is infinite: drop that run, it diverged.")
        if value <= 0:
            kind = "zero" if value == 0 else "negative"
            raise UserError(f"{where} is {kind} ({given}): laws live in logarithms and need positive values.")
        if not 1 / LARGEST <= value <= LARGEST:
            raise UserError(f"{where} is {value:g}, beyond {LARGEST:g} or its reciprocal: choose another unit.")
        values[i] = value
    return values


def _six_nd(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    if name == "C":
        return 6.0 * columns["N"] * columns["D"]
    return columns["C"] / (6.0 * columns["D" if name == "N" else "N"])


def _check_units(columns: dict[str, np.ndarray], source: str, derived: list[str]) -> None:
    middle = {name: float(np.median(columns[name])) for name in UNITS if name in columns}
    for name in (name for name, value in middle.items() if value < _SMALLEST[name]):
        if name in derived:
            raise UserError(f"{source}: C = 6ND gives a median {name} of {middle[name]:.3g} {UNITS[name]}: a given "
                            "column is in another unit (C in FLOPs, N in parameters, D in tokens).")  # fmt: skip
        raise UserError(f"{source}: column {name} has a median of {middle[name]:.4g}, too few {UNITS[name]}: give them "
                        "as such, not in thousands, millions or billions (GFLOPs × 1e9 = FLOPs).")  # fmt: skip
    if len(middle) == 3 and not derived:
        ratio = float(np.median(columns["C"] / columns["N"] / columns["D"])) / 6
        if not _SIX_ND[0] <= ratio <= _SIX_ND[1]:
            raise UserError(f"{source}: C is {ratio:.3g} × 6ND: one of C (FLOPs), N (parameters), D (tokens) is in "
                            "another unit.")  # fmt: skip


def _check_rows(rows: list[Mapping], columns: dict[str, np.ndarray], found: Mapping[str, str | None], source: str):
    """No row twice (all its cells alike), and only losses that may be compared."""
    spaces = sorted({str(row["loss_space"]) for row in rows if row.get("loss_space")})
    if len(spaces) > 1 and found.get("loss") in ("loss", "val_loss"):
        raise UserError(f"{source} mixes {len(spaces)} loss spaces ({', '.join(spaces)}), whose losses do not compare: "
                        "keep the rows of one `loss_space` (one world, objective and codec).")  # fmt: skip
    others = [[str(cell) for key, cell in row.items() if key not in found.values()] for row in rows]
    keys = Counter((*values, *rest) for values, rest in zip(zip(*columns.values(), strict=True), others, strict=True))
    (twice, times), *_ = keys.most_common(1)
    if times > 1:
        values = ", ".join(f"{name} = {value:.6g}" for name, value in zip(columns, twice, strict=False))
        raise UserError(f"{source} has {len(rows) - len(keys)} duplicated row(s) ({values}): a run counted twice "
                        "narrows every interval; keep one of each.")  # fmt: skip
