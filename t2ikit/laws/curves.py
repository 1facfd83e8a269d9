"""From learning curves to points of a law: warm-up dropped, the loss taken as last, best or smoothed, and intermediate
checkpoints as points of their own where the learning rate is constant (they stay one cluster: their run)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from t2ikit.errors import UserError, choose
from t2ikit.laws.tables import Table

EMA = 0.9  # paper D's smoothing factor
READINGS = ("ema", "last", "best")


def smooth(loss: np.ndarray, factor: float = EMA) -> np.ndarray:
    """Exponential moving average s_t = f·s_(t-1) + (1-f)·l_t, divided by 1 - f^t: the start is not pulled to 0."""
    if not 0 <= factor < 1:
        raise UserError(f"The smoothing factor {factor} must lie in [0, 1): 0.9 is paper D's.")
    average, out = 0.0, np.empty(len(loss))
    for t, value in enumerate(loss):
        average = factor * average + (1 - factor) * value
        out[t] = average / (1 - factor ** (t + 1))
    return out


def points(
    rows: Iterable[Mapping],  # log lines with run, step, loss and two of N, D, C; optionally rate
    *,
    reading: str = "ema",  # ema, last or best
    factor: float = EMA,
    warmup: int = 0,  # steps up to this one are dropped before smoothing
    checkpoints: int = 1,  # points a curve, evenly in log step; 1 = the end only
    field: str = "loss",
) -> Table:
    """The table of laws from logs: C (FLOPs), N (parameters), D (tokens), loss, steps, and the run as cluster.

    `best` is the lowest value so far, biased low by the noise; prefer `ema`. With several checkpoints the rate (column
    `rate`, where given) must be constant after warm-up: on a decaying rate an intermediate loss is not what a run of
    that length would have reached.
    """
    choose("reading of the loss", reading, READINGS)
    if checkpoints < 1:
        raise UserError(f"checkpoints = {checkpoints}: take 1 (the end of each curve) or more.")
    curves: dict[str, list[Mapping]] = {}
    for row in rows:
        for name in ("run", "step", field):
            if name not in row:
                raise UserError(f"A log line has no {name!r}: it has {', '.join(row)}; rename that field.")
        curves.setdefault(str(row["run"]), []).append(row)
    if not curves:
        raise UserError("There are no log lines: give rows with run, step, loss and two of N, D, C.")
    out: dict[str, list[float]] = {"C": [], "N": [], "D": [], "loss": [], "steps": []}
    labels = []
    for run in sorted(curves):
        lines = sorted(curves[run], key=lambda row: float(row["step"]))
        kept = [row for row in lines if float(row["step"]) > warmup]
        if not kept:
            raise UserError(
                f"Run {run} ends at step {lines[-1]['step']}, within the warm-up of {warmup}: leave it out."
            )
        loss = np.array([float(row[field]) for row in kept])
        if not np.all(np.isfinite(loss)):
            raise UserError(f"Run {run} has a loss that is not finite after step {warmup}: it diverged, leave it out.")
        if checkpoints > 1:
            _constant_rate(run, kept)
        read = {"ema": lambda v: smooth(v, factor), "last": lambda v: v, "best": np.minimum.accumulate}[reading](loss)
        step = np.array([float(row["step"]) for row in kept])
        for at in _chosen(step, checkpoints):
            row = kept[at]
            n, d, c = _three(row, run)
            for name, value in zip(out, (c, n, d, read[at], step[at]), strict=True):
                out[name].append(float(value))
            labels.append(run)
    runs = np.array(labels) if len(set(labels)) < len(labels) else None
    note = f"loss: {reading}" + (f" (factor {factor})" if reading == "ema" else "") + f", steps after {warmup}"
    return Table({name: np.array(values) for name, values in out.items()}, runs, [note])


def _chosen(step: np.ndarray, checkpoints: int) -> list[int]:
    if checkpoints == 1:
        return [len(step) - 1]
    wanted = np.geomspace(step[0], step[-1], checkpoints + 1)[1:]  # the first is the end of warm-up, no point
    return sorted({int(np.argmin(np.abs(np.log(step / goal)))) for goal in wanted})


def _constant_rate(run: str, rows: list[Mapping]) -> None:
    rates = np.array([float(row["rate"]) for row in rows if "rate" in row])
    if len(rates) and np.ptp(rates) > 1e-6 * rates.max():
        raise UserError(
            f"Run {run} has a rate that varies after warm-up ({rates.min():.3g} to {rates.max():.3g}): its "
            "intermediate losses are not those of shorter runs; take checkpoints=1."
        )


def _three(row: Mapping, run: str) -> tuple[float, float, float]:
    n, d, c = (float(row[name]) if row.get(name) is not None else None for name in ("N", "D", "C"))
    if sum(value is None for value in (n, d, c)) > 1:
        raise UserError(f"A log line of run {run} has fewer than two of N, D, C: C = 6ND needs two of them.")
    if c is None:
        c = 6 * n * d
    elif d is None:
        d = c / (6 * n)
    elif n is None:
        n = c / (6 * d)
    return n, d, c
