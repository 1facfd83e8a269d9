"""Power laws: recovery, invariances, refusals, and a small coverage check of the t interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import linregress, t

from t2ikit.errors import UserError
from t2ikit.laws import fit_frontier, fit_power, pareto

X = np.logspace(17, 21, 9)
NOISE = np.random.default_rng(0).standard_normal(9)


@settings(max_examples=25, deadline=None)
@given(a=st.floats(1e-3, 1e3), b=st.floats(-0.8, 0.8), scale=st.floats(1e-6, 1e6))
def test_exact_laws_are_recovered_in_any_unit(a, b, scale):
    fit = fit_power(X / 1e17 * scale, a * (X / 1e17) ** b)
    assert fit.exponent == pytest.approx(b, abs=1e-7)
    assert fit.coefficient == pytest.approx(a / scale**b, rel=1e-5)


def test_log_residuals_are_the_regression_line():
    y = 2.4 * X**-0.05 * np.exp(0.02 * NOISE)
    fit, line = fit_power(X, y), linregress(np.log(X), np.log(y))
    half = t.ppf(0.975, 7) * line.stderr
    assert fit.exponent == pytest.approx(line.slope, rel=1e-9)
    assert (fit.low, fit.high) == pytest.approx((line.slope - half, line.slope + half), rel=1e-8)


def test_points_that_bend_are_no_power_law():
    u = np.linspace(-1, 1, 9)  # decades around the middle of four
    straight, bent = (10.0 ** (-0.2 * u - k * u**2) * np.exp(0.001 * NOISE) for k in (0, 0.03))
    fit = fit_power(1e10 * 10**u, bent)
    middle, low, high = fit.bend()
    line = np.polynomial.Polynomial.fit(u, np.log10(bent), 2).convert().coef
    assert middle == pytest.approx(2 * line[2], rel=1e-6) == pytest.approx(-0.06, rel=0.1) and high < 0
    assert "form" in [f["check"] for f in fit.audit if f["verdict"] == "warning"]
    low, high = fit_power(10**u, straight).bend()[1:]
    assert low < 0 < high
    assert fit_power(X, X**-0.2).bend() == pytest.approx((0, 0, 0), abs=1e-8)  # rounding is no bend
    assert fit_power(X, X**-0.2, runs=[0, 0, 1, 2, 3, 4, 5, 6, 7]).bend() is None


@pytest.mark.parametrize("unit", [1e-15, 1e15])
def test_raw_residuals_know_no_unit(unit):
    y = (30 * (X / 1e17) ** -0.4 + 2.0) * np.exp(0.01 * NOISE)
    one, other = (fit_power(X, y * scale, residuals="raw", offset=True) for scale in (1.0, unit))
    assert (other.exponent, other.low, other.high) == pytest.approx((one.exponent, one.low, one.high), rel=1e-6)


def test_uneven_noise_is_claimed_for_nothing():
    rng = np.random.default_rng(0)
    x = np.logspace(17, 20, 60)
    even = fit_power(x, x**-0.05 * np.exp(0.01 * rng.standard_normal(60)))
    uneven = fit_power(x, x**-0.05 * np.exp(0.01 * np.geomspace(8, 1 / 8, 60) * rng.standard_normal(60)))
    assert even.claimed and not uneven.claimed
    assert {"noise", "coverage"} <= {line["check"] for line in uneven.audit}


def test_raw_residuals_minimise_squares():
    y = 5 * (X / 1e17) ** -0.3 + 0.01 * NOISE
    fit = fit_power(X, y, residuals="raw")
    best = np.sum((fit.predict(X) - y) ** 2)
    for da, db in ((1.0001, 0), (0.9999, 0), (1, 1e-5), (1, -1e-5)):
        assert np.sum((fit.coefficient * da * X ** (fit.exponent + db) - y) ** 2) >= best


def test_offset_is_found_with_its_interval():
    y = (30 * (X / 1e17) ** -0.4 + 2.0) * np.exp(0.001 * NOISE)
    fit = fit_power(X, y, offset=True)
    assert fit.offset_interval[0] < 2.0 < fit.offset_interval[1]
    assert fit.low < -0.4 < fit.high
    assert fit_power(X, y).offset is None


def profiled_exponent(x, y, exponents):
    """The objective at each exponent, minimised over coefficient and offset on a grid of offsets from nought up."""
    u, best = np.log(x) - np.log(x).mean(), np.full(len(exponents), np.inf)
    for offset in np.concatenate([[0], np.geomspace(1e-4, 0.999, 150) * y.min()]):
        level = np.log(np.maximum(y - offset, 1e-3 * y.min())).mean() * np.ones(len(exponents))
        for _ in range(25):  # Gauss and Newton
            power = np.exp(level[:, None] + exponents[:, None] * u)
            residual, slope = np.log((power + offset) / y), power / (power + offset)
            level -= np.clip((slope * residual).sum(1) / (slope**2).sum(1), -0.5, 0.5)
        best = np.minimum(best, (residual**2).sum(1))
    return best


@pytest.mark.parametrize("seed", [0, 4])
def test_an_offset_that_vanished_still_widens_the_exponent(seed):
    """The best offset is nought, and a larger one with a steeper law fits almost as well."""
    x, rng = np.geomspace(1e15, 1e18, 10), np.random.default_rng(0)
    y = 50 * x**-0.1 * np.exp(0.01 * rng.standard_normal((seed + 1, 10))[-1])
    fit = fit_power(x, y, offset=True)
    assert fit.offset < 1e-6 and fit.offset_interval[0] == 0 < fit.offset_interval[1] < y.min()
    exponents = np.linspace(-0.2, -0.08, 241)
    rise = profiled_exponent(x, y, exponents)
    inside = exponents[rise <= rise.min() * (1 + t.isf(0.025, 7) ** 2 / 7)]
    assert (fit.low, fit.high) == pytest.approx((inside.min(), inside.max()), abs=0.0015)


def test_influence_is_that_of_a_weighted_point():
    x, weights = np.geomspace(1e15, 1e18, 8), np.r_[np.ones(7), 0.7]
    y = 3 * x**-0.1 * np.exp(0.002 * NOISE[:8]) * np.r_[np.ones(7), 1.3]
    fit, without = fit_power(x, y, weights=weights), fit_power(x[:7], y[:7])
    (said,) = (line["finding"] for line in fit.audit if line["check"] == "influence")
    assert f"the exponent is {without.exponent:.4g} instead of {fit.exponent:.4g}" in said


def test_weights_are_relative_precisions():
    y = 3 * X**-0.1 * np.exp(0.05 * NOISE)
    weights = np.ones(9)
    one = fit_power(X, y, weights=weights)
    assert fit_power(X, y, weights=7 * weights).low == pytest.approx(one.low, rel=1e-9)
    weights[3] = 1e-9
    without = fit_power(np.delete(X, 3), np.delete(y, 3))
    assert fit_power(X, y, weights=weights).exponent == pytest.approx(without.exponent, rel=1e-6)


def test_noise_that_the_weights_say_is_not_uneven():
    x, rng = np.geomspace(1e15, 1e18, 20), np.random.default_rng(0)
    spread = np.geomspace(0.2, 0.005, 20)
    draws = [3 * x**-0.1 * np.exp(spread * rng.standard_normal(20)) for _ in range(20)]
    weighted = [fit_power(x, y, weights=1 / spread**2) for y in draws]
    assert sum(fit_power(x, y).curvature.uneven for y in draws) > 10
    assert sum(fit.curvature.uneven for fit in weighted) < 2 and sum(fit.claimed for fit in weighted) > 18


@pytest.mark.parametrize("options", [{}, {"residuals": "raw"}, {"offset": True}, {"runs": list("aabbccdde")}])
def test_order_of_rows_changes_no_digit(options):
    y = (30 * (X / 1e17) ** -0.4 + 2.0) * np.exp(0.01 * NOISE)
    order = np.random.default_rng(5).permutation(9)
    moved = {k: np.array(v)[order] if k == "runs" else v for k, v in options.items()}
    assert fit_power(X, y, **options).to_json() == fit_power(X[order], y[order], **moved).to_json()


@pytest.mark.parametrize(
    ("x", "y", "options", "sentence"),
    [
        (X[:4], X[:4], {}, "at least 5"),
        (X[:2], X[:2], {}, "at least 5"),
        ([1, 1, 1, 2, 2], [1, 2, 3, 4, 5], {}, "different"),
        ([1, 2, 3, 4, -5], [1, 2, 3, 4, 5], {}, "positive"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, np.nan], {}, "positive"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], {}, "length"),
        (X, X, {"residuals": "ranks"}, "log"),
        (X, X, {"runs": list("aaaabbbbb")}, "runs"),
    ],
)
def test_refusals(x, y, options, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        fit_power(x, y, **options)
    assert "\n" not in str(caught.value)


def test_points_of_one_run_widen_the_interval():
    rng = np.random.default_rng(2)
    run = np.repeat(np.arange(8), 5)
    y = X[0] * (np.repeat(np.logspace(0, 3, 8), 5) * np.tile(np.logspace(0, 0.5, 5), 8)) ** -0.1
    y = y * np.exp(0.05 * np.repeat(rng.standard_normal(8), 5) + 0.002 * rng.standard_normal(40))
    c = np.repeat(np.logspace(0, 3, 8), 5) * np.tile(np.logspace(0, 0.5, 5), 8)
    alone, together = fit_power(c, y), fit_power(c, y, runs=run)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    assert alone.exponent == pytest.approx(together.exponent)


def test_t_interval_covers_at_five_points():
    rng = np.random.default_rng(11)
    x, hits = np.logspace(17, 20, 5), []
    for _ in range(400):
        fit = fit_power(x, 2 * x**-0.05 * np.exp(0.01 * rng.standard_normal(5)))
        hits.append(fit.low <= -0.05 <= fit.high)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_pareto_keeps_what_nothing_cheaper_matches():
    cost = np.array([1, 2, 2, 3, 4, 5.0])
    score = np.array([0.5, 0.6, 0.7, 0.7, 0.65, 0.9])
    assert pareto(cost, score, maximise=True).tolist() == [0, 2, 5]
    assert pareto(cost, -score, maximise=False).tolist() == [0, 2, 5]


def test_frontier_law_warns_of_few_curves():
    cost = np.tile(np.logspace(0, 2, 10), 3) * np.repeat([1, 2, 4], 10)
    score = 0.5 * cost**0.05 * np.repeat([1, 0.99, 1.01], 10)
    fit = fit_frontier(cost, score, maximise=True, runs=np.repeat(list("abc"), 10))
    assert fit.law.exponent == pytest.approx(0.05, abs=0.01)
    assert any(line["check"] == "clusters" and line["verdict"] == "warning" for line in fit.audit)
    with pytest.raises(UserError, match="frontier has"):
        fit_frontier([1, 2, 3], [3, 2, 1], maximise=True)
    for labels in (list("abc"), list("abc") * 20):
        with pytest.raises(UserError, match="The columns differ in length"):
            fit_frontier(cost, score, maximise=True, runs=labels)
