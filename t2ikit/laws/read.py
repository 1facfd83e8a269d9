"""From a file to a law in one call: what `t2ikit fit` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from t2ikit.errors import UserError, choose
from t2ikit.laws import checks, tables
from t2ikit.laws.holdout import hold_out_largest, hold_out_power
from t2ikit.laws.isoflop import fit_isoflop
from t2ikit.laws.power import fit_power
from t2ikit.laws.result import Result, finding, plain
from t2ikit.laws.surface import fit_surface

LAWS = ("power", "isoflop", "surface")


def fit_csv(path: str | Path, law: str, x: str | None = None, y: str | None = None, **options) -> dict:
    """The JSON of `t2ikit fit POINTS.csv --law LAW`: coefficients, intervals, audit; numbers finite or None."""
    return plain(fit(path, law, x, y, **options).as_dict())


def fit(
    path: str | Path,
    law: str,
    x: str | None = None,
    y: str | None = None,
    *,
    run: str | None = None,
    names: Mapping[str, str] | None = None,
    **options,
) -> Result:
    """Read a CSV, JSON, JSON lines or a folder of runs and fit `law`: power, isoflop or surface. `x`, `y` name the
    columns of a power law (default C and loss); `y` the loss of the others; `names` the file's own names for C, N, D,
    loss; `run` the column of which points share a training. Options go to fit_power, fit_isoflop or fit_surface."""
    choose("law", law, LAWS)
    x, y = (x or "C") if law == "power" else x, y or "loss"
    if law != "power" and x is not None:
        raise UserError(f"--x {x!r} is for a power law: {law} reads C, N and D; name those columns with --name.")
    if x == y:
        raise UserError(f"x and y are both {y!r}: name two columns.")
    needs = [x, y] if law == "power" else ["C", "N", "D", y]
    return fit_table(tables.read(path, needs, run=run, names=names), law, x, y, **options)


def fit_table(table: tables.Table, law: str, x: str | None = None, y: str = "loss", **options) -> Result:
    """The same from a table in memory: columns `x` and `y` of a power law; C, N, D and `y` of the others."""
    notes = [finding("columns", "note", note[0].upper() + note[1:] + ".") for note in table.notes]
    weights = table.columns.get("weight")
    if law == "power":
        x = x or "C"
        result = fit_power(table[x], table[y], weights=weights, runs=table.runs, x_label=_label(x), y_label=_label(y),
                           **options)  # fmt: skip
        held = _held_out(lambda: hold_out_power(table[x], table[y], weights=weights, runs=table.runs, **options))
        return replace(result, hold_out=held, audit=[*notes, *result.audit])
    c, n, d, loss = table["C"], table["N"], table["D"], table[y]
    notes += _convention(c / (6 * n * d))
    if law == "isoflop":
        if weights is not None and np.ptp(weights) > 0:
            raise UserError(
                f"The column 'weight' takes values from {weights.min():g} to {weights.max():g}, but an isoFLOP fit "
                "weighs all points alike: leave the column out, or fit `surface`, which weighs points."
            )
        result = fit_isoflop(c, n, loss, D=d, steps=table.columns.get("steps"), runs=table.runs, **options)
        return replace(result, audit=[*notes, *result.audit])
    result = fit_surface(n, d, loss, weights=weights, runs=table.runs, **options)
    held = _held_out(lambda: hold_out_largest(n, d, loss, C=c, runs=table.runs, weights=weights))
    return replace(result, hold_out=held, audit=[*notes, *checks.of_surface(result), _headline(held)])


def _held_out(predict) -> dict:
    try:
        return predict()
    except UserError as error:
        return {"refused": str(error)}


def _headline(held: dict) -> dict:
    if "refused" in held:
        return finding("hold-out", "warning", f"The largest budget could not be held out: {held['refused']}")
    skill = held["skill_over_last_budget"]
    text = f"Without the largest budget, {held['fitted_on']} points predict its {held['points']} with an error of "
    text += f"{100 * held['error']:.2g}%, {100 * held['covered']:.0f}% of them inside the interval"
    text += f" ({held['decades_beyond']:.2f} orders of magnitude beyond)"
    if skill is not None:
        text += f"; skill over the last budget's loss {skill:.2f}"
    return finding("hold-out", "ok" if skill is None or skill > 0 else "warning", text + ".")


def _convention(ratio: np.ndarray) -> list[dict]:
    middle = float(np.median(ratio))
    if 0.8 <= middle <= 1.25:
        return []
    return [finding("C = 6ND", "warning", f"The file's C is {middle:.2g} × 6ND (a half: MACs for FLOPs; a third: no "
                    "backward pass): points are grouped by it, but the surface counts 6ND.", ratio=middle)]  # fmt: skip


def _label(column: str) -> str:
    return f"{column} ({tables.UNITS[column]})" if column in tables.UNITS else column
