"""The loss surface L(N, D) = E + A/N^α + B/D^β (Hoffmann et al. 2022, approach 3), fitted in two ways side by side:
Huber on log residuals (multiplicative noise) and variable projection on raw residuals (additive noise)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from t2ikit.errors import UserError
from t2ikit.laws import batch
from t2ikit.laws.intervals import bootstrap_counts, exp, t_quantile
from t2ikit.laws.profile import Curvature, Problem, curvature, profile
from t2ikit.laws.projection import projection_starts
from t2ikit.laws.result import Result

LEAST_POINTS = 7  # five parameters and two degrees of freedom
METHODS = {
    "profile": "profile against F(1, n - 5) for alpha, beta, E; delta method with t(n - 5) for A, B, a",
    "sandwich": "HC2 sandwich with Bell-McCaffrey degrees of freedom (Huber: Powell's kernel weights)",
    "cluster": "CR2 over runs with Bell-McCaffrey degrees of freedom",
}


@dataclass(frozen=True)
class Estimate:
    """One way of fitting. Intervals are 95% (`level`); `bootstrap` is the percentile bootstrap over points or runs."""

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
    resamples: np.ndarray = field(repr=False)  # [R, 5] centred parameters

    @property
    def a(self) -> float:
        """N_opt ∝ C^a."""
        return self.beta / (self.alpha + self.beta)

    def predict(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Loss at `n` parameters and `d` tokens."""
        return self.E + self.A / np.asarray(n, float) ** self.alpha + self.B / np.asarray(d, float) ** self.beta

    def n_opt(self, c: np.ndarray | float) -> np.ndarray:
        """Parameters that minimise the loss at `c` = 6ND FLOPs."""
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return g * (np.asarray(c, float) / 6) ** self.a

    def d_opt(self, c: np.ndarray | float) -> np.ndarray:
        """Tokens that go with `n_opt(c)`."""
        return np.asarray(c, float) / (6 * self.n_opt(c))

    def n_opt_interval(self, c: float, level: float = 0.95) -> tuple[float, float]:
        """Interval of N_opt at `c` FLOPs, by the delta method in logs with Student's t."""
        variance, dof = self.curvature.variance(self.n_opt_slope(c))
        half = t_quantile(level, dof) * np.sqrt(variance)
        centre = np.log(float(self.n_opt(c)))
        return exp(centre - half), exp(centre + half)

    def n_opt_slope(self, c: float) -> np.ndarray:
        """Derivative of log N_opt(c) by the five centred parameters."""
        theta, (x0, y0) = self.curvature.theta, self.centre
        log_a, log_b, alpha, beta = theta[0] + theta[3] * x0, theta[1] + theta[4] * y0, theta[3], theta[4]
        total = alpha + beta
        top = np.log(alpha / beta) + log_a - log_b + beta * np.log(c / 6)
        return np.array([1 / total, -1 / total, 0.0, (1 / alpha + x0) / total - top / total**2,
                         (-1 / beta - y0 + np.log(c / 6)) / total - top / total**2])  # fmt: skip

    def prediction_interval(
        self, n: float, d: float, level: float = 0.95, *, new_run: bool = True
    ) -> tuple[float, float]:
        """Where the loss of one new run at (n, d) lies: variance of the law there plus that of a single run (the law's
        alone without `new_run`)."""
        bent = self.curvature
        fitted, slope = batch.jacobian(bent.theta, np.log([n]) - self.centre[0], np.log([d]) - self.centre[1])
        additive = bent.problem.additive
        variance, dof = bent.variance(slope[0] if additive else slope[0] / fitted[0])
        half = t_quantile(level, dof) * np.sqrt(variance + (bent.spread**2 if new_run else 0.0))
        if additive:
            return float(fitted[0] - half), float(fitted[0] + half)
        return float(fitted[0]) * exp(-half), float(fitted[0]) * exp(half)

    def as_dict(self) -> dict:
        return {
            "A": self.A, "B": self.B, "E": self.E, "alpha": self.alpha, "beta": self.beta,
            "objective": self.objective, "intervals": self.intervals, "bootstrap": self.bootstrap,
            "interval_method": self.interval_method, "claimed": self.claimed, "converged": self.converged,
            "residual_sd": self.curvature.spread,
            "residuals": "raw (additive noise)" if self.curvature.problem.additive else "log (multiplicative noise)",
        }  # fmt: skip


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
        allocation = {
            "a": self.huber.a, "b": 1 - self.huber.a,
            "a_interval": self.huber.intervals["a"], "a_vpnls": self.vpnls.a,
        }  # fmt: skip
        return {
            "law": "surface", "form": "loss = E + A/N^alpha + B/D^beta; N in parameters, D in tokens", "n": self.n,
            "huber": self.huber.as_dict(), "vpnls": self.vpnls.as_dict(), "allocation": allocation,
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
    delta: float = 1e-3,
    level: float = 0.95,
) -> SurfaceFit:
    """Fit the surface by Huber in logs and by variable projection. Order of rows changes no digit.

    Intervals (METHODS says which was used): in small tables with even noise the profiled objective against F(1, n - 5);
    otherwise sandwich variances with Student's t; with `runs`, clustered by run. The percentile bootstrap of the
    literature is reported beside them. Raises UserError for fewer than seven points, or where
    N and D do not vary independently.
    """
    arrays = [np.asarray(values, float).ravel() for values in (N, D, loss)]
    w = np.ones(len(arrays[0])) if weights is None else np.asarray(weights, float).ravel()
    _check(*arrays, w)
    labels = np.zeros(len(w), int) if runs is None else np.unique(np.asarray(runs).astype(str), return_inverse=True)[1]
    order = np.lexsort([labels, w, *reversed(arrays)])
    n, d, losses = (values[order] for values in arrays)
    w = w[order]
    clusters = (
        None if runs is None or len(np.unique(labels)) == len(w) else np.unique(labels[order], return_inverse=True)[1]
    )
    if clusters is not None and clusters.max() + 1 < LEAST_POINTS:
        raise UserError(
            f"The {len(w)} points come from {clusters.max() + 1} runs: points of one run are one cluster, and five "
            f"parameters need at least {LEAST_POINTS} runs."
        )
    x, y = np.log(n), np.log(d)
    centre = float(x.mean()), float(y.mean())
    x, y = x - centre[0], y - centre[1]
    starts = projection_starts(x, y, losses, w)
    estimates = []
    for additive in (False, True):
        problem = Problem(x, y, losses, w, delta, additive, np.ones(5, bool), clusters)
        estimates.append(_estimate(problem, starts, centre, seed, resamples, level))
    return SurfaceFit(*estimates, n=len(w), N=n, D=d, loss=losses)


def _check(n: np.ndarray, d: np.ndarray, loss: np.ndarray, w: np.ndarray) -> None:
    if not len(n) == len(d) == len(loss) == len(w):
        raise UserError(f"N, D, loss and weights differ in length: {len(n)}, {len(d)}, {len(loss)}, {len(w)}.")
    for name, values in (("N", n), ("D", d), ("loss", loss), ("weights", w)):
        if not np.all(np.isfinite(values) & (values > 0)):
            raise UserError(f"{name} holds a value that is not a positive number: drop that point.")
    if len(n) < LEAST_POINTS:
        raise UserError(f"{len(n)} points cannot fix the five parameters of a surface: give at least {LEAST_POINTS}.")
    if np.ptp(loss) <= 1e-9 * loss.max():
        raise UserError(
            f"All losses are {loss[0]:g}: nothing depends on N or D in this table; give the measured losses."
        )
    for name, values in (("N", n), ("D", d)):
        if len(np.unique(values)) < 3:
            raise UserError(f"{name} takes {len(np.unique(values))} value(s): a surface needs three; fit a power law.")
    if abs(np.corrcoef(np.log(n), np.log(d))[0, 1]) > 0.9995:
        raise UserError(
            "log N and log D lie on one line, so that A/N^alpha and B/D^beta cannot be told apart: "
            "add runs with other ratios of tokens to parameters."
        )


def _estimate(problem: Problem, starts: np.ndarray, centre: tuple, seed: int, resamples: int, level: float) -> Estimate:
    if not problem.additive:  # least squares in logs first: Huber with a small δ is nearly L1 and has more local minima
        smooth = batch.solve(problem.x, problem.y, problem.target, problem.weights, starts, delta=np.inf).theta
        starts = np.concatenate([starts, smooth])
    for _ in range(5):
        fits = problem.solve(starts, tolerance=1e-20)
        best = int(np.argmin(fits.objective))
        theta, objective = fits.theta[best], float(fits.objective[best])
        bent = curvature(problem, theta, objective)
        if problem.clusters is not None or bent.robust:
            found, better = {j: bent.wald(np.eye(5)[j], level) for j in (2, 3, 4)}, None
        else:
            found, better = profile(bent, [2, 3, 4], level)
        if better is None:
            break
        starts = np.stack([better, theta])
    x0, y0 = centre
    intervals = {
        "A": _exp(bent.wald(np.array([1, 0, 0, x0, 0.0]), level)),
        "B": _exp(bent.wald(np.array([0, 1, 0, 0, y0]), level)),
        "E": _exp(found[2]), "alpha": found[3], "beta": found[4], "a": _allocation(bent, level),
    }  # fmt: skip
    draws, share = np.empty((0, 5)), 1.0
    bootstrap = {}
    if resamples:
        counts = bootstrap_counts(len(problem.x), resamples, seed, problem.clusters)
        weights = counts if np.all(problem.weights == 1) else counts * problem.weights
        rows = problem.solve(theta, weights=weights)
        draws, share = rows.theta, float(rows.converged.mean())
        bootstrap = _percentiles(draws, centre, level)
    kind = "cluster" if problem.clusters is not None else "sandwich" if bent.robust else "profile"
    return Estimate(
        A=float(np.exp(theta[0] + theta[3] * x0)), B=float(np.exp(theta[1] + theta[4] * y0)), E=float(np.exp(theta[2])),
        alpha=float(theta[3]), beta=float(theta[4]), objective=objective, intervals=intervals, bootstrap=bootstrap,
        converged=share if fits.converged[best] else 0.0, interval_method=METHODS[kind],
        claimed=claims(kind, problem), curvature=bent, centre=centre, resamples=draws,
    )  # fmt: skip


def claims(kind: str, problem: Problem) -> bool:
    """Whether docs/laws_coverage.md measured 93-97% for such a table (Gaussian and heavy-tailed noise)."""
    if kind == "cluster":
        return problem.additive and int(problem.clusters.max()) + 1 >= 12  # Huber's is wider than it need be
    return len(problem.x) >= (60 if problem.additive else 16)


def _exp(pair: tuple[float | None, float | None]) -> tuple[float, float | None]:
    low, high = pair
    top = np.inf if high is None else exp(high)
    return (0.0 if low is None else exp(low)), (top if np.isfinite(top) else None)


def _allocation(bent: Curvature, level: float) -> tuple[float, float]:
    """Interval of a = β/(α + β): Student's t on log(β/α), then the logistic function."""
    alpha, beta = bent.theta[3], bent.theta[4]
    if alpha <= 0 or beta <= 0:
        return float("nan"), float("nan")
    variance, dof = bent.variance(np.array([0, 0, 0, -1 / alpha, 1 / beta]))
    half = t_quantile(level, dof) * np.sqrt(variance)
    return tuple(float(expit(np.log(beta / alpha) + sign * half)) for sign in (-1, 1))


def _percentiles(draws: np.ndarray, centre: tuple[float, float], level: float) -> dict[str, tuple[float, float]]:
    a, b, e, alpha, beta = draws.T
    log_a, log_b = a + alpha * centre[0], b + beta * centre[1]
    named = {"A": np.exp(np.clip(log_a, -700, 700)), "B": np.exp(np.clip(log_b, -700, 700)), "E": np.exp(e),
             "alpha": alpha, "beta": beta, "a": beta / (alpha + beta)}  # fmt: skip
    ends = [100 * (1 - level) / 2, 100 * (1 + level) / 2]
    return {name: tuple(float(v) for v in np.percentile(values, ends)) for name, values in named.items()}
