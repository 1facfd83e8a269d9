"""The batch solver against finite differences, scipy, and itself in another order or size of batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from t2ikit.laws import batch
from t2ikit.laws.intervals import bootstrap_counts

TRUTH = np.array([-0.9, -1.0, 0.6, 0.35, 0.37])


def points(n=60, seed=0, noise=0.005):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-3, 3, n), rng.uniform(-3, 3, n)
    x, y = x - x.mean(), y - y.mean()
    return x, y, np.log(batch.predict(TRUTH, x, y)) + noise * rng.standard_normal(n)


def huber(theta, x, y, target, w, delta=1e-3):
    r = np.log(batch.predict(theta, x, y)) - target
    psi = np.clip(r, -delta, delta)
    return float(np.sum(w * psi * (r - 0.5 * psi)))


@pytest.mark.parametrize("additive", [False, True])
@settings(max_examples=20, deadline=None)
@given(shift=st.lists(st.floats(-0.3, 0.3), min_size=5, max_size=5))
def test_derivatives_are_those_of_the_objective(additive, shift):
    x, y, target = points(20)
    target = np.exp(target) if additive else target
    theta = TRUTH + np.array(shift)
    data = batch._Points(x, y, target, np.arange(1, 21), np.inf, additive)  # δ = inf: smooth everywhere
    free = np.ones((1, 5), bool)
    _, gradient, hessian = data.derivatives(np.array([0]), theta[None], free)
    for j in range(5):
        step = 1e-5 * np.eye(5)[j]
        up, g_up, _ = data.derivatives(np.array([0]), (theta + step)[None], free)
        down, g_down, _ = data.derivatives(np.array([0]), (theta - step)[None], free)
        scale = np.abs(hessian[0]).max() + np.abs(gradient[0]).max()
        assert (up - down)[0] / 2e-5 == pytest.approx(gradient[0, j], abs=1e-6 * scale)
        assert (g_up - g_down)[0] / 2e-5 == pytest.approx(hessian[0, :, j], abs=1e-6 * scale)


def test_every_bootstrap_row_converges_and_no_peer_goes_lower():
    x, y, target = points(80)
    best = batch.solve(x, y, target, np.ones(80), TRUTH, tolerance=1e-20)
    counts = bootstrap_counts(80, 300, 0)
    rows = batch.solve(x, y, target, counts, best.theta[0])
    assert rows.converged.all()
    for r in range(0, 300, 30):
        w = counts[r].astype(float)
        assert rows.objective[r] == pytest.approx(huber(rows.theta[r], x, y, target, w), rel=1e-10)
        peer = minimize(huber, rows.theta[r], args=(x, y, target, w), method="Nelder-Mead",
                        options={"xatol": 1e-10, "fatol": 1e-16, "maxiter": 4000})  # fmt: skip
        assert rows.objective[r] <= peer.fun + 1e-10


def test_a_row_does_not_depend_on_its_neighbours():
    x, y, target = points(70)
    counts = bootstrap_counts(70, 200, 3)
    together = batch.solve(x, y, target, counts, TRUTH, tolerance=1e-20)
    alone = batch.solve(x, y, target, counts[17:18], TRUTH, tolerance=1e-20)
    assert together.theta[17] == pytest.approx(alone.theta[0], rel=1e-6)


def test_frozen_parameters_stay_and_absent_terms_are_absent():
    x, y, target = points(40)
    start = TRUTH.copy()
    start[1] = batch.OFF
    free = np.array([True, False, True, True, False])
    fit = batch.solve(x, y, target, np.ones(40), start, delta=np.inf, free=free)
    assert fit.theta[0, 1] == batch.OFF and fit.theta[0, 4] == TRUTH[4]
    assert fit.converged.all()


def test_noise_free_points_give_the_truth():
    x, y, target = points(25, noise=0.0)
    fit = batch.solve(x, y, target, np.ones(25), TRUTH + 0.2, tolerance=1e-20)
    assert fit.theta[0] == pytest.approx(TRUTH, abs=1e-7)


def test_memory_is_chunked(monkeypatch):
    """10,000 points × many resamples never hold more than a chunk: rows of one chunk give the rows of another."""
    x, y, target = points(30)
    counts = bootstrap_counts(30, 100, 1)
    whole = batch.solve(x, y, target, counts, TRUTH, tolerance=1e-20)
    monkeypatch.setattr(batch, "_ELEMENTS", 1)
    single = batch.solve(x, y, target, counts, TRUTH, tolerance=1e-20)
    assert whole.theta == pytest.approx(single.theta, rel=1e-5, abs=1e-6)
