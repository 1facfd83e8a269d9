"""Variable projection for the surface: once (α, β) are fixed, (E, A, B) are linear and non-negative. The grid's best
points start every fit; the batch solver takes them to the optimum."""

from __future__ import annotations

import itertools

import numpy as np


def projection_starts(x: np.ndarray, y: np.ndarray, loss: np.ndarray, w: np.ndarray) -> np.ndarray:
    """(E, A, B) ≥ 0 by exact non-negative least squares at each (α, β) of a grid: the 24 best, as starts [24, 5]."""
    grid = np.array([0.02, 0.05, 0.1, 0.16, 0.23, 0.3, 0.38, 0.47, 0.58, 0.72, 0.95, 1.3, 1.9])
    pairs = np.array(list(itertools.product(grid, grid)))
    columns_n, columns_d = np.exp(-np.outer(grid, x)), np.exp(-np.outer(grid, y))
    starts, values = [], []
    root = np.sqrt(w)
    for alpha, beta in pairs:
        design = np.stack([columns_n[grid == alpha][0], columns_d[grid == beta][0], np.ones_like(x)], 1)
        coefficient, value = _nonnegative(design * root[:, None], loss * root)
        tiny = 1e-3 * loss.mean()
        starts.append([*np.log(np.maximum(coefficient, tiny)), alpha, beta])
        values.append(value)
    return np.array(starts)[np.argsort(values, kind="stable")[:24]]


def _nonnegative(design: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares with all three coefficients ≥ 0: the best feasible of the seven supports (KKT by enumeration)."""
    gram, moment, square = design.T @ design, design.T @ target, float(target @ target)
    best, value = np.zeros(3), square
    for support in ([0, 1, 2], [0, 1], [0, 2], [1, 2], [0], [1], [2]):
        solution = np.linalg.lstsq(gram[np.ix_(support, support)], moment[support], rcond=1e-13)[0]
        rest = square - float(solution @ moment[support])
        if np.all(solution >= 0) and rest < value:
            best, value = np.zeros(3), rest
            best[support] = solution
    return best, value
