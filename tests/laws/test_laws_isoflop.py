"""isoFLOP: parabolas, Fieller's interval, flags, and what is refused."""

import numpy as np
import pytest
from scipy.stats import t

from t2ikit.errors import UserError
from t2ikit.laws import fit_isoflop
from t2ikit.laws.isoflop import group_budgets

BUDGETS = np.array([1e17, 3e17, 6e17, 1e18, 3e18, 6e18])  # paper D's


def sweep(sizes=7, noise=0.0, seed=0, budgets=BUDGETS, shift=0.0):
    """Exact parabolas in log N around N_opt = 0.0009·C^0.5681."""
    u = np.linspace(-0.6, 0.6, sizes) + shift
    n = (0.0009 * budgets[:, None] ** 0.5681 * 10**u).ravel()
    c = np.repeat(budgets, sizes)
    loss = 2.3943 * c**-0.0273 + 0.02 * np.tile(u, len(budgets)) ** 2
    return c, n, loss + noise * np.random.default_rng(seed).standard_normal(len(c))


def test_paper_d_laws_come_back_from_parabolas():
    fit = fit_isoflop(*sweep(), surface=False)
    assert fit.n_opt.exponent == pytest.approx(0.5681, abs=1e-6)
    assert fit.n_opt.coefficient == pytest.approx(0.0009, rel=1e-4)
    assert fit.d_opt.exponent == pytest.approx(0.4319, abs=1e-6)
    assert fit.loss_opt.exponent == pytest.approx(-0.0273, abs=1e-6)
    assert not any(budget.flags for budget in fit.budgets)


def test_intervals_hold_the_vertices():
    fit = fit_isoflop(*sweep(noise=0.0005), surface=False)
    inside = [b.low <= 0.0009 * b.C**0.5681 <= b.high for b in fit.budgets]
    assert sum(inside) >= 5
    assert fit.n_opt.low < 0.5681 < fit.n_opt.high


def test_flags_name_what_is_wrong():
    c, n, loss = sweep(4)
    assert all("fewer than five sizes" in b.flags for b in fit_isoflop(c, n, loss, surface=False).budgets)
    c, n, loss = sweep(shift=0.8)
    edge = fit_isoflop(c, n, loss, surface=False)
    assert all("optimum at the grid's edge" in b.flags for b in edge.budgets)
    assert edge.n_opt is None and edge.as_dict()["N_opt"]["exponent"] is None
    assert any(line["check"] == "law" and line["verdict"] == "fail" for line in edge.audit)
    c, n, loss = sweep()
    down = fit_isoflop(c, n, 2 - loss, surface=False)
    assert all("curvature not positive" in b.flags and b.N_opt is None for b in down.budgets)
    noisy = fit_isoflop(*sweep(5, noise=0.02, seed=3), surface=False)
    flagged = [b for b in noisy.budgets if "curvature interval includes 0" in b.flags]
    assert flagged and all(b.low is None and b.high is None for b in flagged)


def test_untrained_points_are_left_out():
    """A size that never left its warm-up fakes a right arm: with it the optimum moves, without it is edge or right."""
    c, n, loss = sweep()
    steps = np.where(n > np.repeat(0.0009 * BUDGETS**0.5681 * 3, 7), 300, 5000)
    fake = loss + np.where(steps < 1000, 0.3, 0.0)
    fit = fit_isoflop(c, n, fake, steps=steps, surface=False)
    assert fit.n_opt.exponent == pytest.approx(0.5681, abs=1e-6)
    assert all(any("below 1000 steps" in flag for flag in b.flags) for b in fit.budgets)


def test_runs_that_serve_several_budgets_are_few():
    """One training of a size has a point at each budget: the laws' intervals know how few trainings there are."""
    ladder, budgets = np.geomspace(2e6, 4e8, 13), BUDGETS
    size, budget = np.nonzero(np.abs(np.log10(ladder[:, None] / (0.0009 * budgets**0.5681))) <= 0.6)
    c, n, luck = budgets[budget], ladder[size], 0.001 * np.random.default_rng(4).standard_normal(13)[size]
    loss = 2.3943 * c**-0.0273 + 0.02 * np.log10(n / (0.0009 * c**0.5681)) ** 2 + luck
    apart, fit = (fit_isoflop(c, n, loss, runs=runs, surface=False) for runs in (None, size))
    assert fit.n_opt.exponent == apart.n_opt.exponent and apart.jackknife is None
    without = [fit_isoflop(c[size != g], n[size != g], loss[size != g], surface=False).n_opt for g in np.unique(size)]
    exponents, k = np.array([law.exponent for law in without]), len(without)
    error = np.sqrt((k - 1) / k * np.sum((exponents - exponents.mean()) ** 2))
    assert fit.jackknife[0] == pytest.approx(t.isf(0.025, k - 1) * error)
    assert fit.n_opt.high - fit.n_opt.exponent == pytest.approx(
        max(fit.jackknife[0], apart.n_opt.high - apart.n_opt.exponent)
    )
    assert fit.n_opt.high > apart.n_opt.high and "jackknife" in fit.n_opt.interval_method
    low, high = fit.n_opt.coefficient_interval
    assert (
        low < apart.n_opt.coefficient_interval[0] < fit.n_opt.coefficient < apart.n_opt.coefficient_interval[1] < high
    )


def test_a_second_seed_is_no_second_size():
    """Seeds that agree know no more of how far sizes lie off the parabola: the intervals stay."""
    c, n, loss = sweep(noise=0.001)
    once, both = (
        fit_isoflop(c, n, loss, surface=False),
        fit_isoflop(*(np.tile(v, 2) for v in (c, n, loss)), surface=False),
    )
    for one, two in zip(once.budgets, both.budgets, strict=True):
        assert two.sizes == one.sizes and (two.low, two.high) == pytest.approx((one.low, one.high), rel=1e-9)
        assert two.N_opt == pytest.approx(one.N_opt, rel=1e-9)
    apart = fit_isoflop(*(np.tile(v, 2) for v in (c, n)), np.concatenate([loss - 0.01, loss + 0.01]), surface=False)
    assert [b.low for b in apart.budgets] == pytest.approx([b.low for b in once.budgets], rel=1e-9)


def test_budgets_of_almost_equal_compute_are_one():
    assert group_budgets(np.array([1e18, 1.04e18, 0.97e18, 3e18, 3.1e18])).tolist() == [0, 0, 0, 1, 1]


def test_compute_without_gaps_is_no_budget():
    c = 1e18 * 1.08 ** np.arange(60)
    with pytest.raises(UserError, match="^C runs from 1e\\+18 to 9.4e\\+19 FLOPs in steps below 10%"):
        fit_isoflop(c, np.tile(np.geomspace(1e7, 1e9, 6), 10), np.full(60, 0.5))


def test_few_budgets_give_vertices_and_no_law():
    fit = fit_isoflop(*sweep(budgets=BUDGETS[:3]), surface=False)
    assert fit.n_opt is None and all(b.N_opt for b in fit.budgets)


def test_scattered_budgets_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="five sizes"):
        fit_isoflop(np.logspace(17, 20, 10), rng.uniform(1e6, 1e9, 10), rng.uniform(1, 2, 10))


def test_surface_stands_beside():
    n = np.tile(np.logspace(7, 9, 7), 6)
    c = np.repeat(np.logspace(17.5, 20, 6), 7)
    best = 0.03 * c**0.5
    n = n / 1e8 * best
    loss = 1.0 + 20 / n**0.3 + 200 / (c / 6 / n) ** 0.3
    fit = fit_isoflop(c, n, loss * np.exp(0.001 * np.random.default_rng(0).standard_normal(42)), resamples=20)
    assert fit.surface is not None
    assert fit.as_dict()["surface"]["huber"]["alpha"] == pytest.approx(0.3, rel=0.2)
    assert any(line["check"] == "parabola against surface" for line in fit.audit) or fit.n_opt is None


def test_bias_of_parabolas_is_stated():
    """alpha ≠ beta on a grid of ÷16 to ×16: the vertex is off by percents, and the audit says by how much."""
    c = np.repeat(BUDGETS, 7)
    alpha, beta = 0.30, 0.45
    best = (alpha / beta * 0.1 / 0.1 * 1e8**alpha / 1e10**beta) ** (1 / (alpha + beta)) * (c / 6) ** (
        beta / (alpha + beta)
    )
    n = best * np.tile(np.logspace(-1.2, 1.2, 7), 6)
    loss = 0.5 + 0.1 * (n / 1e8) ** -alpha + 0.1 * (c / 6 / n / 1e10) ** -beta
    loss = loss * np.exp(0.0005 * np.random.default_rng(0).standard_normal(42))
    fit = fit_isoflop(c, n, loss, resamples=0)
    (line,) = [line for line in fit.audit if line["check"] == "parabola's bias"]
    actual = fit.budgets[2].N_opt / best[14] - 1
    assert line["verdict"] == "warning" and abs(line["shift"]) > 0.03
    assert line["shift"] == pytest.approx(actual, rel=0.3)
    assert "does not know of it" in line["finding"] and "surface's N_opt stands beside" in line["finding"]
    budget = fit.as_dict()["budgets"][2]
    assert abs(budget["surface_N_opt"] / best[14] - 1) < abs(budget["N_opt"] / best[14] - 1) / 5


def test_points_of_one_run_are_one_cluster_of_the_surface():
    """Each size is one training through all budgets; its own constant makes its points dependent."""
    n, c = (x.ravel() for x in np.meshgrid(np.geomspace(1e6, 1e8, 12), np.geomspace(1e17, 1e19, 5)))
    own = 0.002 * np.random.default_rng(0).standard_normal(12)
    loss = (1.7 + 400 / n**0.34 + 410 / (c / 6 / n) ** 0.28) * np.exp(np.tile(own, 5))
    order = np.random.default_rng(1).permutation(len(n))
    apart = fit_isoflop(c[order], n[order], loss[order], resamples=0)
    shared = fit_isoflop(c[order], n[order], loss[order], runs=n[order], resamples=0)
    assert "CR2 over runs" in shared.surface.huber.interval_method
    assert "CR2" not in apart.surface.huber.interval_method
    assert [b.N_opt for b in shared.budgets] == [b.N_opt for b in apart.budgets]
