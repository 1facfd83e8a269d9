"""A fit of the batch solver and its intervals: profiled objectives, sandwich variances, CR2 where points share runs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from t2ikit.laws import batch
from t2ikit.laws.intervals import (
    LEVEL,
    cluster_variance,
    exp,
    gram_inverse,
    independent_variance,
    inside_probabilities,
    spearman,
    t_quantile,
)

# Measured (docs/laws_coverage.md): in smaller tables the sandwich of a Huber fit is needlessly wide (0.98 at 60 points)
# and the profile holds where the noise is even; from here on the sandwich holds either way. Raw residuals of noise in
# proportion to the loss are uneven from the start.
ROBUST_FROM, ROBUST_FROM_RAW = 120, 16
WIDE = np.log(100)  # an interval of log E that spans more is no linear one: E is profiled


@dataclass(frozen=True)
class Problem:
    """Points of one fit: centred logs `x`, `y`, losses, weights, kind of objective, free parameters, clusters."""

    x: np.ndarray
    y: np.ndarray
    loss: np.ndarray
    weights: np.ndarray
    delta: float
    additive: bool
    free: np.ndarray
    clusters: np.ndarray | None = None

    @property
    def target(self) -> np.ndarray:
        return self.loss if self.additive else np.log(self.loss)

    @property
    def dof(self) -> int:
        return len(self.x) - int(self.free.sum())

    def solve(self, start: np.ndarray, **options) -> batch.Rows:
        options = {"weights": self.weights, "free": self.free, "delta": self.delta} | options
        return batch.solve(self.x, self.y, self.target, start=start, additive=self.additive, **options)


@dataclass(frozen=True)
class Curvature:
    """What the residuals of a fit say about its parameters `theta` (centred, in the order of batch.PARAMETERS).

    `design` [n, 5] and `pseudo` [n] are derivatives and pseudo-residuals (for Huber ψ/E[ψ']) such that the estimate
    behaves like least squares on them; `unit` is the rise of the objective that F(1, dof) = 1 stands for.
    """

    problem: Problem
    theta: np.ndarray
    objective: float
    design: np.ndarray
    pseudo: np.ndarray
    unit: float
    spread: float  # standard deviation of log residuals (of raw ones where additive)
    robust: bool  # the noise may differ from point to point
    noise: dict  # of `unequal_noise`

    @property
    def uneven(self) -> bool:
        return self.noise["p"] < 0.01

    @property
    def kind(self) -> str:
        """Where the intervals come from: cluster, sandwich, profile, or t (what the profile of a log-log line is)."""
        if self.problem.clusters is not None:
            return "cluster"
        line = self.problem.free[[1, 2]].sum() == 0 and not self.problem.additive
        return "sandwich" if self.robust else "t" if line else "profile"

    @cached_property
    def inverse(self) -> np.ndarray:
        return gram_inverse(self.design)

    def variance(self, contrast: np.ndarray) -> tuple[float, float]:
        """Variance of contrast·θ̂ and its degrees of freedom; inf where it asks for a term that vanished."""
        problem = self.problem
        if np.any(contrast[np.diag(self.inverse) == 0]):
            return np.inf, float(problem.dof)
        if problem.clusters is not None:
            return cluster_variance(self.design, self.pseudo, problem.clusters, contrast)
        if self.robust:
            return independent_variance(self.design, self.pseudo, contrast)
        noise = float(self.pseudo @ self.pseudo) / problem.dof
        return float(contrast @ self.inverse @ contrast) * noise, float(problem.dof)

    def half_width(self, contrast: np.ndarray, more: float = 0.0) -> float:
        """Half of the interval of contrast·θ̂ plus something of variance `more`."""
        variance, dof = self.variance(contrast)
        return t_quantile(LEVEL, dof) * float(np.sqrt(variance + more))

    def wald(self, contrast: np.ndarray) -> tuple[float, float]:
        half, centre = self.half_width(contrast), float(contrast @ self.theta)
        return centre - half, centre + half

    def band(self, x: float, y: float, *, new_point: bool) -> tuple[float, float]:
        """Interval of the prediction at centred logs (x, y); with `new_point`, of one more measurement there."""
        fitted, slope = batch.jacobian(self.theta, np.array([x]), np.array([y]))
        slope, centre = np.where(self.problem.free, slope[0], 0.0), float(fitted[0])
        more = self.spread**2 if new_point else 0.0
        if self.problem.additive:
            half = self.half_width(slope, more)
            return centre - half, centre + half
        half = self.half_width(slope / centre, more)
        return centre * exp(-half), centre * exp(half)


def curvature(problem: Problem, theta: np.ndarray, objective: float, robust: bool | None = None) -> Curvature:
    """Linearise the fit. `robust` None: decided by `unequal_noise` and the number of points."""
    fitted, slopes = batch.jacobian(theta, problem.x, problem.y)
    slopes = np.where(problem.free, slopes, 0.0)
    residual = problem.loss - fitted if problem.additive else np.log(problem.loss / fitted)
    root = np.sqrt(problem.weights / problem.weights.mean())
    noise = unequal_noise(problem, root * residual)
    if problem.clusters is not None:
        robust = False  # CR2 allows for uneven noise by itself
    elif robust is None:
        robust = len(fitted) >= (ROBUST_FROM_RAW if problem.additive else ROBUST_FROM) or noise["p"] < 0.01
    psi, inside = residual, np.ones(len(fitted))
    if not problem.additive:
        slopes = slopes / fitted[:, None]
        psi = np.clip(residual, -problem.delta, problem.delta)
        if np.isfinite(problem.delta):
            inside = inside_probabilities(residual, problem.delta, int(problem.free.sum()))
    common = float(inside.mean())
    if not robust:
        inside = np.full(len(fitted), common)
    unit = 0.5 * float(np.sum((root * psi) ** 2)) / common / problem.dof * float(problem.weights.mean())
    spread = float(np.sqrt(np.sum((root * residual) ** 2) / problem.dof))
    design, pseudo = (root * np.sqrt(inside))[:, None] * slopes, root * psi / np.sqrt(inside)
    return Curvature(problem, theta, objective, design, pseudo, unit, spread, robust, noise)


def unequal_noise(problem: Problem, residual: np.ndarray) -> dict:
    """Does the size of the residuals (each times the root of its weight) go with log N, log D or log C? Smallest
    rank-correlation p, times their number."""
    columns = {"N": problem.x}
    if np.ptp(problem.y) > 0:  # a surface, no power law
        columns |= {"D": problem.y, "C": problem.x + problem.y}
    size = np.abs(residual)
    tests = [(name, spearman(column, size, exact_up_to=8)) for name, column in columns.items()
             if np.ptp(column) > 0 and np.ptp(size) > 0]  # fmt: skip
    if not tests:
        return {"with": None, "rho": 0.0, "p": 1.0}
    name, test = min(tests, key=lambda pair: pair[1]["p"])
    return {"with": name, "rho": test["rho"], "p": min(1.0, len(tests) * test["p"])}


def best_fit(
    problem: Problem, starts: np.ndarray, indices: list[int]
) -> tuple[Curvature, dict[int, tuple[float | None, float | None]], bool]:
    """The optimum from `starts` [S, 5], the intervals of the parameters `indices`, and whether it converged. A lower
    point met while profiling becomes the next start."""
    for _ in range(5):
        fits = problem.solve(starts, tolerance=1e-20)
        best = int(np.argmin(fits.objective))
        bent = curvature(problem, fits.theta[best], float(fits.objective[best]))
        if bent.kind != "profile":
            found, better = {j: bent.wald(np.eye(5)[j]) for j in indices}, None
            if 2 in found and not found[2][1] - found[2][0] < WIDE:
                found[2] = profile(bent, [2])[0].get(2, (None, None))
        else:
            found, better = profile(bent, indices)
        if better is None:
            break
        starts = np.stack([better, bent.theta])
    return bent, found, bool(fits.converged[best])


def vanished(bent: Curvature) -> bool:
    """Whether the fit has driven its floor E to nought: to less than a millionth of the smallest loss."""
    return bool(bent.problem.free[2]) and bent.theta[2] < np.log(1e-6 * bent.problem.loss.min())


def backed(bent: Curvature) -> bool:
    """Whether the intervals know of all parameters: linear ones know nothing of a floor that has vanished."""
    return bent.kind == "profile" or not vanished(bent)


def lower(one: batch.Rows, other: batch.Rows) -> batch.Rows:
    """Row by row the fit of the lower objective."""
    better = other.objective < one.objective
    pick = {name: np.where(better.reshape(-1, *[1] * (np.ndim(a) - 1)), b, a)
            for (name, a), b in zip(vars(one).items(), vars(other).values(), strict=True)}  # fmt: skip
    return batch.Rows(**pick)


def profile(
    bent: Curvature, indices: list[int]
) -> tuple[dict[int, tuple[float | None, float | None]], np.ndarray | None]:
    """Where the objective, minimised over the other parameters, rises by F(1, dof)'s quantile: {index: (low, high)}.

    None for a side on which it never does. The second value is a lower point met on the way: a better start. All
    sides are searched together: steps outward until the rise is too large, then by the chord of its root. A floor that
    has vanished has no gradient that would bring it back: the others are profiled from a floor well above nought too,
    and its own upper end is searched for below the largest loss.
    """
    problem, theta = bent.problem, bent.theta
    t = t_quantile(LEVEL, problem.dof)
    goal, size = t * np.sqrt(bent.unit), float(np.mean(problem.loss**2)) if problem.additive else 1.0
    if goal**2 <= 1e-29 * len(problem.x) * size:  # noise-free data: nothing to profile
        return {j: (float(theta[j]), float(theta[j])) for j in indices}, None
    column, sign = np.repeat(indices, 2), np.tile([-1.0, 1.0], len(indices))
    at = sign * t * np.array([max(np.sqrt(bent.variance(np.eye(5)[j])[0]), 1e-6) for j in column])
    limit = np.where(column == 2, 40.0, 6.0)  # log E may fall to e^-40, an exponent to ± 6
    least, most = (float(np.log(end)) - theta[2] for end in (problem.loss.min(), problem.loss.max()))
    rising = (column == 2) & (sign > 0)
    limit[rising] = max(most, 0.0)
    gone = vanished(bent)
    below = least - 6 if gone else max(least, most / 2)
    at = np.where(rising & (at > most), below, sign * np.minimum(np.abs(at), limit / 2))
    narrow = 1e-7 * np.abs(at)
    near, near_rise, warm = np.zeros(len(at)), np.zeros(len(at)), np.tile(theta, (len(at), 1))
    far, far_rise, answer = (np.full(len(at), np.nan) for _ in range(3))
    for _ in range(40):
        todo = np.flatnonzero(np.isnan(answer) & (np.abs(at) <= limit))
        if not len(todo):
            break
        start = warm[todo]
        start[np.arange(len(todo)), column[todo]] = theta[column[todo]] + at[todo]
        free = problem.free & (np.arange(5) != column[todo, None])
        fit = problem.solve(start, free=free)
        if gone:
            start = np.where(np.arange(5) == 2, np.where(column[todo, None] == 2, start, theta[2] + least - 1.5), start)
            fit = lower(fit, problem.solve(start, free=free))
        lowest = int(np.argmin(fit.objective))
        if fit.objective[lowest] < bent.objective * (1 - 1e-9):
            return {}, fit.theta[lowest]
        rise = np.sqrt(np.maximum(fit.objective - bent.objective, 0.0))
        hit, inside = np.abs(rise - goal) < 1e-4 * goal, rise < goal
        answer[todo[hit]] = at[todo[hit]]
        inner, outer = todo[inside], todo[~inside]
        near[inner], near_rise[inner], warm[inner] = at[inner], rise[inside], fit.theta[inside]
        far[outer], far_rise[outer] = at[outer], rise[~inside]
        open_ended = np.isnan(far)
        jump = ~open_ended & (np.abs(far - near) < narrow) & np.isnan(answer)  # between two local minima
        answer[jump] = near[jump]
        share = np.clip((goal - near_rise) / np.where(open_ended, 1.0, far_rise - near_rise), 0.02, 0.98)
        outward = np.where(rising, np.minimum(1.7 * at, limit), 1.7 * at)
        at = np.where(open_ended, outward, near + share * (far - near))
    ends = np.where(np.isnan(answer) & ~np.isnan(far), near, answer).reshape(-1, 2)
    return {
        j: tuple(None if np.isnan(end) else float(theta[j] + end) for end in pair)
        for j, pair in zip(indices, ends, strict=True)
    }, None
