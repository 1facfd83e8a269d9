"""Power laws y = a·x^b (+ c), on log or raw residuals, with intervals that hold from five points on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from t2ikit.errors import UserError, choose
from t2ikit.laws import batch, checks
from t2ikit.laws.intervals import exp, t_quantile
from t2ikit.laws.profile import Curvature, Problem, curvature, profile
from t2ikit.laws.result import Result

LEAST_POINTS = 5


@dataclass(frozen=True)
class PowerFit(Result):
    """y = coefficient·x^exponent + offset. `low`, `high`: the exponent's interval at `level` (None: unbounded)."""

    coefficient: float
    exponent: float
    offset: float | None  # None: not fitted
    low: float | None
    high: float | None
    coefficient_interval: tuple[float, float]
    offset_interval: tuple[float | None, float | None] | None
    n: int
    residuals: str
    interval_method: str
    claimed: bool  # docs/laws_coverage.md measured 93-97% for such a table
    level: float
    x_label: str  # name with unit
    y_label: str
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    curvature: Curvature = field(repr=False)
    centre: float = field(repr=False)  # mean of log x
    hold_out: dict | None = None  # the largest x predicted from the rest, where a file was read
    audit: list[dict] = field(default_factory=list)
    chart_kind = "power"
    title = "y = a·x^b"

    def predict(self, x: np.ndarray | float) -> np.ndarray:
        """y at `x`."""
        return self.coefficient * np.asarray(x, float) ** self.exponent + (self.offset or 0.0)

    def band(self, x: float, *, new_point: bool = False) -> tuple[float, float]:
        """Interval of the law at `x`; with `new_point`, of one more measurement there (wider by the noise)."""
        bent = self.curvature
        fitted, slope = batch.jacobian(bent.theta, np.log([x]) - self.centre, np.zeros(1))
        slope = np.where(bent.problem.free, slope[0], 0.0)
        raw = bent.problem.additive
        variance, dof = bent.variance(slope if raw else slope / fitted[0])
        half = t_quantile(self.level, dof) * np.sqrt(variance + (bent.spread**2 if new_point else 0.0))
        if raw:
            return float(fitted[0] - half), float(fitted[0] + half)
        return float(fitted[0]) * exp(-half), float(fitted[0]) * exp(half)

    def as_dict(self) -> dict:
        return {
            "law": "power", "form": f"{self.y_label} = coefficient * ({self.x_label})^exponent + offset",
            "coefficient": self.coefficient, "exponent": self.exponent, "offset": self.offset,
            "low": self.low, "high": self.high, "coefficient_interval": self.coefficient_interval,
            "offset_interval": self.offset_interval, "n": self.n, "level": self.level, "residuals": self.residuals,
            "residual_sd": self.curvature.spread, "interval_method": self.interval_method, "claimed": self.claimed,
            "x": self.x_label, "y": self.y_label, "hold_out": self.hold_out,
            "audit": self.audit,
        }  # fmt: skip


def fit_power(
    x: np.ndarray,  # [n], positive
    y: np.ndarray,  # [n], positive
    *,
    residuals: str = "log",  # log: multiplicative noise; raw: additive noise
    offset: bool = False,  # fit c ≥ 0 as well; a > 0 always
    weights: np.ndarray | None = None,  # [n] relative precisions
    runs: np.ndarray | None = None,  # [n] labels; the points of one run are one cluster
    level: float = 0.95,
    x_label: str = "x",
    y_label: str = "y",
) -> PowerFit:
    """Least squares on log or raw residuals.

    Exponent's interval: Student's t with n - 2 degrees of freedom for log residuals without offset (exact for Gaussian
    noise at any n), the profiled sum of squares against F(1, n - p) otherwise, HC2 where the noise is uneven, CR2 over
    `runs`. Raises UserError for fewer than five points, five runs, or three different x.
    """
    choose("kind of residuals", residuals, ["log", "raw"])
    x, y, w, clusters = _prepare(x, y, weights, runs, offset)
    log_x = np.log(x)
    centre = float(log_x.mean())
    u = log_x - centre
    free = np.array([True, False, offset, True, False])
    problem = Problem(u, np.zeros_like(u), y, w, np.inf, residuals == "raw", free, clusters)
    starts = _starts(u, y, offset)
    while True:
        fits = problem.solve(starts, tolerance=1e-20)
        best = int(np.argmin(fits.objective))
        theta, objective = fits.theta[best], float(fits.objective[best])
        bent = curvature(problem, theta, objective)
        linear = residuals == "log" and not offset
        kind = "cluster" if clusters is not None else "sandwich" if bent.robust else "t" if linear else "profile"
        indices = [2, 3] if offset else [3]
        if kind != "profile":
            found, better = {j: bent.wald(np.eye(5)[j], level) for j in indices}, None
        else:
            found, better = profile(bent, indices, level)
        if better is None:
            break
        starts = np.stack([better, theta])
    low, high = (None if end is None else -end for end in reversed(found[3]))
    coefficient = tuple(exp(end) for end in bent.wald(np.array([1, 0, 0, centre, 0.0]), level))
    floor = None
    if offset:
        floor = tuple(missing if end is None else exp(end) for end, missing in zip(found[2], (0.0, None), strict=True))
    fit = PowerFit(
        coefficient=float(np.exp(theta[0] + theta[3] * centre)), exponent=float(-theta[3]),
        offset=float(np.exp(theta[2])) if offset else None, low=low, high=high, coefficient_interval=coefficient,
        offset_interval=floor, n=len(x), residuals=residuals, interval_method=METHODS[kind],
        claimed=clusters is None or not offset, level=level, x_label=x_label, y_label=y_label, x=x, y=y,
        curvature=bent, centre=centre,
    )  # fmt: skip
    fit.audit.extend(checks.of_power(fit))
    return fit


METHODS = {
    "t": "Student's t, n - 2 degrees of freedom",
    "profile": "profiled sum of squares against F(1, n - p)",
    "sandwich": "HC2 sandwich with Bell-McCaffrey degrees of freedom",
    "cluster": "CR2 over runs with Bell-McCaffrey degrees of freedom",
}


def _prepare(x, y, weights, runs, offset):
    x, y = np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    w = np.ones(len(x)) if weights is None else np.asarray(weights, float).ravel()
    if not len(x) == len(y) == len(w):
        raise UserError(f"x, y and weights differ in length: {len(x)}, {len(y)}, {len(w)}.")
    for name, values in (("x", x), ("y", y), ("weights", w)):
        if not np.all(np.isfinite(values) & (values > 0)):
            raise UserError(f"{name} holds a value that is not a positive number: drop that point.")
    if len(x) < LEAST_POINTS:
        raise UserError(f"{len(x)} points are too few for a power law: give at least {LEAST_POINTS}; two always fit.")
    least = 4 if offset else 3
    if len(np.unique(x)) < least:
        raise UserError(
            f"x takes {len(np.unique(x))} different value(s): a power law {'with an offset ' if offset else ''}"
            f"needs at least {least}."
        )
    labels = np.zeros(len(x), int) if runs is None else np.unique(np.asarray(runs).astype(str), return_inverse=True)[1]
    order = np.lexsort([labels, w, y, x])
    x, y, w, labels = x[order], y[order], w[order], labels[order]
    if runs is None or len(np.unique(labels)) == len(x):
        return x, y, w, None
    groups = int(labels.max()) + 1
    if groups < LEAST_POINTS:
        raise UserError(
            f"The {len(x)} points come from {groups} run(s): points of one run are one cluster, "
            f"and an interval needs at least {LEAST_POINTS} runs."
        )
    return x, y, w, np.unique(labels, return_inverse=True)[1]


def _starts(u: np.ndarray, y: np.ndarray, offset: bool) -> np.ndarray:
    """A log-log line through y - c for several floors c [S, 5]."""
    rows = []
    for share in (0.01, 0.3, 0.6, 0.85, 0.95, 0.99) if offset else (0.0,):
        slope, level = np.polyfit(u, np.log(y - share * y.min()), 1)
        rows.append([level, batch.OFF, np.log(share * y.min()) if offset else batch.OFF, -slope, 0.0])
    return np.array(rows)
