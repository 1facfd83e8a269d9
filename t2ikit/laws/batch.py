"""Thousands of fits of f(x, y) = log(e^E0 + e^(a - αx) + e^(b - βy)) at once: Newton steps with a damping per fit.

Everything that needs an optimum uses this one solver: multi-start, bootstrap, jackknife, profile intervals, power laws
with a floor. A fit is a row; rows share the points and differ in weights, targets, starts or frozen parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PARAMETERS = ("log_A", "log_B", "log_E", "alpha", "beta")  # order of the five columns, x = log N and y = log D centred
OFF = -700.0  # log of a term that is not in the model; exp(OFF) is 1e-304
_ELEMENTS = 16_000  # points × rows evaluated together: arrays under 128 KiB stay in cache and off mmap


@dataclass(frozen=True)
class Rows:
    """Result of `solve`: `theta` [R, 5], `objective` [R], `converged` [R], `iterations` [R]."""

    theta: np.ndarray
    objective: np.ndarray
    converged: np.ndarray
    iterations: np.ndarray


def solve(
    x: np.ndarray,  # log N, centred, [n]
    y: np.ndarray,  # log D, centred, [n]
    target: np.ndarray,  # [n] or [R, n]: log loss, or loss where additive
    weights: np.ndarray,  # [n] or [R, n]: integer counts of a resample, or weights of the points
    start: np.ndarray,  # [5] or [R, 5], in the order of PARAMETERS
    *,
    delta: float = 1e-3,  # Huber's δ on log residuals; inf is least squares
    additive: bool = False,  # True: least squares on loss itself instead of its log
    free: np.ndarray | None = None,  # [5] or [R, 5] bool: parameters that move; None = all
    tolerance: float = 1e-12,  # on the decrease that the Newton model still promises, relative to the objective
    max_iterations: int = 300,
) -> Rows:
    """Minimise Σ w·Huber_δ(log f̂ - log L) (or ½Σ w·(f̂ - L)²) for each row. **Sum**, not mean (Besiroglu et al. 2024).

    Steps solve (|H| + μ·scale)·step = -g with the exact Hessian, eigenvalues by modulus (Dauphin et al. 2014), and
    one μ per row, adapted by the ratio of actual to promised decrease. A row has converged when the step without
    damping promises less than `tolerance` × objective; converged rows leave the batch.
    """
    rows = max(np.ndim(a) == 2 and len(a) or 1 for a in (target, weights, start))
    theta = np.broadcast_to(np.asarray(start, float), (rows, 5)).copy()
    moves = np.broadcast_to(np.ones(5, bool) if free is None else free, (rows, 5))
    points = _Points(x, y, target, weights, delta, additive)
    objective, converged = np.empty(rows), np.zeros(rows, bool)
    iterations = np.zeros(rows, int)
    unit = float(np.mean(np.square(target))) if additive else 1.0
    floor = 1e-26 * len(x) * unit  # squared residuals of rounding error: the objective of noise-free data
    active, mu, stuck = np.arange(rows), np.full(rows, 1e-3), np.zeros(rows, bool)
    value, gradient, hessian = points.derivatives(active, theta, moves)
    for iteration in range(max_iterations + 1):
        scale = np.sqrt(np.abs(np.einsum("rii->ri", hessian)))
        scale = np.maximum(scale, 1e-7 * scale.max(1, keepdims=True) + 1e-300)
        step, promised, minimum = _newton(hessian / (scale[:, :, None] * scale[:, None, :]), gradient / scale, mu)
        done = (promised <= tolerance * value + floor) & minimum | stuck
        objective[active], iterations[active] = value, iteration
        converged[active[done]] = True
        keep = ~done
        if iteration == max_iterations or not keep.any():
            break
        active, value, gradient, hessian, mu = active[keep], value[keep], gradient[keep], hessian[keep], mu[keep]
        step = step[keep] / scale[keep]
        step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(1), 1e-300))[:, None]
        trial = theta[active] + step
        np.clip(trial[:, :3], OFF, 80.0, out=trial[:, :3])
        np.clip(trial[:, 3:], -8.0, 8.0, out=trial[:, 3:])
        new_value, new_gradient, new_hessian = points.derivatives(active, trial, moves[active])
        better = new_value < value
        model = -np.einsum("ri,ri->r", gradient, step) - 0.5 * np.einsum("ri,rij,rj->r", step, hessian, step)
        ratio = (value - new_value) / np.maximum(np.abs(model), 1e-300)
        theta[active[better]] = trial[better]
        gradient[better], hessian[better] = new_gradient[better], new_hessian[better]
        value = np.where(better, new_value, value)
        factor = np.where(~better, 5.0, np.where(ratio > 0.75, 0.2, np.where(ratio < 0.25, 2.0, 1.0)))
        mu = np.clip(mu * factor, 1e-13, 1e9)
        # Where less than a rounding error of the objective is promised and no step lowers it, the optimum is reached.
        stuck = ~better & (promised[keep] <= 1e-12 * value + floor)
    return Rows(theta, objective, converged, iterations)


def _newton(hessian: np.ndarray, gradient: np.ndarray, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Damped step -(|H| + μ)⁻¹g [R, 5], the decrease gᵀ|H|⁻¹g promised by the full step [R], "H is no saddle" [R]."""
    eigenvalues, axes = np.linalg.eigh(hessian)
    slope = np.einsum("rij,ri->rj", axes, gradient)
    size = np.maximum(np.abs(eigenvalues), 1e-11)
    step = -np.einsum("rij,rj->ri", axes, slope / (size + mu[:, None]))
    return step, np.sum(slope**2 / size, axis=1), eigenvalues[:, 0] > -1e-5


def predict(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """E + A/N^α + B/D^β for `theta` [..., 5] at centred logs `x`, `y` [n] → [..., n]."""
    a, b, e, alpha, beta = (theta[..., k, None] for k in range(5))
    return np.exp(a - alpha * x) + np.exp(b - beta * y) + np.exp(e)


def jacobian(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prediction f̂ [n] and its derivative by the five parameters [n, 5], for one `theta` [5]."""
    power_n, power_d = np.exp(theta[0] - theta[3] * x), np.exp(theta[1] - theta[4] * y)
    floor = np.full_like(power_n, np.exp(theta[2]))
    columns = [power_n, power_d, floor, -power_n * x, -power_d * y]
    return power_n + power_d + floor, np.stack(columns, axis=1)


class _Points:
    """The data of a batch; sums over points are matrix products with [1, x, x²], [1, y, y²] and [1, x, y, xy]."""

    def __init__(self, x, y, target, weights, delta, additive):
        self.x, self.y, self.delta, self.additive = x, y, delta, additive
        self.target, self.weights = np.asarray(target, float), np.asarray(weights)
        one = np.ones_like(x)
        self.of_x, self.of_y = np.stack([one, x, x * x], 1), np.stack([one, y, y * y], 1)
        self.of_xy = np.stack([one, x, y, x * y], 1)
        self.chunk = max(1, _ELEMENTS // len(x))

    def derivatives(self, rows: np.ndarray, theta: np.ndarray, moves: np.ndarray):
        value, gradient, hessian = np.empty(len(rows)), np.empty((len(rows), 5)), np.empty((len(rows), 5, 5))
        for first in range(0, len(rows), self.chunk):
            part = slice(first, first + self.chunk)
            value[part], gradient[part], hessian[part] = self._chunk(rows[part], theta[part])
        if not moves.all():
            gradient[~moves] = 0.0
            hessian *= moves[:, :, None] & moves[:, None, :]
            diagonal = np.einsum("rii->ri", hessian)  # a view
            diagonal += ~moves * np.abs(diagonal).max(1, keepdims=True)
        return value, gradient, hessian

    def _chunk(self, rows: np.ndarray, theta: np.ndarray):
        target = self.target if self.target.ndim == 1 else self.target[rows]
        w = self.weights if self.weights.ndim == 1 else self.weights[rows]
        a, b, e, alpha, beta = (theta[:, k, None] for k in range(5))
        share_n, share_d = np.exp(a - alpha * self.x), np.exp(b - beta * self.y)
        total = share_n + share_d
        total += np.exp(e)
        share_n /= total  # the shares of A/N^α and B/D^β in the prediction; E's is what is left
        share_d /= total
        if self.additive:
            residual = total - target
            value = 0.5 * np.einsum("rn,rn->r", np.broadcast_to(w, residual.shape).astype(float), residual**2)
            first = residual * total  # derivatives by log f̂
            second = total * total + first
        else:
            residual = np.log(total)
            residual -= target
            first = np.clip(residual, -self.delta, self.delta)
            second = (first == residual).astype(float)
            value = np.einsum("rn,rn->r", np.broadcast_to(w, residual.shape).astype(float),
                              first * (residual - 0.5 * first))  # fmt: skip
        first *= w
        second *= w
        second -= first  # Hessian in the logs of the terms: second·P Pᵀ + first·(diag P - P Pᵀ)
        grad_n, grad_d = (first * share_n) @ self.of_x, (first * share_d) @ self.of_y
        sum_first, sum_second = first.sum(1), second.sum(1)
        second_n, second_d = second * share_n, second * share_d
        s_n, s_d = second_n @ self.of_x[:, :2], second_d @ self.of_y[:, :2]
        nd = (second_n * share_d) @ self.of_xy
        second_n *= share_n
        second_d *= share_d
        nn, dd = second_n @ self.of_x, second_d @ self.of_y
        g = np.stack([grad_n[:, 0], grad_d[:, 0], sum_first - grad_n[:, 0] - grad_d[:, 0],
                      -grad_n[:, 1], -grad_d[:, 1]], 1)  # fmt: skip
        floor_share = sum_second - 2 * s_n[:, 0] - 2 * s_d[:, 0] + nn[:, 0] + dd[:, 0] + 2 * nd[:, 0]
        entries = {
            (0, 0): nn[:, 0] + grad_n[:, 0], (0, 3): -nn[:, 1] - grad_n[:, 1], (3, 3): nn[:, 2] + grad_n[:, 2],
            (1, 1): dd[:, 0] + grad_d[:, 0], (1, 4): -dd[:, 1] - grad_d[:, 1], (4, 4): dd[:, 2] + grad_d[:, 2],
            (0, 1): nd[:, 0], (1, 3): -nd[:, 1], (0, 4): -nd[:, 2], (3, 4): nd[:, 3],
            (0, 2): s_n[:, 0] - nn[:, 0] - nd[:, 0], (2, 3): nn[:, 1] + nd[:, 1] - s_n[:, 1],
            (1, 2): s_d[:, 0] - dd[:, 0] - nd[:, 0], (2, 4): dd[:, 1] + nd[:, 2] - s_d[:, 1],
            (2, 2): floor_share + g[:, 2],
        }  # fmt: skip
        h = np.empty((len(theta), 5, 5))
        for (i, j), entry in entries.items():
            h[:, i, j] = h[:, j, i] = entry
        return value, g, h
