"""From learning curves to points of a law: warm-up dropped, the loss taken as last, best or smoothed, and intermediate
checkpoints as points of their own where the learning rate is constant (they stay one cluster: their run)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from t2ikit.errors import UserError, choose
from t2ikit.files import read_json, read_lines
from t2ikit.laws.tables import Table, renamed

EMA = 0.9  # paper D's smoothing factor


def smooth(loss: np.ndarray, factor: float = EMA, spans: np.ndarray | None = None) -> np.ndarray:
    """Exponential moving average s_t = f·s_(t-1) + (1-f)·l_t, divided by 1 - f^t: the start is not pulled to 0.

    `spans` [n]: the lengths of the intervals that the losses are means of, in units of f's (default: 1 each); one cut
    in two with equal means changes nothing after it.
    """
    if not 0 <= factor < 1:
        raise UserError(f"The smoothing factor {factor} must lie in [0, 1): 0.9 is paper D's.")
    kept = factor ** np.broadcast_to(1.0 if spans is None else spans, len(loss))
    average, weight, out = 0.0, 0.0, np.empty(len(loss))
    for t, value in enumerate(loss):
        average, weight = kept[t] * average + (1 - kept[t]) * value, kept[t] * weight + (1 - kept[t])
        out[t] = average / weight
    return out


def points(
    rows: Iterable[Mapping],  # log lines with run, step, loss and two of N, D, C; optionally rate
    *,
    reading: str = "ema",  # ema, last or best
    factor: float = EMA,
    warmup: int = 0,  # steps up to this one are dropped before smoothing
    checkpoints: int = 1,  # points a curve, evenly in log step; 1 = the end only
    names: Mapping[str, str] | None = None,  # the logs' own names for run, step, loss, N, D, C, rate
) -> Table:
    """The table of laws from logs: C (FLOPs), N (parameters), D (tokens), loss, steps, and the run as cluster.

    Lines without a loss are passed over. `best` is the lowest value so far, biased low by the noise; prefer `ema`. With
    several checkpoints the rate (field `rate`, where given) must be constant after warm-up: on a decaying rate an
    intermediate loss is not what a run of that length would have reached.
    """
    choose("reading of the loss", reading, ("ema", "last", "best"))
    if checkpoints < 1:
        raise UserError(f"checkpoints = {checkpoints}: take 1 (the end of each curve) or more.")
    rows, curves = renamed(rows, names), {}
    lines = [row for row in rows if row.get("loss") is not None] or rows
    for row in lines:
        for name in ("run", "step", "loss"):
            if name not in row:
                have = ", ".join(map(str, row))
                raise UserError(f"A log line has no {name!r}: it has {have}; rename that field, or name it in `names`.")
        curves.setdefault(str(row["run"]), []).append(row)
    if not curves:
        raise UserError("There are no log lines: give rows with run, step, loss and two of N, D, C.")
    read = {"ema": lambda v: smooth(v, factor), "last": lambda v: v, "best": np.minimum.accumulate}[reading]
    found, labels = [], []
    for run in sorted(curves):
        lines = sorted(curves[run], key=lambda row: _number(row, "step", run))
        kept = [row for row in lines if float(row["step"]) > warmup]
        if not kept:
            last = lines[-1]["step"]
            raise UserError(f"Run {run} ends at step {last}, within the warm-up of {warmup}: leave it out.")
        loss, step = (np.array([_number(row, name, run) for row in kept]) for name in ("loss", "step"))
        if not np.all(np.isfinite(loss)):
            raise UserError(f"Run {run} has a loss that is not finite after step {warmup}: it diverged, leave it out.")
        if checkpoints > 1:
            _constant_rate(run, kept)
        value = read(loss)
        for at in _chosen(step, checkpoints):
            found.append((*_three(kept[at], run), value[at], step[at]))
            labels.append(run)
    columns = dict(zip(("C", "N", "D", "loss", "steps"), np.array(found).T, strict=True))
    note = f"loss: {reading}" + (f" (factor {factor})" if reading == "ema" else "") + f", steps after {warmup}"
    return Table(columns, np.array(labels) if len(set(labels)) < len(labels) else None, [note])


def of_runs(folder: str | Path, loss: str = "val_loss") -> list[dict]:
    """The log lines of a folder of our runs, as `points` takes them: `loss` is val_loss (at each evaluation) or loss
    (training); N (parameters) from the run's row, D (tokens) in proportion to the step."""
    found = []
    for path in sorted(Path(folder).glob("*/row.json")):
        row = read_json(path, ("run", "N", "D", "steps"))
        for line in read_lines(path.parent / "log.jsonl", ("step",)):
            if line["step"] > 0:
                found.append({"run": row["run"], "step": line["step"], "loss": line.get(loss), "N": row["N"],
                              "D": row["D"] * line["step"] / row["steps"]})  # fmt: skip
    return found


def _number(row: Mapping, name: str, run: str) -> float:
    try:
        return float(row[name])
    except (TypeError, ValueError):
        raise UserError(f"Run {run} has a {name} that is text ({row[name]!r}): numbers are needed.") from None


def _chosen(step: np.ndarray, checkpoints: int) -> list[int]:
    if checkpoints == 1:
        return [len(step) - 1]
    wanted = np.geomspace(step[0], step[-1], checkpoints + 1)[1:]  # the first is the end of warm-up, no point
    return sorted({int(np.argmin(np.abs(np.log(step / goal)))) for goal in wanted})


def _constant_rate(run: str, rows: list[Mapping]) -> None:
    rates = np.array([_number(row, "rate", run) for row in rows if "rate" in row])
    if len(rates) and np.ptp(rates) > 1e-6 * rates.max():
        raise UserError(f"Run {run}'s rate varies after warm-up ({rates.min():.3g} to {rates.max():.3g}): its "
                        "intermediate losses are not those of shorter runs; take checkpoints=1.")  # fmt: skip


def _three(row: Mapping, run: str) -> tuple[float, float, float]:
    c, n, d = (_number(row, name, run) if row.get(name) is not None else None for name in ("C", "N", "D"))
    if [c, n, d].count(None) > 1:
        raise UserError(f"A log line of run {run} has fewer than two of N, D, C: C = 6ND needs two of them.")
    return c or 6 * n * d, n or c / (6 * d), d or c / (6 * n)
