"""A law's headline is how far off it was where it had not looked: fit without the largest budget and predict it, or
leave one model out; with the interval's verdict and the skill over two baselines."""

from __future__ import annotations

from typing import Any

import numpy as np

from t2ikit.errors import UserError
from t2ikit.laws.intervals import LEVEL
from t2ikit.laws.isoflop import group_budgets, mean_by_size
from t2ikit.laws.points import prepare
from t2ikit.laws.power import fit_power
from t2ikit.laws.surface import SurfaceFit, fit_surface


def hold_out_largest(
    N: np.ndarray,  # parameters, [n]
    D: np.ndarray,  # tokens, [n]
    loss: np.ndarray,  # [n]
    *,
    C: np.ndarray | None = None,  # FLOPs, [n]; None = 6ND
    runs: np.ndarray | None = None,
    weights: np.ndarray | None = None,  # [n] relative precisions
) -> dict:
    """Fit the surface without the largest budget (points within 10% of each other in C) and predict its points.

    Returns error (mean |predicted/actual - 1|), the share of points the prediction interval covers, and for the best
    size of that budget the skill 1 - |error|/|baseline's error| over two baselines: the best loss of the budget before,
    and a power law without floor through the best loss of each of three or more earlier budgets. The best is by size,
    its seeds averaged: the best seed of many is a lucky one. Only points smaller in C are used. UserError for values
    that are no positive numbers, held-out ones included.
    """
    prepare({"N": N, "D": D, "loss": loss, "C": C}, weights=weights, runs=runs)
    N, D, loss = (np.asarray(values, float).ravel() for values in (N, D, loss))
    c = 6 * N * D if C is None else np.asarray(C, float).ravel()
    labels = group_budgets(c)
    last = labels.max()
    if last < 1:
        raise UserError("All points are of one budget (C within 10%): nothing is left to predict; add budgets.")
    out = labels == last
    shared, precision = (None if v is None else np.asarray(v)[~out] for v in (runs, weights))
    fit = fit_surface(N[~out], D[~out], loss[~out], runs=shared, weights=precision, resamples=0)
    budgets = np.array([np.exp(np.log(c[labels == k]).mean()) for k in range(last + 1)])
    *earlier, actual = (float(mean_by_size(N[labels == k], loss[labels == k])[1].min()) for k in range(last + 1))
    sizes, mean = mean_by_size(N[out], loss[out])
    best = out & (N == sizes[np.argmin(mean)])
    predicted = float(fit.huber.predict(N[best], D[best]).mean())
    curve = None
    if last >= 3:  # a baseline claims no interval: it needs fewer budgets than a law
        line = np.polyfit(np.log(budgets[:-1]), np.log(earlier), 1)
        curve = float(np.exp(np.polyval(line, np.log(budgets[-1]))))
    return _predict(fit, N[out], D[out], loss[out]) | {
        "C": float(budgets[-1]), "decades_beyond": float(np.log10(c[out].min() / c[~out].max())),
        "best_loss": actual, "best_predicted": predicted,
        "baseline_last_budget": earlier[-1], "baseline_power_law": curve,
        "skill_over_last_budget": skill(predicted, earlier[-1], actual),
        "skill_over_power_law": None if curve is None else skill(predicted, curve, actual),
    }  # fmt: skip


def leave_one_model_out(N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> list[dict]:
    """Fit the surface without each model in turn (the points of one N) and predict its points; UserError as above."""
    prepare({"N": N, "D": D, "loss": loss})
    N, D, loss = (np.asarray(values, float).ravel() for values in (N, D, loss))
    results = []
    for model in np.unique(N):
        out = model == N
        fit = fit_surface(N[~out], D[~out], loss[~out], resamples=0)
        results.append({"model": float(model), "n": int(out.sum())} | _predict(fit, N[out], D[out], loss[out]))
    return results


def hold_out_power(
    x: np.ndarray,  # [n]
    y: np.ndarray,  # [n]
    *,
    weights: np.ndarray | None = None,
    runs: np.ndarray | None = None,
    **options: Any,  # of `fit_power`
) -> dict:
    """The same for a power law: fit without the largest x and predict it."""
    x, y = np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    out = x == x.max()
    precision, shared = (None if v is None else np.asarray(v)[~out] for v in (weights, runs))
    fit = fit_power(x[~out], y[~out], weights=precision, runs=shared, **options)
    low, high = fit.band(float(x.max()), new_point=True)
    predicted, actual = float(fit.predict(x.max())), y[out]
    last = float(y[~out][x[~out] == x[~out].max()].mean())
    return {
        "x": float(x.max()), "actual": float(actual.mean()), "predicted": predicted, "low": low, "high": high,
        "error": float(np.mean(np.abs(predicted / actual - 1))),
        "covered": float(np.mean((low <= actual) & (actual <= high))),
        "skill_over_last": skill(predicted, last, float(actual.mean())),
    }  # fmt: skip


def _predict(fit: SurfaceFit, n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> dict:
    low, high = np.array([fit.huber.prediction_interval(*at) for at in zip(n, d, strict=True)]).T
    predicted = fit.huber.predict(n, d)
    names, rows = ("N", "D", "loss", "predicted", "low", "high"), np.stack([n, d, loss, predicted, low, high], 1)
    return {
        "points": len(loss), "fitted_on": fit.n, "error": float(np.mean(np.abs(predicted / loss - 1))),
        "covered": float(np.mean((low <= loss) & (loss <= high))), "level": LEVEL,
        "predictions": [dict(zip(names, row, strict=True)) for row in rows.tolist()],
    }  # fmt: skip


def skill(predicted: float, baseline: float, actual: float) -> float | None:
    return None if baseline == actual else float(1 - abs(predicted - actual) / abs(baseline - actual))
