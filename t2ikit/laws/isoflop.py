"""isoFLOP analysis (Hoffmann et al. 2022, approach 2): a parabola in log N for each compute budget, its vertex with
Fieller's interval and quality flags, then the power laws N_opt(C), D_opt(C) through them, the surface beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from t2ikit.errors import UserError
from t2ikit.laws import checks
from t2ikit.laws.intervals import LEVEL, fieller, t_quantile
from t2ikit.laws.points import prepare
from t2ikit.laws.power import LEAST_POINTS, PowerFit, fit_power, widened
from t2ikit.laws.result import Result, finding, shown
from t2ikit.laws.surface import SurfaceFit, fit_surface

FEWEST_SIZES = 5
SHARED = "jackknife over runs, wider than Student's t over vertices"
WIDEST = 1.3  # from the least to the most compute of one budget
MIN_STEPS = 1000  # a size that never left its warm-up fakes the right arm of a parabola


@dataclass(frozen=True)
class Budget:
    """One budget: `C` FLOPs (geometric mean), vertex `N_opt` with its interval, the loss there, flags. Of the surface
    beside: its N_opt, and the bias of a parabola on this grid (relative shift of its vertex on the surface's losses).
    """

    C: float
    flags: list[str]
    sizes: int
    N: np.ndarray = field(repr=False)
    D: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    N_opt: float | None = None
    low: float | None = None
    high: float | None = None
    loss: float | None = None
    in_law: bool = False  # enters the law through the vertices
    surface_N_opt: float | None = None
    bias: float | None = None
    coefficients: tuple[float, float, float] | None = field(default=None, repr=False)  # c0 + c1·u + c2·u²
    centre: float = field(default=0.0, repr=False)  # u = log10(N) - centre


@dataclass(frozen=True)
class IsoflopFit(Result):
    """`n_opt`, `d_opt`, `loss_opt` are power laws in C, None where fewer than five budgets have a usable vertex; over
    runs that serve several budgets their intervals are no narrower than ± `jackknife` about the exponent."""

    budgets: list[Budget]
    n_opt: PowerFit | None
    d_opt: PowerFit | None
    loss_opt: PowerFit | None
    surface: SurfaceFit | None
    audit: list[dict]
    n: int
    jackknife: tuple[float, ...] | None = None  # of the three exponents in this order, 95% half-widths over runs
    chart_kind = "isoflop"
    title = "isoFLOP: N_opt (parameters) at each budget C (FLOPs)"

    def as_dict(self) -> dict:
        def law(fit: PowerFit | None) -> dict:
            keys = ("coefficient", "exponent", "low", "high", "n", "interval_method")
            return {key: None if fit is None else getattr(fit, key) for key in keys}

        return {
            "law": "isoflop", "units": "C in FLOPs, N in parameters, D in tokens", "n": self.n,
            "budgets": [shown(budget) for budget in self.budgets],
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


def mean_by_size(N: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different N in order and the mean of `values` at each."""
    sizes, which = np.unique(N, return_inverse=True)
    return sizes, np.bincount(which, values) / np.bincount(which)


def fit_isoflop(
    C: np.ndarray,  # FLOPs, [n]
    N: np.ndarray,  # parameters, [n]
    loss: np.ndarray,  # [n]
    *,
    D: np.ndarray | None = None,  # tokens, [n], for the surface; None = C / 6N
    steps: np.ndarray | None = None,  # [n] optimiser steps; points with fewer than min_steps are left out and flagged
    runs: np.ndarray | None = None,  # [n] labels; the points of one run are not independent
    min_steps: int = MIN_STEPS,
    seed: int = 0,
    resamples: int = 4000,  # of the surface's bootstrap
    surface: bool = True,
) -> IsoflopFit:
    """Parabolas of the loss in log10 N, one for each group of points of equal C (within 10%), and their laws.

    Seeds of one size are averaged first: what keeps the size off the parabola is common to them, so that a second seed
    is no second point. A vertex is the ratio -c1/2c2 of two Gaussian estimates, so Fieller's interval is exact for a
    true parabola; it is None (unbounded) when the curvature's interval includes 0. Parabolas are biased where α ≠ β or
    the grid is off centre: compare `surface`. Where one run has points at several budgets, the vertices share its luck:
    the laws' intervals are then the wider of Student's t over vertices and the jackknife over runs (Efron & Stein 1981;
    docs/laws_coverage.md). Raises UserError for fewer than five points, or when no budget has three sizes.
    """
    labels = None if runs is None else 1 + np.unique(np.asarray(runs).astype(str), return_inverse=True)[1]
    columns = {"C": C, "N": N, "loss": loss, "D": D, "steps": steps, "runs": labels}
    (C, N, loss, D, steps, runs), _, _ = prepare(columns, "an isoFLOP fit", LEAST_POINTS)
    D = C / (6 * N) if D is None else D
    steps = np.full(len(C), min_steps) if steps is None else steps
    trained, labels = steps >= min_steps, group_budgets(C)
    groups = [labels == k for k in range(labels.max() + 1)]
    for group in groups:
        if C[group].max() > WIDEST * C[group].min():
            ends = f"{C[group].min():.2g} to {C[group].max():.2g}"
            raise UserError(f"C runs from {ends} FLOPs in steps below 10%, so no budget ends: keep the points of "
                            "a few budgets, or fit `surface`.")  # fmt: skip
    most = max(len(np.unique(N[group])) for group in groups)
    if most < 3:
        raise UserError(f"No budget has three model sizes ({len(groups)} budgets of at most {most}): a parabola needs "
                        "five sizes at the same C (FLOPs, within 10%); fit `surface` instead.")  # fmt: skip
    budgets = [_budget(C[g], N[g], D[g], loss[g], trained[g], min_steps) for g in groups]
    audit, fitted = [], None
    if surface:
        try:
            shared = None if runs is None else runs[trained]
            fitted = fit_surface(N[trained], D[trained], loss[trained], runs=shared, seed=seed, resamples=resamples)
            fitted.audit.extend(checks.of_surface(fitted))
            budgets = [_beside(budget, fitted) for budget in budgets]
        except UserError as error:
            audit.append(finding("surface", "note", f"No surface beside the parabolas: {error}"))
    good = [budget for budget in budgets if budget.in_law]
    laws: list[PowerFit | None] = [None, None, None]
    halves = None
    if len(good) >= LEAST_POINTS:
        c, *columns = vertices(good)
        labels = ("N_opt (parameters)", "D_opt (tokens)", "loss at N_opt")
        laws = [fit_power(c, v, x_label="C (FLOPs)", y_label=y) for v, y in zip(columns, labels, strict=True)]
        audit = [line for line in laws[0].audit if line["check"] != "range"] + audit
        if runs is not None and len(np.unique(runs[trained])) < trained.sum():
            halves = _over_runs(runs, [(g, C[g], N[g], D[g], loss[g], trained[g]) for g in groups], min_steps)
    if halves is not None:
        *halves, bend = halves
        laws = [widened(law, half, SHARED) for law, half in zip(laws, halves, strict=True)]
        laws[2] = replace(laws[2], shared_bend=bend)
    found = _audit(budgets, good, laws[0], fitted) + audit
    return IsoflopFit(budgets, *laws, fitted, found, len(C), None if halves is None else tuple(halves))


def vertices(good: Sequence[Budget]) -> np.ndarray:
    """C, N_opt, D_opt and the loss at each vertex [4, B]."""
    return np.array([(b.C, b.N_opt, b.C / (6 * b.N_opt), b.loss) for b in good]).T


def _over_runs(runs: np.ndarray, groups: list[tuple], min_steps: int) -> tuple[float, ...] | None:
    """Half-widths of the three exponents and of the loss's bend by the jackknife that leaves out one run at a time,
    with Student's t of one degree of freedom less than there are runs; None where without some run fewer than three
    vertices are left, infinite of the bend where fewer than four."""
    exponents, labels = [], np.unique(runs)
    for label in labels:
        left = [_budget(*(v[runs[g] != label] for v in of), min_steps) for g, *of in groups if (runs[g] != label).any()]
        good = [b for b in left if b.in_law]
        if len(good) < 3:
            return None
        c, *columns = np.log(vertices(good))
        bend = 2 * np.log(10) * np.polyfit(c, columns[2], 2)[0] if len(good) > 3 else np.nan
        exponents.append([*(np.polyfit(c, v, 1)[0] for v in columns), bend])
    k = len(labels)
    error = np.sqrt((k - 1) * np.var(exponents, axis=0))
    return tuple(float(v) for v in t_quantile(LEVEL, k - 1) * np.nan_to_num(error, nan=np.inf))


def _budget(C, N, D, loss, trained, min_steps: int) -> Budget:
    flags = []
    if not trained.all():
        flags.append(f"{int((~trained).sum())} point(s) below {min_steps} steps left out")
    N, D, loss = N[trained], D[trained], loss[trained]
    sizes, mean = mean_by_size(N, loss)
    if len(sizes) < FEWEST_SIZES:
        flags.append("fewer than five sizes")
    plain = Budget(float(np.exp(np.log(C).mean())), flags, len(sizes), N, D, loss)
    if len(sizes) < 3:
        return plain
    centre = float(np.log10(sizes).mean())
    u = np.log10(sizes) - centre
    design = np.stack([np.ones_like(u), u, u * u], 1)
    inverse = np.linalg.inv(design.T @ design)
    c = inverse @ (design.T @ mean)
    vertex = depth = low = high = covariance = t = None
    dof, residual = len(u) - 3, mean - design @ c
    if dof > 0:
        covariance, t = inverse * float(residual @ residual) / dof, t_quantile(LEVEL, dof)
    if c[2] <= 0:
        flags.append("curvature not positive")
        if dof > 0 and c[2] < -t * np.sqrt(covariance[2, 2]):
            flags.append("curvature interval below 0")
    else:
        vertex = float(-c[1] / (2 * c[2]))
        depth = float(c[0] + c[1] * vertex + c[2] * vertex**2)
        if dof > 0:
            if c[2] <= t * np.sqrt(covariance[2, 2]):
                flags.append("curvature interval includes 0")
            turn = np.array([[0, -1, 0], [0, 0, 2.0]])
            interval = fieller(-c[1], 2 * c[2], turn @ covariance @ turn.T, t)
            if interval is not None:
                low, high = (float(10 ** np.clip(end + centre, -300, 300)) for end in interval)
    edge = vertex is not None and not u.min() < vertex < u.max()
    if edge or np.argmin(mean) in (0, len(mean) - 1):
        flags.append("optimum at the grid's edge")
    return replace(
        plain, N_opt=None if vertex is None or abs(vertex + centre) > 300 else float(10 ** (vertex + centre)),
        low=low, high=high, loss=depth, coefficients=tuple(map(float, c)), centre=centre,
        in_law=vertex is not None and not edge and depth > 0,
    )  # fmt: skip


def _beside(budget: Budget, fitted: SurfaceFit) -> Budget:
    """The surface's N_opt, and where a parabola through the surface's own losses at the budget's sizes puts it."""
    law = fitted.huber
    if budget.coefficients is None or not law.has_optimum:
        return budget
    best = float(law.n_opt(6 * np.exp(np.log(budget.N * budget.D).mean())))
    c2, c1, _ = np.polyfit(np.log10(budget.N) - budget.centre, law.predict(budget.N, budget.D), 2)
    bias = float(10 ** (budget.centre - c1 / (2 * c2)) / best - 1) if c2 > 0 else None
    return replace(budget, surface_N_opt=best, bias=bias)


def _audit(budgets: list[Budget], good: list[Budget], law: PowerFit | None, fitted: SurfaceFit | None) -> list[dict]:
    found = [
        finding("budget", "warning", f"C = {budget.C:.3g} FLOPs: {'; '.join(budget.flags)}.", C=budget.C)
        for budget in budgets if budget.flags
    ]  # fmt: skip
    if law is None:
        found.append(finding("law", "fail", f"No law through the vertices: {len(good)} usable budget(s); a law needs "
                             f"at least {LEAST_POINTS}."))  # fmt: skip
    elif len(good) < len(budgets):
        out = ", ".join(f"{budget.C:.3g}" for budget in budgets if not budget.in_law)
        text = f"Budgets without an interior minimum are not in the law: C = {out} FLOPs."
        found.append(finding("law", "warning", text))
    if good:
        decades = float(np.log10(good[-1].C / good[0].C))
        text = f"The usable budgets span {decades:.2f} orders of magnitude of C."
        found.append(finding("range", "ok" if decades >= 1 else "warning", text, decades=decades))
    if law is not None and fitted is not None:
        low, high = fitted.huber.intervals["a"]
        together = law.low <= high and low <= law.high
        found.append(finding(
            "parabola against surface", "ok" if together else "warning",
            f"N_opt ∝ C^{law.exponent:.3f} [{law.low:.3f}, {law.high:.3f}] by parabolas, C^{fitted.huber.a:.3f} "
            f"[{low:.3f}, {high:.3f}] by the surface.", parabola=law.exponent, surface=fitted.huber.a))  # fmt: skip
    biased = [budget for budget in good if budget.bias is not None]
    if biased:
        worst = max(biased, key=lambda budget: abs(budget.bias))
        half = np.sqrt(worst.high / worst.low) - 1 if worst.low else 0.0
        beta_above = fitted.huber.beta > fitted.huber.alpha
        found.append(finding(
            "parabola's bias", "warning" if abs(worst.bias) > half / 4 else "ok",
            f"Parabolas are biased where alpha ≠ beta (here {fitted.huber.alpha:.3g} {'<' if beta_above else '>'} "
            f"{fitted.huber.beta:.3g}) or the grid is off centre: on the surface's own losses these sizes shift the "
            f"vertex by up to {100 * worst.bias:+.2g}% (at C = {worst.C:.2g} FLOPs, where its interval is "
            f"± {100 * half:.2g}% and does not know of it); the surface's N_opt stands beside.",
            shift=worst.bias, half_width=float(half)))  # fmt: skip
    return found
