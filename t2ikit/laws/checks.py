"""What a fit's own points say against it: uneven noise, single points that carry the law, floors and exponents that the
data leave open, and how far any extrapolation reaches. Each finding is one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t2ikit.laws.result import finding

if TYPE_CHECKING:
    from t2ikit.laws.power import PowerFit
    from t2ikit.laws.profile import Curvature
    from t2ikit.laws.surface import SurfaceFit


def of_power(fit: PowerFit) -> list[dict]:
    """Findings on a power law."""
    found = [_range(fit.x, fit.x_label), *_of_points(fit.curvature, fit.claimed), *_influence(fit)]
    if fit.low is None or fit.high is None:
        found.append(finding("exponent", "warning", "The exponent's interval is unbounded: the data do not fix it."))
    elif fit.low <= 0 <= fit.high:
        found.append(finding("exponent", "warning", "The exponent's interval includes 0: no trend is shown."))
    if (bend := fit.bend()) and not bend[1] <= 0 <= bend[2]:
        found.append(finding(
            "form", "warning",
            f"The points bend: the slope changes by {bend[0]:.3f} a decade of {fit.x_label} "
            f"({bend[1]:.3f} to {bend[2]:.3f}), and a power law's does not: its exponent depends on the range, and "
            "outside it the law misleads."))  # fmt: skip
    if fit.offset_interval is not None and fit.offset_interval[0] == 0.0:
        found.append(finding("offset", "note", "The offset's interval includes 0: a law without floor fits as well."))
    return found


def of_surface(fit: SurfaceFit) -> list[dict]:
    """Findings on a surface, for the estimate by Huber."""
    huber, other = fit.huber, fit.vpnls
    found = [_range(6 * fit.N * fit.D, "C (FLOPs, 6ND)"), *_of_points(huber.curvature, huber.claimed)]
    for name in ("alpha", "beta"):
        low, high = huber.intervals[name]
        if low is None or high is None or low <= 0:
            text = f"The interval of {name} is open or reaches 0: the data do not fix it."
            found.append(finding(name, "warning", text))
    if huber.E < 1e-6 * float(fit.loss.min()) or huber.intervals["E"][0] == 0.0:
        found.append(finding("floor", "warning", "E is not told from 0: no irreducible loss is shown by these points."))
    low, high = huber.intervals["a"]
    if huber.has_optimum and other.has_optimum and not low <= other.a <= high:
        found.append(finding(
            "noise model", "warning",
            f"Huber in logs gives N_opt ∝ C^{huber.a:.3f}, raw residuals C^{other.a:.3f}, outside the former's "
            f"interval [{low:.3f}, {high:.3f}]: the allocation depends on which points the fit trusts."))  # fmt: skip
    low, high = huber.intervals["alpha"]
    if huber.bootstrap and low is not None and high is not None:
        wide = float(np.diff(huber.bootstrap["alpha"])[0]) / max(high - low, 1e-300)
        if wide > 2 or wide < 0.5:
            found.append(finding(
                "bootstrap", "warning",
                f"The bootstrap interval of alpha is {wide:.2g} times as wide as the stated one: few points "
                "carry it."))  # fmt: skip
    residual = np.abs(np.log(fit.loss / huber.predict(fit.N, fit.D)))
    worst = int(np.argmax(residual))
    size = residual[worst] / max(float(np.median(residual)) * 1.4826, 1e-300)
    if size > 5:
        found.append(finding(
            "outlier", "warning",
            f"The run with N = {fit.N[worst]:.3g}, D = {fit.D[worst]:.3g} lies {size:.1f} robust standard deviations "
            "off: look at it (warm-up, divergence) before trusting raw residuals."))  # fmt: skip
    share = min(huber.converged, other.converged)
    if share < 1:
        found.append(finding("convergence", "warning", f"{100 * share:.2f}% of the resamples reached their optimum."))
    return found


def _range(x: np.ndarray, label: str) -> dict:
    decades = float(np.log10(x.max() / x.min()))
    verdict = "ok" if decades >= 1 else "warning"
    tail = "" if decades >= 1 else ": less than one order of magnitude hardly tells a power law from a line"
    return finding("range", verdict, f"The points span {decades:.2f} orders of magnitude of {label}{tail}.",
                   low=float(x.min()), high=float(x.max()), decades=decades)  # fmt: skip


def _of_points(bent: Curvature, claimed: bool) -> list[dict]:
    """Uneven noise, clusters, and whether simulations back the interval."""
    found, problem, noise = [], bent.problem, bent.noise
    if bent.uneven:
        name = "x" if np.ptp(problem.y) == 0 else noise["with"]
        found.append(finding(
            "noise", "warning",
            f"The noise is uneven: runs of larger {name} scatter {'more' if noise['rho'] > 0 else 'less'} "
            f"(rank correlation {noise['rho']:.2f}, p = {noise['p']:.2g}); the intervals allow for it."))  # fmt: skip
    if problem.clusters is not None:
        text = f"{len(problem.x)} points of {problem.clusters.max() + 1} runs: intervals count runs, not points."
        found.append(finding("clusters", "note", text))
    if not claimed:
        text = "Simulations do not back 95% coverage for such a table (few points or runs, uneven noise): a guide."
        found.append(finding("coverage", "warning", text))
    return found


def _influence(fit: PowerFit) -> list[dict]:
    """The point whose removal moves the exponent most, by the exact leave-one-out formula of a log-log line."""
    if fit.offset is not None or fit.residuals != "log" or fit.n <= 5:
        return []
    u, residual, w = np.log(fit.x) - fit.centre, np.log(fit.y / fit.predict(fit.x)), fit.curvature.problem.weights
    u = u - np.average(u, weights=w)
    leverage = w * (1 / np.sum(w) + u**2 / np.sum(w * u**2))
    shift = -w * u * residual / (np.sum(w * u**2) * np.maximum(1 - leverage, 1e-9))
    worst = int(np.argmax(np.abs(shift)))
    if abs(shift[worst]) < 0.25 * (fit.high - fit.low):
        return []
    return [finding(
        "influence", "warning",
        f"Without the point at {fit.x_label} = {fit.x[worst]:.3g} the exponent is {fit.exponent + shift[worst]:.4g} "
        f"instead of {fit.exponent:.4g}: one point carries much of the law.")]  # fmt: skip
