"""What the installed papers bring: notebooks, studies, verdicts, published tables; each found by its entry point."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from t2ikit.errors import UserError, choose

GROUP = "t2ikit.papers"  # entry points: name of the paper -> package that holds its notebooks
CLAIMS = "claims.csv"
COLUMNS = ("id", "claim", "verdict", "paper", "ours", "low", "high", "n", "needs", "tier", "why", "world")
NUMBERS = {"ours": float, "low": float, "high": float, "n": int, "needs": int}  # columns of a table of claims


def packages() -> dict[str, str]:
    """The papers' packages, by the name of each."""
    return dict(sorted({(point.name, point.module) for point in metadata.entry_points(group=GROUP)}))


def folders() -> Iterator[tuple[str, Path]]:
    """Each paper's name and folder; one whose package is gone has none, one without `__init__.py` may have several."""
    for name, package in packages().items():
        with suppress(ModuleNotFoundError):
            found = find_spec(package)
            yield from ((name, Path(place)) for place in (found and found.submodule_search_locations) or ())


def figures() -> dict[str, Path]:
    """All notebooks of all installed papers, by `paper/name`."""
    found = {f"{name}/{path.stem}": path for name, folder in folders() for path in folder.glob("*.ipynb")}
    return dict(sorted(found.items()))


def find(figure: str) -> Path:
    """The notebook of `fig01` or `paper/fig01`; UserError if there is none, or more than one."""
    known = figures()
    same = [name for name in known if figure in (name, name.split("/")[1])]
    if len(same) > 1:
        raise UserError(f"Figure {figure!r} is in more than one paper: choose one of {', '.join(same)}.")
    if not known:
        raise UserError("No installed paper has a notebook: install t2ikit again, papers_repro comes with it.")
    bare = [name.split("/")[1] for name in known]
    shown = [short if bare.count(short) == 1 else name for name, short in zip(known, bare, strict=True)]
    return known[same[0] if same else choose("figure", figure, shown)]


def studies() -> dict[str, Any]:
    """All studies of all installed papers (Study or IsoFlop) by name: `STUDIES` of each paper's module `studies`."""
    modules = (import_module(f"{package}.studies") for package in packages().values())
    return {name: study for module in modules for name, study in module.STUDIES.items()}


def claims() -> list[dict[str, Any]]:
    """The verdicts on the papers' claims by their committed results, as each paper's `results/claims.csv` has them.

    A row is a part of a claim: its `id`, what it says (`claim`), `verdict` (reproduced, contradicted, undecided), what
    the `paper` claims, `ours` with its 95% interval (`low`, `high`), `n` and the n that would decide it (`needs`),
    `tier`, `why` and `world`; what is not known is None.
    """
    rows = []
    for _, folder in folders():
        path = folder / "results" / CLAIMS
        if path.exists():
            with path.open(encoding="utf-8", newline="") as lines:
                table = csv.DictReader(lines, strict=True)
                try:
                    rows += [{key: _value(key, row[key]) for key in COLUMNS} for row in table]
                except (KeyError, ValueError, TypeError, csv.Error) as error:
                    raise UserError(f"{path} is damaged at line {table.line_num}: restore it with git.") from error
    return rows


def _value(key: str, text: str) -> Any:
    if text is None:
        raise ValueError(f"a line without {key}")
    if key == "paper":
        try:
            return float(text)
        except ValueError:
            pass
    return NUMBERS.get(key, str)(text) if text else None
