"""Power laws y = a·x^b (+ c), on log or raw residuals, with intervals that hold from five points on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from t2ikit.errors import UserError, choose
from t2ikit.laws import batch, checks
from t2ikit.laws.intervals import LEVEL, exp, t_quantile
from t2ikit.laws.points import prepare
from t2ikit.laws.profile import ROBUST_FROM, Curvature, Problem, backed, best_fit
from t2ikit.laws.result import Result, shown

LEAST_POINTS = 5
METHODS = {
    "t": "Student's t, n - 2 degrees of freedom",
    "profile": "profiled sum of squares against F(1, n - p)",
    "sandwich": "HC2 sandwich with Bell-McCaffrey degrees of freedom",
    "cluster": "CR2 over runs with Bell-McCaffrey degrees of freedom",
}


@dataclass(frozen=True)
class PowerFit(Result):
    """y = coefficient·x^exponent + offset. `low`, `high`: the exponent's interval (None: unbounded)."""

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
    level: float  # 0.95
    x_label: str = field(repr=False)  # name with unit
    y_label: str = field(repr=False)
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    curvature: Curvature = field(repr=False)
    centre: float = field(repr=False)  # mean of log x
    shared_bend: float = 0.0  # what points that share runs widen the interval of `bend` to, at least
    hold_out: dict | None = None  # the largest x predicted from the rest, where a file was read
    audit: list[dict] = field(default_factory=list)
    chart_kind = "power"
    title = "y = a·x^b"

    def predict(self, x: np.ndarray | float) -> np.ndarray:
        """y at `x`."""
        return self.coefficient * np.asarray(x, float) ** self.exponent + (self.offset or 0.0)

    def band(self, x: float, *, new_point: bool = False) -> tuple[float, float]:
        """Interval of the law at `x`; with `new_point`, of one more measurement there (wider by the noise)."""
        return self.curvature.band(np.log(x) - self.centre, 0.0, new_point=new_point)

    def bend(self) -> tuple[float, float, float] | None:
        """How much the log-log slope changes over a decade of x, with its 95% interval by Student's t: the quadratic
        term of a parabola through the points. An interval without 0 says that no power law describes them. None with
        an offset, whose law bends of itself, for raw residuals, weighted points, points that share runs, or fewer than
        four different x."""
        problem = self.curvature.problem
        plain = (
            problem.clusters is None
            and np.ptp(problem.weights) == 0
            and self.residuals == "log"
            and self.offset is None
        )
        if not plain or len(np.unique(self.x)) < 4:
            return None
        u = np.log10(self.x) - np.log10(self.x).mean()
        design = np.stack([np.ones(self.n), u, u**2], 1)
        found, *_ = np.linalg.lstsq(design, np.log10(self.y), rcond=None)
        residual = np.log10(self.y) - design @ found
        variance = residual @ residual / (self.n - 3) * np.linalg.inv(design.T @ design)[2, 2]
        rounding = 1e-9  # of an exact law
        middle, half = 2 * float(found[2]), 2 * t_quantile(LEVEL, self.n - 3) * float(variance) ** 0.5 + rounding
        half = max(half, self.shared_bend)
        return middle, middle - half, middle + half

    def as_dict(self) -> dict:
        form = f"{self.y_label} = coefficient * ({self.x_label})^exponent + offset"
        return {"law": "power", "form": form, "x": self.x_label, "y": self.y_label,
                "residual_sd": self.curvature.spread} | shown(self)  # fmt: skip


def fit_power(
    x: np.ndarray,  # [n], positive
    y: np.ndarray,  # [n], positive
    *,
    residuals: str = "log",  # log: multiplicative noise; raw: additive noise
    offset: bool = False,  # fit c ≥ 0 as well; a > 0 always
    weights: np.ndarray | None = None,  # [n] relative precisions
    runs: np.ndarray | None = None,  # [n] labels; the points of one run are one cluster
    x_label: str = "x",
    y_label: str = "y",
) -> PowerFit:
    """Least squares on log or raw residuals.

    Exponent's interval: Student's t with n - 2 degrees of freedom for log residuals without offset (exact for Gaussian
    noise at any n), the profiled sum of squares against F(1, n - p) otherwise, HC2 where the noise is uneven, CR2 over
    `runs`. Raises UserError for fewer than five points, five runs, or three different x.
    """
    choose("kind of residuals", residuals, ["log", "raw"])
    law, least = ("a power law with an offset", 4) if offset else ("a power law", 3)
    (x, y), w, clusters = prepare({x_label: x, y_label: y}, law, LEAST_POINTS, weights=weights, runs=runs)
    if len(np.unique(x)) < least:
        raise UserError(f"x takes {len(np.unique(x))} different value(s): {law} needs at least {least}.")
    centre = float(np.log(x).mean())
    u = np.log(x) - centre
    free = np.array([True, False, offset, True, False])
    problem = Problem(u, np.zeros_like(u), y, w, np.inf, residuals == "raw", free, clusters)
    bent, found, _ = best_fit(problem, _starts(u, y, offset), [2, 3] if offset else [3])
    theta, (low, high) = bent.theta, found[3]
    floor = None
    if offset:
        floor = tuple(missing if end is None else exp(end) for end, missing in zip(found[2], (0.0, None), strict=True))
    fit = PowerFit(
        coefficient=exp(theta[0] + theta[3] * centre), exponent=float(-theta[3]),
        offset=exp(theta[2]) if offset else None, low=None if high is None else -high,
        high=None if low is None else -low, offset_interval=floor, n=len(x), residuals=residuals, level=LEVEL,
        coefficient_interval=tuple(exp(end) for end in bent.wald(np.array([1, 0, 0, centre, 0.0]))),
        interval_method=METHODS[bent.kind],
        claimed=not offset if clusters is not None else backed(bent) and (not bent.uneven or len(x) >= ROBUST_FROM),
        x_label=x_label, y_label=y_label, x=x, y=y, curvature=bent, centre=centre,
    )  # fmt: skip
    fit.audit.extend(checks.of_power(fit))
    return fit


def widened(fit: PowerFit, half: float, method: str) -> PowerFit:
    """`fit` with an interval of its exponent of at least ± `half`, its coefficient's widened likewise in logs; `method`
    says where that comes from."""
    if fit.low is None or fit.high is None or half <= (fit.high - fit.low) / 2:
        return fit
    more, middle = 2 * half / max(fit.high - fit.low, 1e-300), np.log(fit.coefficient)
    ends = tuple(exp(middle + more * (np.log(max(end, 1e-300)) - middle)) for end in fit.coefficient_interval)
    return replace(fit, low=fit.exponent - half, high=fit.exponent + half, coefficient_interval=ends,
                   interval_method=method)  # fmt: skip


def _starts(u: np.ndarray, y: np.ndarray, offset: bool) -> np.ndarray:
    """A log-log line through y - c for several floors c [S, 5]."""
    rows = []
    for share in (0.01, 0.3, 0.6, 0.85, 0.95, 0.99) if offset else (0.0,):
        slope, level = np.polyfit(u, np.log(y - share * y.min()), 1)
        rows.append([level, batch.OFF, np.log(share * y.min()) if offset else batch.OFF, -slope, 0.0])
    return np.array(rows)
