"""Distances between two sets of images, from their features: FD, FD∞, KID, CMMD, precision and recall.

A distance is a number of (features, n): each result says how many images it is of, and flags what biases it. Sampled
from the same distribution, two sets of n images are not at distance zero: FD is too high, by an amount that falls as
1/n.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from scipy.linalg.lapack import dpstrf

from t2ikit.errors import UserError

BLOCK = 2048  # rows of a kernel or distance matrix held at once
NEIGHBOURS = 3  # of precision and recall
PANEL = 256  # columns at a time of a triangular product
NEGATIVE = 1e-5  # of the largest eigenvalue: what rounding leaves below zero, in float32 too, is less


@dataclass
class Moments:
    """Mean [d] and scatter [d, d] of features that come in batches, in float64: memory does not grow with n.

    Batches are merged as in Chan, Golub and LeVeque 1979, so that a mean far from zero costs no digits.
    """

    n: int = 0
    mean: np.ndarray | float = 0.0
    scatter: np.ndarray | float = 0.0  # Σ (x − mean)(x − mean)ᵀ

    @classmethod
    def of(cls, batches: Iterable[np.ndarray]) -> Moments:
        total = cls()
        for batch in batches:
            total = total.merge(cls.batch(batch))
        return total

    @classmethod
    def batch(cls, features: np.ndarray) -> Moments:
        x = finite(features)
        mean = x.mean(0)
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    def merge(self, other: Moments) -> Moments:
        """The moments of both sets together."""
        if not self.n or not other.n:
            return self if self.n else other
        n, apart = self.n + other.n, other.mean - self.mean
        scatter = self.scatter + other.scatter + np.outer(apart, apart) * (self.n * other.n / n)
        return Moments(n, self.mean + apart * (other.n / n), scatter)

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased [d, d]."""
        if self.n < 2:
            raise UserError(f"A covariance of {self.n} images is not defined: give at least two.")
        return self.scatter / (self.n - 1)


def frechet_distance(mu1: np.ndarray, cov1: np.ndarray, mu2: np.ndarray, cov2: np.ndarray) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) of two Gaussians (Dowson and Landau 1982), in float64.

    With Σ₁ = FFᵀ and Σ₂ = GGᵀ (Cholesky) the eigenvalues of Σ₁Σ₂ are those of the symmetric (GᵀF)ᵀGᵀF: real, not below
    zero but for rounding, and found by `eigvalsh`. A covariance of rank r < d is allowed (Cholesky with pivots, F of
    [d, r]); the distance is then finite, and exact to about d · 1e-8 of the covariances' scale: a zero's rounding under
    the root. One with an eigenvalue clearly below zero is refused.
    """
    mu1, mu2, cov1, cov2 = (np.asarray(a, dtype=np.float64) for a in (mu1, mu2, cov1, cov2))
    d = mu1.shape[0] if mu1.ndim == 1 else 0
    if not d or mu2.shape != (d,) or cov1.shape != (d, d) or cov2.shape != (d, d):
        shapes = ", ".join(str(list(a.shape)) for a in (mu1, cov1, mu2, cov2))
        raise UserError(f"Means and covariances have shapes {shapes}: they must be [d], [d, d], [d] and [d, d].")
    if not all(np.isfinite(a).all() for a in (mu1, cov1, mu2, cov2)):
        raise UserError("A mean or a covariance holds NaN or infinity: compute the features of those images again.")
    (first, _), (second, triangular) = (_root(torch.from_numpy(np.ascontiguousarray(a))) for a in (cov1, cov2))
    product = _gram(_transposed_times(second, first) if triangular else second.T @ first)
    both = torch.linalg.eigvalsh(product, UPLO="L").clamp(min=0).sqrt().sum().item() if len(product) else 0.0
    return float((mu1 - mu2) @ (mu1 - mu2) + np.trace(cov1) + np.trace(cov2) - 2 * both)


def _transposed_times(second: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """GᵀF of a lower triangular G, whose zeros are left out."""
    starts = range(0, len(second), PANEL)
    return torch.cat([second[i:, i : i + PANEL].T @ first[i:] for i in starts])


def _gram(factor: torch.Tensor) -> torch.Tensor:
    """The lower triangle of MᵀM, in panels; what lies above is not computed."""
    out = factor.new_zeros(factor.shape[1], factor.shape[1])
    for j in range(0, len(out), PANEL):
        out[j : j + PANEL, : j + PANEL] = factor[:, j : j + PANEL].T @ factor[:, : j + PANEL]
    return out


def _root(covariance: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """F [d, rank] with FFᵀ = `covariance`, of which the lower triangle is read where it is regular, and whether F is
    lower triangular; a UserError if there is none."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    if not failed:
        return root, True
    covariance = (covariance + covariance.T) / 2
    factor, pivots, rank, _ = dpstrf(covariance.numpy(), lower=1)
    root = torch.empty(len(covariance), rank, dtype=torch.float64)
    root[pivots - 1] = torch.from_numpy(np.tril(factor)[:, :rank])
    if (root @ root.T - covariance).abs().max() <= 1e-9 * covariance.abs().max():
        return root, False
    values, vectors = torch.linalg.eigh(covariance)  # below zero somewhere, if only by rounding
    if values[0] < -NEGATIVE * values[-1].clamp(min=0):
        raise UserError(
            f"A covariance has the eigenvalue {values[0]:.3g} (the largest is {values[-1]:.3g}), and none may be "
            "negative: compute it from features with t2ikit.metrics.fidelity.Moments."
        )
    return vectors * values.clamp(min=0).sqrt(), False


def frechet(generated: Moments, reference: Moments) -> dict[str, Any]:
    """FD of two sets: `value, n, n_reference, flags`."""
    value = frechet_distance(generated.mean, generated.covariance, reference.mean, reference.covariance)
    return {"value": value} | _sizes(generated.n, reference.n, len(generated.mean))


def fd_infinity(
    generated: np.ndarray, reference: np.ndarray, level: float = 0.95, seed: int = 0, groups: int = 10
) -> dict[str, Any]:
    """FD extrapolated to infinitely many images (FID∞, Chong and Forsyth 2020): a straight line over 1/n, read at zero.

    Both sets are cut at random into ten groups. The line goes through FD of all images and the mean FD of nine tenths
    of them, each tenth of both sets left out in turn: every image counts alike, which halves the spread of lines
    through single random subsets. `low, high`: from the jackknife of that number, t distribution with nine degrees of
    freedom. 56 distances in all, from moments that are computed once.

    With fewer images than features FD is no straight line over 1/n: of equal flat spectra with d = 128 and n = 100 the
    value is 13 to 16 and no interval covers 0. It is then flagged, and `low, high` are None.
    """
    rng, parts = np.random.default_rng(seed), []
    for features in (finite(generated), _same_width(generated, reference)):
        if len(features) < 2 * groups:
            raise UserError(f"FD∞ of {len(features)} images is not defined: give at least {2 * groups}.")
        parts.append([Moments.batch(features[i]) for i in np.array_split(rng.permutation(len(features)), groups)])

    def without(*left_out: int) -> float:
        sides = [Moments(), Moments()]
        for g in set(range(groups)) - set(left_out):
            sides = [side.merge(part[g]) for side, part in zip(sides, parts, strict=True)]
        return frechet(*sides)["value"]

    once = np.array([without(g) for g in range(groups)])
    twice = np.zeros((groups, groups))
    for g, h in itertools.combinations(range(groups), 2):
        twice[g, h] = twice[h, g] = without(g, h)
    value = groups * without() - (groups - 1) * once.mean()
    left_out = (groups - 1) * once - (groups - 2) * twice.sum(1) / (groups - 1)
    error = np.sqrt((groups - 1) / groups * np.sum((left_out - left_out.mean()) ** 2))
    half, width = stats.t.ppf((1 + level) / 2, groups - 1) * error, parts[0][0].mean.size
    result = {"value": float(value), "low": float(value - half), "high": float(value + half)}
    result |= _sizes(len(generated), len(reference), width)
    if min(len(generated), len(reference)) >= width:
        return result
    biased = "fewer images than features: the extrapolation is biased, no interval"
    return result | {"low": None, "high": None, "flags": [biased, *result["flags"]]}


def kid(
    generated: np.ndarray, reference: np.ndarray, subsets: int = 100, size: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """KID (Bińkowski et al. 2018): unbiased squared MMD with the kernel (x·y/d + 1)³, a mean over random subsets.

    `value, std` (over subsets, as usually printed), `subset_size, n, n_reference, flags`. The authors' 100 subsets of
    1000 where both sets have more; else no subsets, which would be the same images again and again, but once all images
    of both sets: `std` and `subset_size` are then None.
    """
    x, y = finite(generated), _same_width(generated, reference)
    if min(size, len(x), len(y)) < 2:
        raise UserError("KID needs at least two images on either side: give more.")
    rng, whole = np.random.default_rng(seed), min(len(x), len(y)) <= size
    if whole:
        found = [_mmd2(x, y)]
    else:
        draws = ((f[rng.choice(len(f), size, replace=False)] for f in (x, y)) for _ in range(subsets))
        found = [_mmd2(*pair) for pair in draws]
    spread = {"std": None, "subset_size": None} if whole else {"std": float(np.std(found)), "subset_size": size}
    sizes = _sizes(len(x), len(y), x.shape[1]) | {"flags": []}  # unbiased at any n
    return {"value": float(np.mean(found))} | spread | sizes


def _mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased: without the diagonals of the kernels within a set."""

    def total(a: np.ndarray, b: np.ndarray) -> float:
        return sum(((a[i : i + BLOCK] @ b.T / a.shape[1] + 1) ** 3).sum() for i in range(0, len(a), BLOCK))

    within = [(total(a, a) - (((a**2).sum(1) / a.shape[1] + 1) ** 3).sum()) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return sum(within) - 2 * total(x, y) / (len(x) * len(y))


def cmmd(generated: np.ndarray, reference: np.ndarray, sigma: float = 10.0) -> dict[str, Any]:
    """CMMD (Jayasumana et al. 2024): 1000 × the squared MMD of L2-normalised CLIP features, kernel exp(−|x − y|²/2σ²).

    As its authors', with the diagonal: too high by an amount that falls as 1/n. Theirs: `clip:ViT-L-14-336/openai`.
    """
    both = finite(generated), _same_width(generated, reference)
    x, y = (f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12) for f in both)

    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        rows = (np.exp((a[i : i + BLOCK] @ b.T - 1) / sigma**2).sum() for i in range(0, len(a), BLOCK))
        return sum(rows) / (len(a) * len(b))

    value = 1000 * (mean_kernel(x, x) + mean_kernel(y, y) - 2 * mean_kernel(x, y))
    return {"value": float(value)} | _sizes(len(x), len(y), 0)


def precision_recall(generated: np.ndarray, reference: np.ndarray, neighbours: int = NEIGHBOURS) -> dict[str, Any]:
    """Improved precision and recall (Kynkäänniemi et al. 2019), k = 3: `precision, recall, n, n_reference, flags`.

    Precision: the share of generated images inside the ball of some reference image, whose radius is the distance to
    its k-th nearest neighbour among the references. Recall: the same with the sets exchanged.
    """
    x, y = finite(generated), _same_width(generated, reference)
    if min(len(x), len(y)) <= neighbours:
        raise UserError(f"Precision and recall need more than {neighbours} images on either side: give more.")
    shares = {"precision": _covered(x, y, neighbours), "recall": _covered(y, x, neighbours)}
    return shares | _sizes(len(x), len(y), 0)


def _covered(points: np.ndarray, centres: np.ndarray, k: int) -> float:
    """The share of points inside at least one centre's ball; a centre is its own nearest, at distance zero."""
    radii = np.concatenate([np.partition(d, k, axis=1)[:, k] for d in _squared_distances(centres, centres)])
    return sum((d <= radii).any(1).sum() for d in _squared_distances(points, centres)) / len(points)


def _squared_distances(x: np.ndarray, y: np.ndarray) -> Iterator[np.ndarray]:
    """|x − y|² in blocks of rows, exactly zero between equal rows."""
    for i in range(0, len(x), BLOCK):
        norms = (x[i : i + BLOCK] ** 2).sum(1)[:, None] + (y**2).sum(1)
        squared = norms - 2 * x[i : i + BLOCK] @ y.T
        yield np.where(squared > 1e-12 * norms, squared, 0.0)


def finite(features: np.ndarray) -> np.ndarray:
    """Features as float64 [n, d], none of them NaN or infinite."""
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise UserError(f"Features of shape {list(x.shape)} are no set: give one row per image, [n, d].")
    if len(bad := np.flatnonzero(~np.isfinite(x).all(1))):
        raise UserError(f"The features of image {bad[0]} are not finite ({len(bad)} such images): look at that image.")
    return x


def _same_width(generated: np.ndarray, reference: np.ndarray) -> np.ndarray:
    y = finite(reference)
    if y.shape[1] != np.shape(generated)[1]:
        raise UserError(
            f"Features are {np.shape(generated)[1]} and {y.shape[1]} wide: compute both with one extractor."
        )
    return y


def _sizes(n: int, n_reference: int, d: int) -> dict[str, Any]:
    """How many images on each side, and what that does to the number."""
    flags = [f"singular: n = {n} ≤ d = {d}"] if n <= d else []
    flags += [f"singular reference: n = {n_reference} ≤ d = {d}"] if n_reference <= d else []
    flags += [f"n = {n} against n = {n_reference}: compare only with the same two"] if n != n_reference else []
    return {"n": n, "n_reference": n_reference, "flags": flags}
