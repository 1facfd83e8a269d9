"""Intervals for one fit of the batch solver: profiled objectives, sandwich variances, CR2 where points share runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2ikit.laws import batch
from t2ikit.laws.intervals import (
    cluster_variance,
    estimable,
    f_quantile,
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
        arguments = {"weights": self.weights, "free": self.free} | options
        weights = arguments.pop("weights")
        return batch.solve(self.x, self.y, self.target, weights, start, delta=self.delta, additive=self.additive,
                           **arguments)  # fmt: skip


@dataclass(frozen=True)
class Curvature:
    """What the residuals of a fit say about its parameters (centred, in the order of batch.PARAMETERS).

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

    def variance(self, contrast: np.ndarray) -> tuple[float, float]:
        """Variance of contrast·θ̂ and its degrees of freedom; inf where it asks for a term that vanished."""
        problem = self.problem
        if not estimable(self.design, contrast):
            return np.inf, float(problem.dof)
        if problem.clusters is not None:
            return cluster_variance(self.design, self.pseudo, problem.clusters, contrast)
        if self.robust:
            return independent_variance(self.design, self.pseudo, contrast)
        bread = float(contrast @ gram_inverse(self.design) @ contrast)
        return bread * float(self.pseudo @ self.pseudo) / problem.dof, float(problem.dof)

    def wald(self, contrast: np.ndarray, level: float) -> tuple[float, float]:
        variance, dof = self.variance(contrast)
        half = t_quantile(level, dof) * float(np.sqrt(variance))
        centre = float(contrast @ self.theta)
        return centre - half, centre + half


def curvature(problem: Problem, theta: np.ndarray, objective: float, robust: bool | None = None) -> Curvature:
    """Linearise the fit. `robust` None: decided by `unequal_noise` and the number of points."""
    fitted, slopes = batch.jacobian(theta, problem.x, problem.y)
    slopes = np.where(problem.free, slopes, 0.0)
    residual = problem.loss - fitted if problem.additive else np.log(problem.loss / fitted)
    root = np.sqrt(problem.weights / problem.weights.mean())
    parameters = int(problem.free.sum())
    if problem.clusters is not None:
        robust = False  # CR2 allows for uneven noise by itself
    elif robust is None:
        enough = len(fitted) >= (ROBUST_FROM_RAW if problem.additive else ROBUST_FROM)
        robust = enough or unequal_noise(problem, residual)["p"] < 0.01
    inside = np.ones(len(fitted))
    if problem.additive:
        psi = residual
    else:
        slopes = slopes / fitted[:, None]
        psi = np.clip(residual, -problem.delta, problem.delta)
        if np.isfinite(problem.delta):
            inside = inside_probabilities(residual, problem.delta, parameters)
    common = float(inside.mean())
    if not robust:
        inside = np.full(len(fitted), common)
    unit = 0.5 * float(np.sum((root * psi) ** 2)) / common / problem.dof * float(problem.weights.mean())
    spread = float(np.sqrt(np.sum((root * residual) ** 2) / problem.dof))
    design, pseudo = (root * np.sqrt(inside))[:, None] * slopes, root * psi / np.sqrt(inside)
    return Curvature(problem, theta, objective, design, pseudo, unit, spread, robust)


def unequal_noise(problem: Problem, residual: np.ndarray) -> dict:
    """Does the size of the residuals go with log N, log D or log C? Smallest of three rank-correlation p, times 3."""
    columns = {"N": problem.x, "D": problem.y, "C": problem.x + problem.y}
    size = np.abs(residual)
    varies = {name: column for name, column in columns.items() if np.ptp(column) > 0 and np.ptp(size) > 0}
    tests = [(name, spearman(column, size, exact_up_to=8)) for name, column in varies.items()]
    if not tests:
        return {"with": None, "rho": 0.0, "p": 1.0}
    name, test = min(tests, key=lambda pair: pair[1]["p"])
    return {"with": name, "rho": test["rho"], "p": min(1.0, len(tests) * test["p"])}


def profile(
    bent: Curvature, indices: list[int], level: float
) -> tuple[dict[int, tuple[float | None, float | None]], np.ndarray | None]:
    """Where the objective, minimised over the other parameters, rises by F(1, dof)'s quantile: {index: (low, high)}.

    None for a side on which it never does. The second value is a lower point met on the way: a better start.
    """
    problem, theta = bent.problem, bent.theta
    goal = np.sqrt(f_quantile(level, problem.dof) * bent.unit)
    if goal**2 <= 1e-13 * len(problem.x) * np.finfo(float).eps:  # noise-free data: nothing to profile
        return {j: (float(theta[j]), float(theta[j])) for j in indices}, None
    sides = [(j, sign) for j in indices for sign in (-1.0, 1.0)]
    step = np.array([max(np.sqrt(bent.variance(np.eye(5)[j])[0]), 1e-6) for j, _ in sides])
    step *= np.array([sign for _, sign in sides]) * t_quantile(level, problem.dof)
    free = np.array([problem.free & (np.arange(5) != j) for j, _ in sides])
    column = np.array([j for j, _ in sides])
    rows = np.arange(len(sides))
    near, near_rise = np.zeros(len(sides)), np.zeros(len(sides))
    far, far_rise = np.full(len(sides), np.nan), np.full(len(sides), np.nan)
    at, warm = step.copy(), np.tile(theta, (len(sides), 1))
    answer = np.full(len(sides), np.nan)
    better = None
    limit = np.where(column == 2, 40.0, 6.0)  # log E may fall to e^-40, an exponent to ± 6
    for _ in range(40):
        todo = np.flatnonzero(np.isnan(answer) & (np.abs(at) <= limit))
        if not len(todo):
            break
        start = warm[todo]
        start[np.arange(len(todo)), column[todo]] = theta[column[todo]] + at[todo]
        fit = problem.solve(start, free=free[todo])
        lowest = int(np.argmin(fit.objective))
        if fit.objective[lowest] < bent.objective * (1 - 1e-9):
            better = fit.theta[lowest]
            break
        rise = np.sqrt(np.maximum(fit.objective - bent.objective, 0.0))
        hit = np.abs(rise - goal) < 1e-4 * goal
        answer[todo[hit]] = at[todo[hit]]
        inside = rise < goal
        for k, row in enumerate(todo):
            if inside[k]:
                near[row], near_rise[row], warm[row] = at[row], rise[k], fit.theta[k]
            else:
                far[row], far_rise[row] = at[row], rise[k]
        open_ended = np.isnan(far)
        fraction = np.clip((goal - near_rise) / np.where(open_ended, 1.0, far_rise - near_rise), 0.02, 0.98)
        narrow = ~open_ended & (np.abs(far - near) < 1e-7 * np.abs(step))  # a jump between two local minima
        answer = np.where(np.isnan(answer) & narrow, near, answer)
        at = np.where(open_ended, 1.7 * at, near + fraction * (far - near))
    if better is not None:
        return {}, better
    ends = np.where(np.isnan(answer), np.where(np.isnan(far), np.nan, near), answer)
    found = {j: (ends[rows[(column == j) & (step < 0)]][0], ends[rows[(column == j) & (step > 0)]][0]) for j in indices}
    return {
        j: tuple(None if np.isnan(end) else float(theta[j] + end) for end in pair) for j, pair in found.items()
    }, None
