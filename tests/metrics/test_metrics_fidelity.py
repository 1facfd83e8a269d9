"""Distances of sets against closed forms, brute force and torch-fidelity."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ikit.errors import UserError
from t2ikit.metrics.fidelity import Moments, cmmd, fd_infinity, frechet, frechet_distance, kid, precision_recall


def covariance(d, seed, rank=None):
    x = np.random.default_rng(seed).standard_normal((rank or 3 * d, d))
    return x.T @ x / len(x)


def normal(n, d=16, seed=0, shift=0.0):
    return np.random.default_rng(seed).standard_normal((n, d)) + shift


def test_frechet_of_known_gaussians():
    d, eye = 5, np.eye(5)
    assert frechet_distance(np.zeros(d), eye, np.zeros(d), eye) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(np.zeros(d), eye, np.full(d, 2.0), eye) == pytest.approx(20)
    assert frechet_distance(np.zeros(d), 4 * eye, np.zeros(d), 9 * eye) == pytest.approx(d)
    a, b = np.diag([1.0, 4, 9, 16, 25]), np.diag([4.0, 4, 1, 0, 36])
    assert frechet_distance(np.zeros(d), a, np.ones(d), b) == pytest.approx(5 + 1 + 0 + 4 + 16 + 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 50))
def test_frechet_is_symmetric_and_that_of_the_eigenvalues(d, seed):
    a, b, mu, nu = covariance(d, seed), covariance(d, seed + 100), normal(1, d, seed)[0], normal(1, d, seed + 1)[0]
    found = frechet_distance(mu, a, nu, b)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    assert found == pytest.approx(((mu - nu) ** 2).sum() + np.trace(a + b) - 2 * roots, abs=1e-9)
    assert found == pytest.approx(frechet_distance(nu, b, mu, a), abs=1e-9)


@pytest.mark.parametrize("ranks", [(3, None), (None, 3), (3, 5), (1, 1)])
def test_frechet_of_singular_covariances_is_finite_and_right(ranks):
    d = 20
    a, b = (covariance(d, s, r) for s, r in enumerate(ranks))
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    found = frechet_distance(np.zeros(d), a, np.zeros(d), b)
    assert found == pytest.approx(np.trace(a + b) - 2 * roots, abs=1e-5)
    assert frechet_distance(np.zeros(d), a, np.zeros(d), a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(np.zeros(d), 0 * a, np.zeros(d), b) == pytest.approx(np.trace(b))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (-np.eye(4), -np.eye(4)), (np.eye(4), -np.eye(4)), (-np.eye(4), np.eye(4)), (np.zeros((4, 4)), -np.eye(4)),
        (np.eye(4), np.diag([1, 1, 1, -1e-3])), (np.diag([1, 1, 1, -1e-3]), np.eye(4)),
        (np.ones((4, 4)), np.eye(4) - 0.3), (np.array([[1.0, 2.0], [2.0, 1.0]]), np.eye(2)),
    ],
)  # fmt: skip
def test_frechet_refuses_what_is_no_covariance(first, second):
    mu = np.zeros(len(first))
    with pytest.raises(UserError, match="A covariance has the eigenvalue -.*none may be negative"):
        frechet_distance(mu, first, mu, second)


def test_frechet_tolerates_eigenvalues_that_rounding_took_below_zero():
    d, mu = 40, np.zeros(40)
    for rank in (15, None):
        pair = [covariance(d, seed, rank) for seed in (0, 1)]
        rounded = [c.astype(np.float32).astype(float) for c in pair]
        if rank:
            assert all(np.linalg.eigvalsh(c)[0] < -1e-9 for c in rounded)
        for first, second in ((rounded[0], pair[1]), (pair[0], rounded[1]), rounded):
            assert frechet_distance(mu, first, mu, second) == pytest.approx(
                frechet_distance(mu, *_at(pair, mu)), abs=0.1
            )
    slightly = np.diag([1.0] * 39 + [-1e-9])
    assert frechet_distance(mu, slightly, mu, np.eye(d)) == pytest.approx(1)
    assert frechet_distance(mu, np.eye(d), mu, slightly) == pytest.approx(1)


def _at(pair, mu):
    return pair[0], mu, pair[1]


def test_frechet_is_torch_fidelitys():
    theirs = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = normal(300), normal(200, seed=1, shift=0.3) * 1.5
    peer = [theirs.fid_features_to_statistics(torch.from_numpy(f)) for f in (x, y)]
    ours = frechet(Moments.batch(x), Moments.batch(y))["value"]
    assert ours == pytest.approx(theirs.fid_statistics_to_metric(*peer, False)["frechet_inception_distance"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.floats(-1e6, 1e6), st.integers(0, 20))
def test_moments_do_not_depend_on_the_batches(sizes, far, seed):
    x = normal(sum(sizes), 3, seed) + far
    found = Moments.of(np.split(x, np.cumsum(sizes)[:-1]))
    np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12, atol=1e-12)
    if len(x) > 1:
        np.testing.assert_allclose(found.covariance, np.cov(x, rowvar=False), rtol=1e-6, atol=1e-8)


def test_moments_of_float32_far_from_zero_lose_nothing():
    x = (normal(1000, 4) + 1e4).astype(np.float32)
    np.testing.assert_allclose(Moments.of(np.split(x, 10)).covariance, np.cov(x.astype(float), rowvar=False), rtol=1e-9)


def test_moments_of_a_million_images_take_no_more_memory_than_of_ten_thousand():
    batch, peaks = normal(1000, 64), []
    for count in (10, 1000):
        tracemalloc.start()
        found = Moments.of(batch for _ in range(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert found.n == 1_000_000 and peaks[1] < 1.01 * peaks[0]


@pytest.mark.parametrize(("n", "expected"), [(1000, 1.11), (5000, 0.226), (10_000, 0.114)])
def test_the_bias_of_identical_gaussians_falls_as_one_over_n(n, expected):
    sets = [Moments.batch(normal(n, 64, seed)) for seed in (0, 1)]
    to_the_truth = frechet_distance(sets[0].mean, sets[0].covariance, np.zeros(64), np.eye(64))
    assert to_the_truth == pytest.approx(expected, rel=0.08)
    both = frechet(*sets)
    assert both["value"] == pytest.approx(2 * expected, rel=0.08) and both["flags"] == []


def test_fd_infinity_takes_the_bias_away():
    x, y = normal(2000), normal(2000, seed=1)
    found = fd_infinity(x, y)
    assert found["low"] < 0 < found["high"] and abs(found["value"]) < 0.02
    assert frechet(Moments.batch(x), Moments.batch(y))["value"] > 0.05
    apart = fd_infinity(x + 0.2, y)
    assert apart["low"] < 16 * 0.04 < apart["high"] and apart["low"] > 0.3
    assert fd_infinity(x, y) == found != fd_infinity(x, y, seed=1)


def test_fd_infinity_of_fewer_images_than_features_is_flagged_and_has_no_interval():
    """Of two sets of one distribution with a flat spectrum: far from the truth, which is zero."""
    for seed in range(3):
        found = fd_infinity(normal(100, 128, seed), normal(100, 128, seed + 50))
        assert 12 < found["value"] < 18 and found["low"] is found["high"] is None
        assert found["flags"][0].startswith("fewer images than features: the extrapolation is biased")
    for sizes in ((100, 400), (400, 100)):
        found = fd_infinity(*(normal(n, 128, seed) for seed, n in enumerate(sizes)))
        assert found["low"] is None and "fewer images than features" in found["flags"][0]
    enough = fd_infinity(normal(200, 128), normal(200, 128, 1))
    assert enough["low"] < 0 < enough["high"] and enough["flags"] == []


@pytest.mark.slow
def test_fd_infinitys_interval_covers():
    hits = 0
    for seed in range(100):
        found = fd_infinity(normal(600, 8, seed, 0.1), normal(500, 8, seed + 1000), seed=seed)
        hits += found["low"] <= 8 * 0.01 <= found["high"]
    assert hits >= 90


def test_kid_and_precision_recall_are_torch_fidelitys():
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid")
    metric_prc = pytest.importorskip("torch_fidelity.metric_prc")
    x, y = normal(400, shift=0.2), normal(300, seed=1)
    a, b = x[:100], y[:100]
    kernels = [metric_kid.kernel_poly(*p, **_kid_options()) for p in ((a, a), (a, b), (b, b))]
    found = kid(a, b)
    assert found["value"] == pytest.approx(metric_kid.mmd2(*kernels))
    peer = metric_prc.calculate_precision_recall_full(torch.from_numpy(x), torch.from_numpy(y))
    found = precision_recall(x, y)
    assert (found["precision"], found["recall"]) == pytest.approx(peer)


def _kid_options():
    return {"kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}


def test_kid_of_one_distribution_is_zero_on_average_at_any_n():
    found = [kid(normal(50, seed=k), normal(80, seed=k + 500), subsets=4)["value"] for k in range(100)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 10
    assert kid(normal(50, shift=1), normal(50, seed=1))["value"] > 1


@pytest.mark.parametrize("sizes", [(60, 60), (60, 90), (90, 60), (70, 60)])
def test_kid_of_sets_no_larger_than_a_subset_is_one_number_without_spread(sizes):
    x, y = (normal(n, seed=k, shift=0.2 * k) for k, n in enumerate(sizes))
    found = kid(x, y, size=60)
    within = [sum(_k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) for s in (x, y)]
    between = sum(_k(a, b) for a in x for b in y)
    expected = sum(w / (n * (n - 1)) for w, n in zip(within, sizes, strict=True)) - 2 * between / np.prod(sizes)
    assert found["value"] == pytest.approx(expected, rel=1e-9)
    assert found["std"] is None and found["subset_size"] is None
    assert (found["n"], found["n_reference"]) == sizes and found == kid(x, y, size=60, seed=1)


def _k(a, b):
    return (a @ b / len(a) + 1) ** 3


def test_kid_of_more_images_is_the_mean_of_the_authors_subsets():
    x, y, rng = normal(130), normal(110, seed=1, shift=0.2), np.random.default_rng(5)
    each = []
    for _ in range(7):
        a, b = (f[rng.choice(len(f), 100, replace=False)] for f in (x, y))
        each.append(kid(a, b)["value"])
    found = kid(x, y, subsets=7, size=100, seed=5)
    assert found["value"] == pytest.approx(np.mean(each)) and found["std"] == pytest.approx(np.std(each))
    assert found["subset_size"] == 100 and found["std"] > 1e-4
    assert kid(normal(1100), normal(1100, seed=1))["subset_size"] == 1000


def test_cmmd_is_its_authors():
    x, y = normal(60, 8), normal(60, 8, 1, shift=0.5)

    def reference(x, y, sigma=10, scale=1000):
        x, y = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, y))
        squared = (((a[:, None] - b[None]) ** 2).sum(-1) for a, b in ((x, x), (y, y), (x, y)))
        k = [np.exp(-s / (2 * sigma**2)).mean() for s in squared]
        return scale * (k[0] + k[1] - 2 * k[2])

    assert cmmd(x, y)["value"] == pytest.approx(reference(x, y), rel=1e-6)
    assert cmmd(x, 3 * x)["value"] == pytest.approx(0, abs=1e-9)


def test_precision_and_recall_of_sets_that_cover_each_other_or_not():
    x = normal(200, 2)
    assert precision_recall(x, x) == {"precision": 1.0, "recall": 1.0, "n": 200, "n_reference": 200, "flags": []}
    far = precision_recall(x + 100, x)
    assert far["precision"] == far["recall"] == 0
    collapsed = precision_recall(np.repeat(x[:1], 200, 0), x)  # one image again and again
    assert collapsed["precision"] == 1 and collapsed["recall"] == 1 / 200


def test_what_biases_a_distance_is_flagged():
    few, more = Moments.batch(normal(10)), Moments.batch(normal(40, seed=1))
    found = frechet(few, more)
    assert np.isfinite(found["value"]) and (found["n"], found["n_reference"]) == (10, 40)
    assert found["flags"] == ["singular: n = 10 ≤ d = 16", "n = 10 against n = 40: compare only with the same two"]


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Moments.batch(np.array([[0.0, 1], [np.nan, 1]])), "features of image 1 are not finite .1 such"),
        (lambda: Moments.batch(np.zeros(3)), "one row per image"),
        (lambda: Moments.batch(np.ones((1, 3))).covariance, "covariance of 1 images"),
        (lambda: frechet_distance(np.zeros(2), np.eye(2), np.zeros(3), np.eye(3)), r"shapes \[2\], \[2, 2\], \[3\]"),
        (lambda: frechet_distance(np.zeros(2), np.full((2, 2), np.inf), np.zeros(2), np.eye(2)), "NaN or infinity"),
        (lambda: fd_infinity(normal(19), normal(40)), "FD∞ of 19 images"),
        (lambda: kid(normal(5), normal(5, d=3)), "16 and 3 wide"),
        (lambda: precision_recall(normal(3), normal(9)), "more than 3 images"),
    ],
)
def test_bad_sets_are_one_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()
