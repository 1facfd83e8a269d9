"""Exact small-sample statistics against enumeration, scipy.stats and closed forms."""

import itertools

import numpy as np
import pytest
from scipy import stats

from t2ikit.errors import UserError
from t2ikit.laws.intervals import (
    bootstrap_counts,
    cluster_variance,
    fieller,
    independent_variance,
    spearman,
    t_quantile,
)


def test_three_points_prove_nothing():
    assert spearman([1, 2, 3], [5, 6, 9])["p"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("y", [[2, 1, 3, 5, 4, 6], [1, 1, 2, 3, 3, 3], [6, 5, 4, 3, 2, 1]])
def test_exact_p_is_that_of_all_orders(y):
    x = np.array([1, 2, 3, 4, 5, 5])
    rho = stats.spearmanr(x, y).statistic
    all_rho = [stats.spearmanr(x, p).statistic for p in itertools.permutations(y)]
    result = spearman(x, y)
    assert result["rho"] == pytest.approx(rho) and result["method"] == "exact"
    assert result["p"] == pytest.approx(np.mean(np.abs(all_rho) >= abs(rho) - 1e-12))


def test_above_twelve_points_student_is_named():
    x = np.arange(20.0)
    result = spearman(x, x**2 + 50 * np.sin(x))
    assert result["method"].startswith("Student")
    assert result["p"] == pytest.approx(stats.spearmanr(x, x**2 + 50 * np.sin(x)).pvalue, rel=1e-6)


def test_rank_correlation_of_constants_is_refused():
    with pytest.raises(UserError, match="vary"):
        spearman([1, 1, 1], [1, 2, 3])


def test_quantiles():
    assert t_quantile(0.95, 3) == pytest.approx(stats.t.ppf(0.975, 3))
    assert stats.f.ppf(0.95, 1, 7) == pytest.approx(t_quantile(0.95, 7) ** 2)


def test_fieller_is_the_set_of_ratios_not_rejected():
    covariance, t = np.array([[0.04, 0.01], [0.01, 0.09]]), 2.5
    low, high = fieller(1.0, 2.0, covariance, t)
    for ratio in (low, high):
        variance = covariance[0, 0] - 2 * ratio * covariance[0, 1] + ratio**2 * covariance[1, 1]
        assert abs(1.0 - ratio * 2.0) == pytest.approx(t * np.sqrt(variance))
    assert fieller(1.0, 0.1, covariance, t) is None


def test_clusters_of_one_are_hc2():
    rng = np.random.default_rng(0)
    design, residual = np.c_[np.ones(12), rng.standard_normal(12)], rng.standard_normal(12)
    contrast = np.array([0.0, 1.0])
    one = cluster_variance(design, residual, np.arange(12), contrast)
    assert one == pytest.approx(independent_variance(design, residual, contrast), rel=1e-9)


def test_degrees_of_freedom_are_those_of_the_mean_of_equal_clusters():
    """Equal clusters, a mean: CR2 is the variance of cluster means, with exactly G - 1 degrees of freedom."""
    rng = np.random.default_rng(1)
    clusters, residual = np.repeat(np.arange(6), 4), rng.standard_normal(24)
    residual -= residual.mean()
    variance, dof = cluster_variance(np.ones((24, 1)), residual, clusters, np.ones(1))
    means = residual.reshape(6, 4).mean(1)
    assert variance == pytest.approx(means.var(ddof=1) / 6)
    assert dof == pytest.approx(5)


def test_bootstrap_draws_whole_clusters_and_repeats():
    clusters = np.repeat(np.arange(5), 3)
    counts = bootstrap_counts(15, 50, 7, clusters)
    assert np.array_equal(counts, bootstrap_counts(15, 50, 7, clusters))
    assert (counts.sum(1) == 15).all()
    assert (counts.reshape(50, 5, 3) == counts.reshape(50, 5, 3)[:, :, :1]).all()
    assert not np.array_equal(counts, bootstrap_counts(15, 50, 8, clusters))
