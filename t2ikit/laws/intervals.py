"""The statistics that the laws share: Student quantiles, cluster-robust variances, Fieller's ratio, resampling counts,
the kernel estimate behind Huber's interval, and exact rank correlation. scipy.special only: importing is quick."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit

from t2ikit.errors import UserError

LEVEL = 0.95  # of every interval


def t_quantile(level: float, dof: float) -> float:
    """Two-sided Student quantile: t with P(|T| ≤ t) = level; its square is the quantile of F(1, dof)."""
    return float(stdtrit(dof, 0.5 + level / 2))


def bootstrap_counts(n: int, resamples: int, seed: int, clusters: np.ndarray | None = None) -> np.ndarray:
    """How often each point is drawn, [resamples, n] uint16; whole clusters are drawn where points share a run."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) if clusters is None else clusters
    groups = int(labels.max()) + 1
    counts = np.empty((resamples, n), np.uint16)
    for r in range(resamples):
        counts[r] = np.bincount(rng.integers(0, groups, groups), minlength=groups)[labels]
    return counts


def cluster_variance(
    design: np.ndarray,  # [n, p], rows already multiplied by √weight
    residual: np.ndarray,  # [n], likewise
    clusters: np.ndarray,  # [n] int labels 0 … G-1
    contrast: np.ndarray,  # [p]
) -> tuple[float, float]:
    """CR2 variance of contrast·θ̂ and its Bell-McCaffrey degrees of freedom (2002; Pustejovsky & Tipton 2018).

    Points of one run are correlated in ways nobody knows; CR2 is unbiased when they are not, and the Satterthwaite
    degrees of freedom say how few runs there really are: never more than G - 1.
    """
    inverse, groups = gram_inverse(design), int(clusters.max()) + 1
    meat, norms, pulls = 0.0, np.zeros(groups), np.zeros((design.shape[1], groups))
    for g in range(groups):
        rows = clusters == g
        x = design[rows]
        values, axes = np.linalg.eigh(np.eye(len(x)) - x @ inverse @ x.T)
        root = axes @ np.diag(np.where(values > 1e-8, 1 / np.sqrt(np.maximum(values, 1e-8)), 0.0)) @ axes.T
        influence = root @ x @ inverse @ contrast  # (I - H_gg)^(-1/2) X_g (XᵀX)⁻¹ c
        meat += float(influence @ residual[rows]) ** 2
        norms[g], pulls[:, g] = influence @ influence, x.T @ influence
    b = np.diag(norms) - pulls.T @ inverse @ pulls
    return meat, min(float(np.trace(b) ** 2 / np.sum(b * b)), groups - 1.0)


def independent_variance(design: np.ndarray, residual: np.ndarray, contrast: np.ndarray) -> tuple[float, float]:
    """The same where every point is its own cluster (HC2): right for noise whose size differs from point to point."""
    inverse = gram_inverse(design)
    left = np.maximum(1.0 - np.einsum("ni,ij,nj->n", design, inverse, design), 1e-8)
    influence = design @ inverse @ contrast / np.sqrt(left)
    meat = float(np.sum((influence * residual) ** 2))
    scaled = design * influence[:, None]
    product = inverse @ (scaled.T @ scaled)  # the traces of b and b² without b, which is n × n here
    crossed = np.sum(influence**2 * np.einsum("ni,ij,nj->n", scaled, inverse, scaled))
    square = float(np.sum(influence**4) - 2 * crossed + np.sum(product * product.T))
    trace = float(influence @ influence - np.trace(product))
    return meat, max(min(trace**2 / square, len(residual) - design.shape[1]), 1.0)


def gram_inverse(design: np.ndarray) -> np.ndarray:
    """(XᵀX)⁺ with columns scaled first: derivatives by log A and by α differ by orders of magnitude. Rows and columns
    of a term that the fit has driven to nought are 0."""
    norms = np.sqrt(np.sum(design**2, axis=0))
    keep = norms > 1e-9 * norms.max()
    inverse = np.zeros((len(norms), len(norms)))
    scaled = design[:, keep] / norms[keep]
    inverse[np.ix_(keep, keep)] = np.linalg.pinv(scaled.T @ scaled, rcond=1e-14) / np.outer(norms[keep], norms[keep])
    return inverse


def exp(value: float) -> float:
    """e^value with inf, not a warning, beyond the largest float."""
    return float(np.exp(value)) if value < 709 else np.inf


def fieller(
    numerator: float, denominator: float, covariance: np.ndarray, quantile: float
) -> tuple[float, float] | None:
    """Exact interval of numerator/denominator, two Gaussian estimates (Fieller 1954); None where it is unbounded."""
    (v_nn, v_nd), (_, v_dd) = quantile**2 * covariance
    a, b, c = denominator**2 - v_dd, numerator * denominator - v_nd, numerator**2 - v_nn
    if a <= 0:
        return None
    root = np.sqrt(max(b * b - a * c, 0.0))
    return float((b - root) / a), float((b + root) / a)


def inside_probabilities(residual: np.ndarray, delta: float, parameters: int) -> np.ndarray:
    """P(|error_i| < δ) for each point, a Gaussian-kernel estimate; its mean is E[ψ'] of Huber's function.

    A fit with `parameters` parameters pulls that many residuals to nought, so the mean is taken without the smallest
    ones; the bandwidth is Silverman's 0.9·min(s, IQR/1.349)·n^(-1/5), widened by √(n/(n - p)). Point by point these are
    Powell's (1991) weights, which hold where the noise differs from point to point.
    """
    n = len(residual)
    quartiles = np.percentile(residual, [25, 75])
    spread = min(float(np.std(residual)), float(quartiles[1] - quartiles[0]) / 1.349 or np.inf)
    width = 0.9 * spread * np.sqrt(n / (n - parameters)) * n**-0.2
    if width <= 0:
        return np.ones(n)
    inside = ndtr((delta - residual) / width) - ndtr((-delta - residual) / width)
    kept = np.argsort(np.abs(residual), kind="stable")[min(parameters, n - 4) :]
    return np.maximum(inside * (inside[kept].mean() / inside.mean()), 1e-12)


def finite(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [n]; UserError for lengths that differ and values that are no numbers."""
    x, y = np.asarray(x, float).ravel(), np.asarray(y, float).ravel()
    if len(x) != len(y):
        raise UserError(f"The columns differ in length ({len(x)} and {len(y)}): give one value a point in each.")
    if not (whole := np.isfinite(x) & np.isfinite(y)).all():
        at = int(np.argmin(whole))
        raise UserError(f"Point {at} is ({x[at]:g}, {y[at]:g}): mend or drop points that have no number.")
    return x, y


def spearman(x: np.ndarray, y: np.ndarray, *, exact_up_to: int = 12) -> dict:
    """Rank correlation with its two-sided p, exact up to that n (ties by midranks), Student's approximation above.

    Exact: the distribution of Σ rank_x·rank_y over all n! orders, summed by subsets. Three points with ρ = 1: p = 1/3.
    UserError for fewer than three, for values that are no numbers, and where all of one are equal.
    """
    x, y = finite(x, y)
    n = len(x)
    if n < 3:
        raise UserError(f"A rank correlation of {n} points says nothing: give at least three.")
    rank_x, rank_y = _midranks(x), _midranks(y)
    centred_x, centred_y = rank_x - rank_x.mean(), rank_y - rank_y.mean()
    norm = float(np.sqrt((centred_x @ centred_x) * (centred_y @ centred_y)))
    if norm == 0:
        raise UserError("A rank correlation needs two columns that vary: all values of one are equal.")
    rho = float(centred_x @ centred_y) / norm
    if n > exact_up_to:
        t = abs(rho) * np.sqrt((n - 2) / max(1 - rho * rho, 1e-300))
        p = max(float(2 * stdtr(n - 2, -t)), 2 / math.gamma(min(n, 170) + 1))  # no order of n is rarer
        return {"rho": rho, "p": p, "n": n, "method": "Student's approximation"}
    doubled_x, doubled_y = (2 * rank_x).round().astype(int), (2 * rank_y).round().astype(int)
    counts = _sum_distribution(doubled_x, doubled_y)
    values = np.arange(len(counts)) / 4 - n * rank_x.mean() * rank_y.mean()
    extreme = np.abs(values) >= abs(rho) * norm - 1e-9
    return {"rho": rho, "p": float(counts[extreme].sum() / counts.sum()), "n": n, "method": "exact"}


def _midranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _sum_distribution(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Number of permutations π with Σ x_i·y_π(i) = s, for s = 0 … : dynamic programming over subsets of y."""
    n, top = len(x), int(np.sort(x) @ np.sort(y)) + 1
    layer = {0: np.zeros(top)}
    layer[0][0] = 1.0
    for i in range(n):
        following: dict[int, np.ndarray] = {}
        for used, counts in layer.items():
            for j in range(n):
                if not used >> j & 1:
                    shift = int(x[i] * y[j])
                    into = following.setdefault(used | 1 << j, np.zeros(top))
                    into[shift:] += counts[: top - shift]
        layer = following
    return layer[(1 << n) - 1]
