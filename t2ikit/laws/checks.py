"""What a fit's own points say against it: uneven noise, single points that carry the law, floors and exponents that the
data leave open, and how far any extrapolation reaches. Each finding is one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t2ikit.laws.profile import unequal_noise
from t2ikit.laws.result import finding

if TYPE_CHECKING:
    from t2ikit.laws.power import PowerFit
    from t2ikit.laws.surface import SurfaceFit


def of_power(fit: PowerFit) -> list[dict]:
    """Findings on a power law."""
    problem = fit.curvature.problem
    residual = np.log(fit.y / fit.predict(fit.x))
    found = [_range(fit.x, fit.x_label), *_noise(problem, residual), *_influence_power(fit, residual)]
    if fit.low is not None and fit.high is not None and fit.low <= 0 <= fit.high:
        found.append(finding("exponent", "warning", "The exponent's interval includes 0: no trend is shown."))
    if fit.low is None or fit.high is None:
        found.append(finding("exponent", "warning", "The exponent's interval is unbounded: the data do not fix it."))
    if fit.offset_interval is not None and fit.offset_interval[0] == 0.0:
        found.append(finding("offset", "note", "The offset's interval includes 0: a law without floor fits as well."))
    if problem.clusters is not None:
        groups = int(problem.clusters.max()) + 1
        found.append(finding("clusters", "note", f"{fit.n} points of {groups} runs: intervals count runs, not points."))
    if not fit.claimed:
        found.append(finding("coverage", "warning", "Simulations do not back 95% coverage for so few points: a guide."))
    return found


def of_surface(fit: SurfaceFit) -> list[dict]:
    """Findings on a surface, for the estimate by Huber."""
    huber, other = fit.huber, fit.vpnls
    problem = huber.curvature.problem
    residual = np.log(fit.loss / huber.predict(fit.N, fit.D))
    found = [_range(6 * fit.N * fit.D, "C (FLOPs, 6ND)"), *_noise(problem, residual)]
    for name in ("alpha", "beta"):
        low, high = huber.intervals[name]
        if low is None or high is None or low <= 0:
            found.append(
                finding(name, "warning", f"The interval of {name} is open or reaches 0: the data do not fix it.")
            )
    if huber.E < 1e-6 * float(fit.loss.min()) or huber.intervals["E"][0] in (None, 0.0):
        found.append(finding("floor", "warning", "E is not told from 0: no irreducible loss is shown by these points."))
    low, high = huber.intervals["a"]
    if not low <= other.a <= high:
        found.append(finding(
            "noise model", "warning",
            f"Huber in logs gives N_opt ∝ C^{huber.a:.3f}, raw residuals C^{other.a:.3f}, outside the former's "
            f"interval [{low:.3f}, {high:.3f}]: the allocation depends on which points the fit trusts."))  # fmt: skip
    if huber.bootstrap:
        wide = np.diff(huber.bootstrap["alpha"])[0] / max(
            np.subtract(*reversed(_closed(huber.intervals["alpha"]))), 1e-300
        )
        if wide > 2 or wide < 0.5:
            found.append(finding(
                "bootstrap", "warning",
                f"The bootstrap interval of alpha is {wide:.2g} times as wide as the stated one: few points "
                "carry it."))  # fmt: skip
    worst = int(np.argmax(np.abs(residual)))
    size = abs(residual[worst]) / max(float(np.median(np.abs(residual))) * 1.4826, 1e-300)
    if size > 5:
        found.append(finding(
            "outlier", "warning",
            f"The run with N = {fit.N[worst]:.3g}, D = {fit.D[worst]:.3g} lies {size:.1f} robust standard deviations "
            "off: look at it (warm-up, divergence) before trusting raw residuals."))  # fmt: skip
    if problem.clusters is not None:
        groups = int(problem.clusters.max()) + 1
        found.append(finding("clusters", "note", f"{fit.n} points of {groups} runs: intervals count runs, not points."))
    if huber.converged < 1 or other.converged < 1:
        share = min(huber.converged, other.converged)
        found.append(finding("convergence", "warning", f"{100 * share:.2f}% of the resamples reached their optimum."))
    if not huber.claimed:
        found.append(finding("coverage", "warning", "Simulations do not back 95% coverage for so few points: a guide."))
    return found


def _closed(pair: tuple) -> tuple[float, float]:
    return (0.0 if pair[0] is None else pair[0]), (np.inf if pair[1] is None else pair[1])


def _range(x: np.ndarray, label: str) -> dict:
    decades = float(np.log10(x.max() / x.min()))
    verdict = "ok" if decades >= 1 else "warning"
    tail = "" if decades >= 1 else ": less than one order of magnitude hardly tells a power law from a line"
    return finding("range", verdict, f"The points span {decades:.2f} orders of magnitude of {label}{tail}.",
                   low=float(x.min()), high=float(x.max()), decades=decades)  # fmt: skip


def _noise(problem, residual: np.ndarray) -> list[dict]:
    test = unequal_noise(problem, residual)
    if test["p"] >= 0.01:
        return []
    more = "more" if test["rho"] > 0 else "less"
    name = test["with"]
    return [finding(
        "noise", "warning",
        f"The noise is uneven: runs of larger {'x' if np.ptp(problem.y) == 0 else name} scatter {more} "
        f"(rank correlation {test['rho']:.2f}, p = {test['p']:.2g}); the intervals allow for it.")]  # fmt: skip


def _influence_power(fit: PowerFit, residual: np.ndarray) -> list[dict]:
    """The point whose removal moves the exponent most, by the exact leave-one-out formula of a log-log line."""
    if fit.offset is not None or fit.residuals != "log" or fit.n <= LEAST_TO_DROP:
        return []
    u = np.log(fit.x) - np.log(fit.x).mean()
    leverage = 1 / fit.n + u**2 / np.sum(u**2)
    shift = -u * residual / (np.sum(u**2) * np.maximum(1 - leverage, 1e-9))
    worst = int(np.argmax(np.abs(shift)))
    half = (fit.high - fit.low) / 2
    if abs(shift[worst]) < 0.5 * half:
        return []
    return [finding(
        "influence", "warning",
        f"Without the point at {fit.x_label} = {fit.x[worst]:.3g} the exponent is {fit.exponent + shift[worst]:.4g} "
        f"instead of {fit.exponent:.4g}: one point carries much of the law.")]  # fmt: skip


LEAST_TO_DROP = 5
