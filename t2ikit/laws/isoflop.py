"""isoFLOP analysis (Hoffmann et al. 2022, approach 2): a parabola in log N for each compute budget, its vertex with
Fieller's interval and quality flags, then the power laws N_opt(C), D_opt(C) through them, the surface beside."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from t2ikit.errors import UserError
from t2ikit.laws import checks
from t2ikit.laws.intervals import fieller, t_quantile
from t2ikit.laws.power import LEAST_POINTS, PowerFit, fit_power
from t2ikit.laws.result import Result, finding
from t2ikit.laws.surface import SurfaceFit, fit_surface

FEWEST_SIZES = 5
MIN_STEPS = 1000  # a size that never left its warm-up fakes the right arm of a parabola


@dataclass(frozen=True)
class Budget:
    """One budget: `C` FLOPs (geometric mean), vertex `N_opt` with its interval, the loss there, flags."""

    C: float
    N_opt: float | None
    low: float | None
    high: float | None
    loss: float | None
    flags: list[str]
    sizes: int
    coefficients: tuple[float, float, float] | None  # loss = c0 + c1·u + c2·u², u = log10(N) - centre
    centre: float
    usable: bool  # enters the law through the vertices
    N: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)

    def as_dict(self) -> dict:
        return {"C": self.C, "N_opt": self.N_opt, "low": self.low, "high": self.high, "loss": self.loss,
                "sizes": self.sizes, "flags": self.flags, "in_law": self.usable}  # fmt: skip


@dataclass(frozen=True)
class IsoflopFit(Result):
    """`n_opt`, `d_opt`, `loss_opt` are power laws in C, None where fewer than five budgets have a usable vertex."""

    budgets: list[Budget]
    n_opt: PowerFit | None
    d_opt: PowerFit | None
    loss_opt: PowerFit | None
    surface: SurfaceFit | None
    audit: list[dict]
    n: int
    chart_kind = "isoflop"
    title = "isoFLOP: N_opt (parameters) at each budget C (FLOPs)"

    def as_dict(self) -> dict:
        def law(fit: PowerFit | None) -> dict:
            keys = ("coefficient", "exponent", "low", "high", "n", "interval_method")
            return {key: None if fit is None else getattr(fit, key) for key in keys}

        return {
            "law": "isoflop", "units": "C in FLOPs, N in parameters, D in tokens", "n": self.n,
            "budgets": [budget.as_dict() for budget in self.budgets],
            "N_opt": law(self.n_opt), "D_opt": law(self.d_opt), "loss": law(self.loss_opt),
            "surface": None if self.surface is None else self.surface.as_dict(), "audit": self.audit,
        }  # fmt: skip


def group_budgets(C: np.ndarray, tolerance: float = 0.1) -> np.ndarray:
    """Label of the budget of each point: neighbours in sorted C closer than `tolerance` (relative) share one."""
    order = np.argsort(C, kind="stable")
    jumps = np.diff(np.log(C[order])) > np.log1p(tolerance)
    labels = np.empty(len(C), int)
    labels[order] = np.concatenate([[0], np.cumsum(jumps)])
    return labels


def fit_isoflop(
    C: np.ndarray,  # FLOPs, [n]
    N: np.ndarray,  # parameters, [n]
    loss: np.ndarray,  # [n]
    *,
    D: np.ndarray | None = None,  # tokens, [n], for the surface; None = C / 6N
    steps: np.ndarray | None = None,  # [n] optimiser steps; points with fewer than min_steps are left out and flagged
    min_steps: int = MIN_STEPS,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 4000,  # of the surface's bootstrap
    surface: bool = True,
) -> IsoflopFit:
    """Parabolas of the loss in log10 N, one for each group of points of equal C (within 10%), and their laws.

    A vertex is the ratio -c1/2c2 of two Gaussian estimates, so Fieller's interval is exact for a true parabola; it is
    None (unbounded) when the curvature's interval includes 0. Parabolas are biased where α ≠ β or the grid is off
    centre: compare `surface`. Raises UserError when no budget has three sizes.
    """
    C, N, loss = (np.asarray(values, float).ravel() for values in (C, N, loss))
    if not len(C) == len(N) == len(loss):
        raise UserError(f"C, N and loss differ in length: {len(C)}, {len(N)}, {len(loss)}.")
    for name, values in (("C", C), ("N", N), ("loss", loss)):
        if not np.all(np.isfinite(values) & (values > 0)):
            raise UserError(f"{name} holds a value that is not a positive number: drop that point.")
    order = np.lexsort([loss, N, C])
    C, N, loss = C[order], N[order], loss[order]
    tokens = C / (6 * N) if D is None else np.asarray(D, float).ravel()[order]
    trained = np.ones(len(C), bool) if steps is None else np.asarray(steps, float).ravel()[order] >= min_steps
    labels = group_budgets(C)
    sizes = [len(np.unique(N[labels == k])) for k in range(labels.max() + 1)]
    if max(sizes) < 3:
        raise UserError(
            f"No budget has three model sizes ({labels.max() + 1} budgets of at most {max(sizes)}): an isoFLOP "
            "parabola needs five sizes trained at the same C (FLOPs, within 10%); fit `surface` instead."
        )
    budgets = [_budget(C[labels == k], N[labels == k], loss[labels == k], trained[labels == k], min_steps, level)
               for k in range(labels.max() + 1)]  # fmt: skip
    good = [budget for budget in budgets if budget.usable]
    audit = _audit_budgets(budgets, good)
    laws: list[PowerFit | None] = [None, None, None]
    if len(good) >= LEAST_POINTS:
        c = np.array([budget.C for budget in good])
        vertex = np.array([budget.N_opt for budget in good])
        floor = np.array([budget.loss for budget in good])
        laws = [fit_power(c, values, x_label="C (FLOPs)", y_label=label, level=level)
                for values, label in ((vertex, "N_opt (parameters)"), (c / (6 * vertex), "D_opt (tokens)"),
                                      (floor, "loss at N_opt"))]  # fmt: skip
        audit += [line for line in laws[0].audit if line["check"] != "range"]
    fitted = None
    if surface:
        try:
            fitted = fit_surface(
                N[trained], tokens[trained], loss[trained], seed=seed, resamples=resamples, level=level
            )
            fitted.audit.extend(checks.of_surface(fitted))
        except UserError as error:
            audit.append(finding("surface", "note", f"No surface beside the parabolas: {error}"))
    if fitted is not None and laws[0] is not None:
        audit += _compare(laws[0], fitted, good)
    return IsoflopFit(budgets, *laws, fitted, audit, len(C))


def _budget(C, N, loss, trained, min_steps: int, level: float) -> Budget:
    flags = []
    if not trained.all():
        flags.append(f"{int((~trained).sum())} point(s) below {min_steps} steps left out")
    budget_c = float(np.exp(np.log(C).mean()))
    N, loss = N[trained], loss[trained]
    sizes = len(np.unique(N))
    if sizes < FEWEST_SIZES:
        flags.append("fewer than five sizes")
    if sizes < 3:
        return Budget(budget_c, None, None, None, None, flags, sizes, None, 0.0, False, N, loss)
    log_n = np.log10(N)
    centre = float(log_n.mean())
    u = log_n - centre
    design = np.stack([np.ones_like(u), u, u * u], 1)
    inverse = np.linalg.inv(design.T @ design)
    c = inverse @ (design.T @ loss)
    dof = len(u) - 3
    vertex = low = high = None
    if c[2] <= 0:
        flags.append("curvature not positive")
    else:
        vertex = float(-c[1] / (2 * c[2]))
    if dof > 0:
        residual = loss - design @ c
        covariance = inverse * float(residual @ residual) / dof
        t = t_quantile(level, dof)
        if c[2] > 0 and c[2] - t * np.sqrt(covariance[2, 2]) <= 0:
            flags.append("curvature interval includes 0")
        if c[2] > 0:
            turn = np.array([[0, -1, 0], [0, 0, 2.0]])
            interval = fieller(-c[1], 2 * c[2], turn @ covariance @ turn.T, t)
            if interval is not None:
                low, high = (float(10 ** np.clip(end + centre, -300, 300)) for end in interval)
    lowest = N[np.argmin(loss)]
    edge = vertex is not None and not u.min() < vertex < u.max()
    if edge or lowest in (N.min(), N.max()):
        flags.append("optimum at the grid's edge")
    depth = None if vertex is None else float(c[0] + c[1] * vertex + c[2] * vertex**2)
    usable = vertex is not None and not edge and depth > 0
    n_opt = None if vertex is None or abs(vertex + centre) > 300 else float(10 ** (vertex + centre))
    return Budget(budget_c, n_opt, low, high, depth, flags, sizes, tuple(map(float, c)), centre, usable, N, loss)


def _audit_budgets(budgets: list[Budget], good: list[Budget]) -> list[dict]:
    found = []
    flagged = [budget for budget in budgets if budget.flags]
    for budget in flagged:
        found.append(finding("budget", "warning", f"C = {budget.C:.3g} FLOPs: {'; '.join(budget.flags)}.", C=budget.C))
    if len(good) < LEAST_POINTS:
        found.append(finding(
            "law", "fail",
            f"No law through the vertices: {len(good)} usable budget(s); a law needs at least "
            f"{LEAST_POINTS}."))  # fmt: skip
    elif len(good) < len(budgets):
        out = ", ".join(f"{budget.C:.3g}" for budget in budgets if not budget.usable)
        found.append(
            finding("law", "warning", f"Budgets without an interior minimum are not in the law: C = {out} FLOPs.")
        )
    if good:
        c = [budget.C for budget in good]
        decades = float(np.log10(max(c) / min(c)))
        found.append(finding("range", "ok" if decades >= 1 else "warning",
                             f"The usable budgets span {decades:.2f} orders of magnitude of C.",
                             decades=decades))  # fmt: skip
    return found


def _compare(law: PowerFit, fitted: SurfaceFit, good: list[Budget]) -> list[dict]:
    low, high = fitted.huber.intervals["a"]
    apart = not (law.low <= high and low <= law.high)
    found = [finding(
        "parabola against surface", "warning" if apart else "ok",
        f"N_opt ∝ C^{law.exponent:.3f} [{law.low:.3f}, {law.high:.3f}] by parabolas, C^{fitted.huber.a:.3f} "
        f"[{low:.3f}, {high:.3f}] by the surface.", parabola=law.exponent, surface=fitted.huber.a)]  # fmt: skip
    shifts = [_bias(budget, fitted) for budget in good]
    shift, budget = max(zip(shifts, good, strict=True), key=lambda pair: abs(pair[0]))
    if np.isfinite(shift):
        half = 0.0 if budget.low is None or not budget.low else np.log(budget.high / budget.low) / 2
        found.append(finding(
            "parabola's bias", "warning" if abs(shift) > half / 2 else "ok",
            f"On a surface like the fitted one these grids shift the vertex by up to {100 * np.expm1(shift):+.2g}% "
            f"(at C = {budget.C:.2g} FLOPs): its interval does not know that.",
            shift=float(np.expm1(shift))))  # fmt: skip
    return found


def _bias(budget: Budget, fitted: SurfaceFit) -> float:
    """Log of (vertex of the parabola through the surface's own losses / the surface's N_opt), at the budget's sizes."""
    u = np.log10(budget.N) - budget.centre
    c = np.polyfit(u, fitted.huber.predict(budget.N, budget.C / (6 * budget.N)), 2)
    if c[0] <= 0:
        return np.nan
    return float((budget.centre - c[1] / (2 * c[0])) * np.log(10) - np.log(float(fitted.huber.n_opt(budget.C))))
