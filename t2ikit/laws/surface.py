"""The loss surface L(N, D) = E + A/N^α + B/D^β (Hoffmann et al. 2022, approach 3), fitted in two ways side by side:
Huber on log residuals (multiplicative noise) and variable projection on raw residuals (additive noise)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from t2ikit.errors import UserError
from t2ikit.laws.intervals import LEVEL, bootstrap_counts, exp
from t2ikit.laws.points import prepare, told_apart
from t2ikit.laws.profile import ROBUST_FROM, Curvature, Problem, backed, best_fit
from t2ikit.laws.result import Result, shown

DELTA = 1e-3  # of Huber's function, on log residuals
LEAST_POINTS = 7  # five parameters and two degrees of freedom
METHODS = {
    "profile": "profile against F(1, n - 5) for alpha, beta, E; delta method with t(n - 5) for A, B, a",
    "sandwich": "HC2 sandwich with Bell-McCaffrey degrees of freedom (Huber: Powell's kernel weights)",
    "cluster": "CR2 over runs with Bell-McCaffrey degrees of freedom",
}


@dataclass(frozen=True)
class Estimate:
    """One way of fitting. Intervals are 95%; `bootstrap` is the percentile bootstrap over points or runs."""

    A: float
    B: float
    E: float
    alpha: float
    beta: float
    objective: float
    intervals: dict[str, tuple[float | None, float | None]]
    bootstrap: dict[str, tuple[float, float]]
    converged: float  # share of point fit and resamples whose optimum was reached
    interval_method: str
    claimed: bool
    curvature: Curvature = field(repr=False)
    centre: tuple[float, float] = field(repr=False)  # means of log N and log D

    @property
    def a(self) -> float:
        """N_opt ∝ C^a."""
        return self.beta / (self.alpha + self.beta)

    def predict(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Loss at `n` parameters and `d` tokens."""
        return self.E + self.A / np.asarray(n, float) ** self.alpha + self.B / np.asarray(d, float) ** self.beta

    def n_opt(self, c: np.ndarray | float) -> np.ndarray:
        """Parameters that minimise the loss at `c` = 6ND FLOPs; UserError where there is no optimum."""
        self.require_optimum()
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return g * (np.asarray(c, float) / 6) ** self.a

    def d_opt(self, c: np.ndarray | float) -> np.ndarray:
        """Tokens that go with `n_opt(c)`."""
        return np.asarray(c, float) / (6 * self.n_opt(c))

    @property
    def has_optimum(self) -> bool:
        """Whether the loss falls with both N and D."""
        return self.alpha > 0 and self.beta > 0

    def require_optimum(self) -> None:
        """UserError where the loss does not fall with both N and D."""
        if not self.has_optimum:
            raise UserError(f"The fitted loss does not fall with both N and D (alpha {self.alpha:.3g}, beta "
                            f"{self.beta:.3g}): there is no optimum; add runs, or read the fit's audit.")  # fmt: skip

    def n_opt_interval(self, c: float) -> tuple[float, float]:
        """Interval of N_opt at `c` FLOPs, by the delta method in logs with Student's t; UserError as for `n_opt`."""
        centre, half = np.log(float(self.n_opt(c))), self.curvature.half_width(self.n_opt_slope(c))
        return exp(centre - half), exp(centre + half)

    def n_opt_slope(self, c: float) -> np.ndarray:
        """Derivative of log N_opt(c) by the five centred parameters."""
        theta, (x0, y0) = self.curvature.theta, self.centre
        log_a, log_b, alpha, beta = theta[0] + theta[3] * x0, theta[1] + theta[4] * y0, theta[3], theta[4]
        total = alpha + beta
        top = np.log(alpha / beta) + log_a - log_b + beta * np.log(c / 6)
        return np.array([1 / total, -1 / total, 0.0, (1 / alpha + x0) / total - top / total**2,
                         (-1 / beta - y0 + np.log(c / 6)) / total - top / total**2])  # fmt: skip

    def prediction_interval(self, n: float, d: float, *, new_run: bool = True) -> tuple[float, float]:
        """Where the loss of one new run at (n, d) lies: variance of the law there plus that of a single run (the law's
        alone without `new_run`)."""
        return self.curvature.band(np.log(n) - self.centre[0], np.log(d) - self.centre[1], new_point=new_run)

    def as_dict(self) -> dict:
        kind = "raw (additive noise)" if self.curvature.problem.additive else "log (multiplicative noise)"
        return shown(self) | {"residual_sd": self.curvature.spread, "residuals": kind}


@dataclass(frozen=True)
class SurfaceFit(Result):
    """Both estimates of one table; `huber` is the one that plans use."""

    huber: Estimate
    vpnls: Estimate
    n: int
    N: np.ndarray = field(repr=False)
    D: np.ndarray = field(repr=False)
    loss: np.ndarray = field(repr=False)
    hold_out: dict | None = None
    audit: list[dict] = field(default_factory=list)
    chart_kind = "surface"
    title = "L(N, D) = E + A/N^α + B/D^β (N parameters, D tokens)"

    def as_dict(self) -> dict:
        a, b = (self.huber.a, 1 - self.huber.a) if self.huber.has_optimum else (None, None)
        return {
            "law": "surface", "form": "loss = E + A/N^alpha + B/D^beta; N in parameters, D in tokens", "n": self.n,
            "huber": self.huber.as_dict(), "vpnls": self.vpnls.as_dict(),
            "allocation": {"a": a, "b": b, "a_interval": self.huber.intervals["a"] if a else (None, None),
                           "a_vpnls": self.vpnls.a if self.vpnls.has_optimum else None},
            "hold_out": self.hold_out, "audit": self.audit,
        }  # fmt: skip


def fit_surface(
    N: np.ndarray,  # parameters, [n]
    D: np.ndarray,  # tokens, [n]
    loss: np.ndarray,  # [n]
    *,
    weights: np.ndarray | None = None,  # [n] relative precisions; None = equal
    runs: np.ndarray | None = None,  # [n] labels; the points of one run are one cluster in every interval
    seed: int = 0,  # of the bootstrap
    resamples: int = 4000,  # 0 skips the bootstrap
) -> SurfaceFit:
    """Fit the surface by Huber in logs and by variable projection. Order of rows changes no digit.

    Intervals (METHODS says which was used): in small tables with even noise the profiled objective against F(1, n - 5);
    otherwise sandwich variances with Student's t; with `runs`, clustered by run. The percentile bootstrap of the
    literature is reported beside them. Raises UserError for fewer than seven points, or where
    N and D do not vary independently.
    """
    columns = {"N": N, "D": D, "loss": loss}
    (n, d, losses), w, clusters = prepare(columns, "a surface", LEAST_POINTS, weights=weights, runs=runs)
    _check(n, d, losses)
    x, y = np.log(n), np.log(d)
    centre = float(x.mean()), float(y.mean())
    x, y = x - centre[0], y - centre[1]
    starts = projection_starts(x, y, losses, w)
    estimates = []
    for additive in (False, True):
        problem = Problem(x, y, losses, w, DELTA, additive, np.ones(5, bool), clusters)
        estimates.append(_estimate(problem, starts, centre, seed, resamples))
    return SurfaceFit(*estimates, n=len(w), N=n, D=d, loss=losses)


def _check(n: np.ndarray, d: np.ndarray, loss: np.ndarray) -> None:
    if np.ptp(loss) <= 1e-9 * loss.max():
        raise UserError(f"All losses are {loss[0]:g}: nothing depends on N or D here; give the measured losses.")
    for name, values in (("N", n), ("D", d)):
        if len(np.unique(values)) < 3:
            raise UserError(f"{name} takes {len(np.unique(values))} value(s): a surface needs three; fit a power law.")
    told_apart(n, d, "A/N^alpha and B/D^beta")


def projection_starts(x: np.ndarray, y: np.ndarray, loss: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Variable projection: with (α, β) fixed, (A, B, E) are linear and non-negative. The 24 best of a grid, [24, 5]."""
    from scipy.optimize import nnls

    grid = (0.02, 0.05, 0.1, 0.16, 0.23, 0.3, 0.38, 0.47, 0.58, 0.72, 0.95, 1.3, 1.9)
    root, found = np.sqrt(w), []
    for alpha, beta in itertools.product(grid, grid):
        design = np.stack([np.exp(-alpha * x), np.exp(-beta * y), np.ones_like(x)], 1)
        coefficients, norm = nnls(design * root[:, None], loss * root)
        found.append((norm, *np.log(np.maximum(coefficients, 1e-3 * loss.mean())), alpha, beta))
    return np.array(sorted(found))[:24, 1:]


def _estimate(problem: Problem, starts: np.ndarray, centre: tuple, seed: int, resamples: int) -> Estimate:
    if not problem.additive:  # least squares in logs first: Huber with a small δ is nearly L1 and has more local minima
        starts = np.concatenate([starts, problem.solve(starts, delta=np.inf).theta])
    bent, found, converged = best_fit(problem, starts, [2, 3, 4])
    theta, (x0, y0) = bent.theta, centre
    intervals = {
        "A": _exp(bent.wald(np.array([1, 0, 0, x0, 0.0]))),
        "B": _exp(bent.wald(np.array([0, 1, 0, 0, y0]))),
        "E": _exp(found[2]), "alpha": found[3], "beta": found[4], "a": _allocation(bent),
    }  # fmt: skip
    share, bootstrap = 1.0, {}
    if resamples:
        counts = bootstrap_counts(len(problem.x), resamples, seed, problem.clusters)
        rows = problem.solve(theta, weights=counts if np.all(problem.weights == 1) else counts * problem.weights)
        share, bootstrap = float(rows.converged.mean()), _percentiles(rows.theta, centre)
    return Estimate(
        A=exp(theta[0] + theta[3] * x0), B=exp(theta[1] + theta[4] * y0), E=exp(theta[2]), alpha=float(theta[3]),
        beta=float(theta[4]), objective=bent.objective, intervals=intervals, bootstrap=bootstrap,
        converged=share if converged else 0.0, interval_method=METHODS[bent.kind], claimed=claims(bent),
        curvature=bent, centre=centre,
    )  # fmt: skip


def claims(bent: Curvature) -> bool:
    """Whether docs/laws_coverage.md measured 93-97% for such a table."""
    problem = bent.problem
    if not backed(bent):
        return False
    if problem.clusters is not None:
        return problem.additive and int(problem.clusters.max()) + 1 >= 12  # Huber's is wider than it need be
    n = len(problem.x)
    if problem.additive:
        return n >= 60 and not bent.uneven
    return n >= 16 and not ROBUST_FROM <= n < 240  # there its sandwich covers 98%


def _exp(pair: tuple[float | None, float | None]) -> tuple[float, float | None]:
    low, high = pair
    top = np.inf if high is None else exp(high)
    return (0.0 if low is None else exp(low)), (top if np.isfinite(top) else None)


def _allocation(bent: Curvature) -> tuple[float, float]:
    """Interval of a = β/(α + β): Student's t on log(β/α), then the logistic function."""
    alpha, beta = bent.theta[3], bent.theta[4]
    if alpha <= 0 or beta <= 0:
        return float("nan"), float("nan")
    half = bent.half_width(np.array([0, 0, 0, -1 / alpha, 1 / beta]))
    return tuple(float(expit(np.log(beta / alpha) + sign * half)) for sign in (-1, 1))


def _percentiles(draws: np.ndarray, centre: tuple[float, float]) -> dict[str, tuple[float, float]]:
    a, b, e, alpha, beta = draws.T
    logs = {"A": a + alpha * centre[0], "B": b + beta * centre[1], "E": e}
    named = {name: np.exp(np.clip(values, -700, 700)) for name, values in logs.items()}
    named |= {"alpha": alpha, "beta": beta, "a": beta / (alpha + beta)}
    ends = [50 * (1 - LEVEL), 50 * (1 + LEVEL)]
    return {name: tuple(np.percentile(values, ends).tolist()) for name, values in named.items()}
