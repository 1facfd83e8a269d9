"""The surface: recovery, both estimators, allocation, intervals, refusals, and other authors' published numbers."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from t2ikit.errors import UserError
from t2ikit.laws import batch, fit_overtrained, fit_surface, hold_out_largest, leave_one_model_out, next_runs, pareto
from t2ikit.laws.checks import of_surface
from t2ikit.laws.intervals import spearman
from t2ikit.laws.nextrun import after_one_more
from t2ikit.laws.profile import curvature

DATA = Path(__file__).parent.parent / "data_files"
LAW = {"A": 480.0, "B": 2085.0, "E": 1.8, "alpha": 0.348, "beta": 0.366}


def grid(budgets=6, sizes=5, noise=0.0, seed=0):
    c = np.logspace(18, 21, budgets)
    n = (0.07 * np.sqrt(c)[:, None] * np.logspace(-0.6, 0.6, sizes)).ravel()
    d = np.repeat(c, sizes) / 6 / n
    loss = LAW["E"] + LAW["A"] / n ** LAW["alpha"] + LAW["B"] / d ** LAW["beta"]
    return n, d, loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(n)))


def language_models(dataset):
    with (DATA / "mlfoundations_scaling_c4val.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["dataset"] == dataset]
    small = [r for r in rows if not r["model"].startswith("open") and (
        float(r["cc_mult"]) == 1 or (r["model"].startswith("d=96") and float(r["cc_mult"]) == 16))]  # fmt: skip
    large = [r for r in rows if r["model"].startswith("open")]

    def columns(some):
        return tuple(np.array([float(r[name]) for r in some]) for name in ("params", "tokens", "loss_c4_val"))

    return columns(small), columns(large), columns(rows)


@pytest.mark.parametrize("which", ["huber", "vpnls"])
def test_noise_free_points_give_the_law(which):
    found = getattr(fit_surface(*grid(), resamples=50), which)
    for name, value in LAW.items():
        assert getattr(found, name) == pytest.approx(value, rel=2e-3), name
    assert found.alpha == pytest.approx(LAW["alpha"], rel=1e-4)
    assert found.converged == 1.0
    assert found.objective < 1e-12


def test_allocation_minimises_the_loss_at_equal_compute():
    found = fit_surface(*grid(noise=0.003), resamples=0).huber
    for c in (1e18, 3e21):
        best = minimize_scalar(lambda u, c=c: float(found.predict(np.exp(u), c / 6 / np.exp(u))), bounds=(10, 30),
                               method="bounded", options={"xatol": 1e-10})  # fmt: skip
        assert found.n_opt(c) == pytest.approx(np.exp(best.x), rel=1e-4)
        assert 6 * found.n_opt(c) * found.d_opt(c) == pytest.approx(c)
    assert found.n_opt(1e21) / found.n_opt(1e20) == pytest.approx(10**found.a)


def test_slope_of_n_opt_is_its_derivative():
    found = fit_surface(*grid(noise=0.003), resamples=0).huber
    x0, y0 = found.centre

    def log_n(theta):
        log_a, log_b, al, be = theta[0] + theta[3] * x0, theta[1] + theta[4] * y0, theta[3], theta[4]
        return (np.log(al / be) + log_a - log_b + be * np.log(1e22 / 6)) / (al + be)

    theta = found.curvature.theta
    numeric = [(log_n(theta + 1e-6 * e) - log_n(theta - 1e-6 * e)) / 2e-6 for e in np.eye(5)]
    assert found.n_opt_slope(1e22) == pytest.approx(numeric, rel=1e-5, abs=1e-8)


def test_order_of_rows_and_seed_decide_every_digit():
    n, d, loss = grid(noise=0.004)
    order = np.random.default_rng(1).permutation(len(n))
    one = fit_surface(n, d, loss, resamples=200).to_json()
    assert one == fit_surface(n[order], d[order], loss[order], resamples=200).to_json()
    assert one != fit_surface(n, d, loss, resamples=200, seed=1).to_json()


def test_small_even_tables_are_profiled_and_cover_the_truth():
    fit = fit_surface(*grid(noise=0.003), resamples=300)
    assert fit.huber.interval_method.startswith("profile")
    for found in (fit.huber, fit.vpnls):
        for name in ("alpha", "beta", "E"):
            low, high = found.intervals[name]
            assert low < getattr(found, name) < high
            assert low < LAW[name] < high
        low, high = found.intervals["a"]
        assert low < LAW["beta"] / (LAW["alpha"] + LAW["beta"]) < high


def test_uneven_noise_is_noticed_and_allowed_for():
    n, d, loss = grid(12, 6)
    rng = np.random.default_rng(3)
    loss = loss * np.exp(0.001 * (d / d.max()) ** -0.6 * rng.standard_normal(len(n)))
    fit = fit_surface(n, d, loss, resamples=0)
    assert fit.huber.interval_method.startswith("HC2")
    assert any(line["check"] == "noise" for line in of_surface(fit))


def test_points_of_one_run_are_one_cluster():
    rng = np.random.default_rng(4)
    size = np.repeat(np.logspace(7.5, 9.5, 12), 5)
    d = size * np.repeat(np.tile([15, 60], 6), 5) * np.tile(np.logspace(-1.2, 0, 5), 12)
    loss = LAW["E"] + LAW["A"] / size ** LAW["alpha"] + LAW["B"] / d ** LAW["beta"]
    loss = loss * np.exp(0.01 * np.repeat(rng.standard_normal(12), 5))
    runs = np.repeat(np.arange(12), 5)
    fit = fit_surface(size, d, loss, runs=runs, resamples=100)
    assert fit.huber.interval_method.startswith("CR2")
    with pytest.raises(UserError, match="runs"):
        fit_surface(size[:25], d[:25], loss[:25], runs=runs[:25])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda n, d, v: (n[:6], d[:6], v[:6]), "at least 7"),
        (lambda n, d, v: (n, 20 * n, v), "one line"),
        (lambda n, d, v: (np.full_like(n, 1e9), d, v), "three"),
        (lambda n, d, v: (n, d, -v), "positive"),
        (lambda n, d, v: (n, d, np.full_like(v, 2.0)), "nothing depends"),
        (lambda n, d, v: (n, d[:-1], v), "length"),
    ],
)
def test_refusals(change, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        fit_surface(*change(*grid()))
    assert "\n" not in str(caught.value)


def test_a_floor_of_nought_is_said_to_be_open():
    n, d, loss = grid(noise=0.01)
    fit = fit_surface(n, d, loss - LAW["E"], resamples=0)
    assert fit.huber.intervals["E"][0] == 0.0
    assert any(line["check"] == "floor" for line in of_surface(fit))


def test_no_random_start_goes_lower():
    """300 starts all over the place never beat the projection's by more than 1e-10."""
    rng = np.random.default_rng(9)
    n, d = 10 ** rng.uniform(7, 10, 20), 10 ** rng.uniform(9, 12, 20)
    loss = (1.8 + 480 / n**0.35 + 2000 / d**0.37) * np.exp(0.03 * rng.standard_t(2, 20))
    fit = fit_surface(n, d, loss, resamples=0)
    starts = np.c_[rng.uniform(-4, 3, (300, 2)), rng.uniform(-4, 2, 300), rng.uniform(-0.5, 2.5, (300, 2))]
    for found in (fit.huber, fit.vpnls):
        best = found.curvature.problem.solve(starts).objective.min()
        assert found.objective <= best + 1e-10


def test_one_wild_run_moves_raw_residuals_not_huber():
    n, d, loss = grid(noise=0.001)
    loss[7] *= 1.3
    fit = fit_surface(n, d, loss, resamples=0)
    assert fit.huber.alpha == pytest.approx(LAW["alpha"], rel=0.1)
    assert abs(fit.vpnls.alpha - LAW["alpha"]) > abs(fit.huber.alpha - LAW["alpha"])
    assert any(line["check"] == "outlier" for line in of_surface(fit))


def test_authors_form_on_their_runs():
    """Gadre et al. 2024, RedPajama: five small runs predict 1.4B at M = 640 and 6.9B."""
    small, large, _ = language_models("rpj")
    fit = fit_overtrained(*small)
    assert (round(fit.alpha, 1), round(fit.beta, 1)) == (166.2, 366.7)
    assert (round(fit.b, 4), round(fit.E, 4)) == (-0.2729, 1.8366)
    n, d, loss = large
    error = dict(zip((d / n).round().astype(int).tolist(), 100 * np.abs(fit.predict(n, d) / loss - 1), strict=False))
    assert round(error[640], 2) == 0.71
    biggest = int(np.argmax(n))
    assert round(100 * abs(float(fit.predict(n[biggest], d[biggest])) / loss[biggest] - 1), 2) == 0.73
    with pytest.raises(UserError, match="at least 5"):
        fit_overtrained(n, d, loss)


def test_hold_out_predicts_the_large_language_model():
    _, _, (n, d, loss) = language_models("rpj")
    with pytest.raises(UserError, match="The columns differ in length"):
        hold_out_largest(n, d, loss, runs=np.zeros(len(n) - 1))
    held = hold_out_largest(n, d, loss)
    assert held["points"] == 1 and held["fitted_on"] == len(n) - 1
    assert held["error"] < 0.01 and held["covered"] == 1.0
    assert held["skill_over_last_budget"] > 0.5 and held["skill_over_power_law"] > 0.5
    models = leave_one_model_out(n, d, loss)
    assert [m["model"] for m in models] == sorted(set(n.tolist()))
    assert models[-1]["error"] < 0.02


def test_a_floor_that_vanished_lies_below_the_losses():
    """Raw residuals of noise in proportion to the loss: their linear interval of log E ended above every loss."""
    rng, n = np.random.default_rng(3), np.repeat(np.geomspace(1e7, 1e9, 5), 4)
    d = n * np.tile([5, 15, 50, 150], 5)
    for _ in range(2):
        loss = (400 / n**0.34 + 400 / d**0.34) * np.exp(0.004 * rng.standard_normal(20))
    fit = fit_surface(n, d, loss, resamples=0)
    for found in (fit.huber, fit.vpnls):
        assert found.E < 1e-9 and found.intervals["E"] == pytest.approx((0.0, 0.0145), abs=0.0015)
    assert not fit.vpnls.claimed


def test_a_lucky_seed_is_not_the_best_size():
    n, d, loss = grid(noise=0.002)
    alone = hold_out_largest(n, d, loss)
    lucky = np.flatnonzero(d * n > 0.5 * (d * n).max())[0]  # the smallest size of the largest budget
    seeds = [np.append(v, [v[lucky]] * 2) for v in (n, d)]
    held = hold_out_largest(*seeds, np.append(loss, loss[lucky] + np.array([-0.1, 0.1]) * loss[lucky]))
    assert held["best_loss"] == pytest.approx(alone["best_loss"])
    assert held["skill_over_last_budget"] == pytest.approx(alone["skill_over_last_budget"])


def test_one_budget_cannot_be_held_out():
    n, d, loss = grid(1, 12)
    with pytest.raises(UserError, match="one budget"):
        hold_out_largest(n, d, loss)


def test_next_run_stays_within_allowance_and_narrows():
    fit = fit_surface(*grid(5, 4, noise=0.003), resamples=0)
    best = next_runs(fit, allowance=1e21, target=1e22)
    assert all(run["C"] <= 1e21 * 1.0001 for run in best)
    assert best[0]["share_of_variance_left"] < 0.95
    assert [r["share_of_variance_left"] for r in best] == sorted(r["share_of_variance_left"] for r in best)
    with pytest.raises(UserError, match="allowance"):
        next_runs(fit, allowance=1.0, target=1e22)


def test_predicted_narrowing_is_that_of_a_table_with_the_run_in_it():
    fit = fit_surface(*grid(5, 4, noise=0.003), resamples=0)
    found, n, d = fit.huber, 2e9, 3e10
    (promised,), _, before = after_one_more(fit, np.array([n]), np.array([d]), 1e22)
    even = curvature(found.curvature.problem, found.curvature.theta, found.objective, robust=False)

    def derivatives(x, y):
        fitted, slopes = batch.jacobian(even.theta, x, y)
        return slopes / fitted[:, None]

    old = derivatives(even.problem.x, even.problem.y)
    new = derivatives(np.log([n]) - found.centre[0], np.log([d]) - found.centre[1])
    contrast = found.n_opt_slope(1e22)
    variances = [contrast @ np.linalg.inv(rows.T @ rows) @ contrast for rows in (old, np.vstack([old, new]))]
    assert promised / before == pytest.approx(variances[1] / variances[0], rel=1e-6)


def test_a_law_without_an_optimum_says_so_and_is_drawn_as_points():
    n, d = (side.ravel() for side in np.meshgrid(np.geomspace(1e6, 1e8, 5), np.geomspace(1e7, 1e9, 5)))
    loss = 0.5 + 0.02 * n**0.1 + 300 / d**0.35  # large models badly tuned
    fit = fit_surface(n, d, loss * (1 + 0.005 * np.random.default_rng(0).standard_normal(25)), resamples=0)
    assert fit.huber.alpha < 0 and not fit.huber.has_optimum
    for asked in (fit.huber.n_opt, fit.huber.d_opt, fit.huber.n_opt_interval):
        with pytest.raises(UserError, match="there is no optimum"):
            asked(1e18)
    assert fit.as_dict()["allocation"]["a"] is None
    assert "no optimum" in json.dumps(fit.chart().to_dict()) and not checks_of(fit, "noise model")


def checks_of(fit, name: str) -> list[dict]:
    return [finding for finding in of_surface(fit) if finding["check"] == name]


def test_the_over_training_form_needs_sizes_and_tokens_that_vary_independently():
    n = np.geomspace(1e7, 1e9, 6)
    with pytest.raises(UserError, match="lie on one line"):
        fit_overtrained(n, 20 * n, 1.8 + 800 / (20 * n) ** 0.3)
    with pytest.raises(UserError, match="N takes one value"):
        fit_overtrained(np.full(6, 1e8), n, 2 + 410 / n**0.28)


def test_points_without_a_number_are_refused():
    n, d = (side.ravel() for side in np.meshgrid(np.geomspace(1e6, 1e8, 4), np.geomspace(1e7, 1e9, 4)))
    loss = 1.8 + 400 / n**0.34 + 410 / d**0.28
    loss[-1] = np.nan  # at the largest budget
    with pytest.raises(UserError, match="loss holds nan"):
        hold_out_largest(n, d, loss)
    with pytest.raises(UserError, match="loss holds nan"):
        leave_one_model_out(n, d, loss)
    with pytest.raises(UserError, match=r"Point 0 is \(1, nan\)"):
        pareto([1, 2, 3], [np.nan, 2, 1], maximise=False)
    with pytest.raises(UserError, match=r"Point 2 is \(3, nan\)"):
        spearman([1, 2, 3], [1, 2, np.nan])
    with pytest.raises(UserError, match="differ in length"):
        spearman([1, 2, 3], [1, 2])
