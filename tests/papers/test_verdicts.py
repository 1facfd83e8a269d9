"""The rule of every verdict: undecided ones say what n would decide them, and decided ones do not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from papers_repro import verdicts
from papers_repro.measured import count_of, decided, so_far, summary
from papers_repro.verdicts import MANY, in_noise, mean_interval, needed, ranked, ranked_within, table, verdict


def half_of(values_scatter: float, n: int, lost: int, power: float = 0.5) -> float:
    return (stats.t.isf(0.025, n - lost) + stats.t.ppf(power, n - lost)) * values_scatter / n**0.5


@given(st.floats(0.01, 0.5), st.integers(3, 9), st.sampled_from([1, 2]))
def test_the_n_that_is_needed_is_the_first_whose_interval_decides_in_8_of_10_trials(value, n, lost):
    half = half_of(1.0, n, lost)
    found = needed(value, value - half, value + half, n, (0.0, np.inf), lost)
    if half_of(1.0, n, lost, 0.8) <= value:
        assert found == n
    elif found is None:
        assert half_of(1.0, MANY, lost, 0.8) > value
    else:
        assert half_of(1.0, found, lost, 0.8) <= value < half_of(1.0, found - 1, lost, 0.8)


def test_the_n_that_is_said_to_decide_does_in_8_of_10_trials():
    rng = np.random.default_rng(0)
    low, high = mean_interval(np.array([-0.2, 0.5, 1.2]))
    n = needed(0.5, low, high, 3, (0.0, np.inf))
    trials = rng.normal(0.5, 0.7, [4000, n])
    decided = trials.mean(1) - stats.t.isf(0.025, n - 1) * trials.std(1, ddof=1) / n**0.5 > 0
    assert 0.76 < decided.mean() < 0.88


def test_three_seeds_say_how_many_would_do():
    gains = np.array([0.0, 0.01, 0.02])
    low, high = mean_interval(gains)
    assert low < 0 < high
    row = verdicts.verdict("S4", "ahead", "tiny", "> 0", 0.01, low, high, 3, (0, np.inf),
                           needs=needed(0.01, low, high, 3, (0, np.inf)))  # fmt: skip
    assert (row["verdict"], row["needs"]) == ("undecided", 10)  # (t 2.262 + 0.883 at power 0.8) / √10 = 0.994 ≤ 1
    decided = verdicts.verdict("S4", "ahead", "tiny", "> 0", 0.01, 0.001, 0.02, 3, (0, np.inf), needs=7)
    assert (decided["verdict"], decided["needs"]) == ("reproduced", None)


def test_an_interval_about_the_end_itself_has_no_n():
    assert needed(0.02, 0.0, 0.04, 3, (-0.02, 0.02)) is None
    assert needed(0.01, None, None, 1, (0.0, np.inf)) is None


@pytest.mark.parametrize("value", [0.0001, 0.002, 0.01, -0.03])
def test_between_two_ends_either_may_be_missed(value):
    """By the nearer end alone, a value in the middle was decided in 62 of 100 trials."""
    rng, margin = np.random.default_rng(1), 0.02
    half = stats.t.isf(0.025, 2) * 0.02 / 3**0.5
    n = needed(value, value - half, value + half, 3, (-margin, margin))
    trials = rng.normal(value, 0.02, [4000, n])
    halves, means = stats.t.isf(0.025, n - 1) * trials.std(1, ddof=1) / n**0.5, trials.mean(1)
    within, beyond = np.abs(means) + halves <= margin, np.abs(means) - halves > margin
    assert 0.76 < (within if abs(value) < margin else beyond).mean() < 0.88


def test_a_rank_correlation_contradicts_only_below_what_noise_leaves_of_it():
    row = verdict("S21", "ranks alike", "tiny", "> 0.7", 0.2, -0.3, 0.62, 15, (verdicts.STRONG, 1))
    assert row["verdict"] == in_noise(row, 0.9, "scores")["verdict"] == "contradicted"  # 0.9 · 0.7 = 0.63
    for left in (0.85, 0.5):
        found = in_noise(row, left, "scores")
        assert found["verdict"] == "undecided"
        assert found["why"] == f"noise of the scores leaves about {left:.2f} of a rho"
    above = verdict("S21", "ranks alike", "tiny", "> 0.7", 0.9, 0.8, 0.95, 15, (verdicts.STRONG, 1))
    assert in_noise(above, 0.0, "scores") == above  # noise makes no correlation
    low = verdict("S21", "ranks alike", "tiny", "> 0.7", 0.5, 0.1, 0.8, 15, (verdicts.STRONG, 1), needs=40)
    assert in_noise(low, 0.9, "scores") == low | {"needs": None}  # 40 were enough to contradict without noise


def test_a_rank_correlation_says_how_many_runs_would_do():
    rng = np.random.default_rng(0)
    x = np.arange(12.0)
    row = ranked("TIFA", "ranks alike", x, x + rng.normal(0, 2.5, 12), "tiny")
    assert row["verdict"] == "undecided" and 12 < row["needs"] < MANY
    place, end = np.arctanh([row["ours"], verdicts.STRONG])
    widths = [(1.96 + 0.8416) * ((1 + row["ours"] ** 2 / 2) / (row["needs"] - 3 - less)) ** 0.5 for less in (0, 1)]
    assert widths[0] <= abs(place - end) * (1 + 1e-4) and abs(place - end) < widths[1]
    assert ranked("TIFA", "ranks alike", x, x, "tiny")["needs"] is None


def test_a_rank_correlation_at_the_threshold_is_rarely_called_strong():
    """8 pairs from a Gaussian whose rank correlation is 0.7: at most 2.5% of trials may say that it is above."""
    rng, n = np.random.default_rng(0), 8
    pearson = 2 * np.sin(np.pi * verdicts.STRONG / 6)
    x = rng.normal(size=[3000, n])
    y = pearson * x + (1 - pearson**2) ** 0.5 * rng.normal(size=[3000, n])
    rows = [ranked("S24", "", *pair, "tiny") for pair in zip(x, y, strict=True)]
    assert np.mean([r["verdict"] == "reproduced" for r in rows]) <= 0.025


def test_what_else_orders_the_runs_is_no_agreement():
    """Runs of two lengths: what falls with length alone does not rank those of one length."""
    rng = np.random.default_rng(1)
    groups = [pd.DataFrame({"x": k + rng.random(8), "y": k + rng.random(8)}) for k in (0, 10)]
    both = pd.concat(groups)
    assert ranked("S24", "", both["x"].to_numpy(), both["y"].to_numpy(), "tiny")["verdict"] != "contradicted"
    row = ranked_within("S24", "", groups, "x", "y", 16, "tiny", "lengths")
    assert row["ours"] < verdicts.STRONG and row["verdict"] != "reproduced" and row["n"] == 16
    alike = [g.assign(y=g["x"] ** 3) for g in groups]
    assert ranked_within("S24", "", alike, "x", "y", 16, "tiny", "lengths")["verdict"] == "reproduced"
    # the same runs in every group: more groups are no more runs
    one, many = (ranked_within("D12", "", groups[:1] * k, "x", "y", 8, "tiny", "budgets") for k in (1, 5))
    assert (one["low"], one["high"]) == (many["low"], many["high"])
    assert ranked_within("D12", "", [groups[0][:4]], "x", "y", 4, "tiny", "budgets")["verdict"] == "undecided"


def test_smoke_asks_for_no_more_runs_of_its_own():
    (row,) = verdicts.table(
        [verdicts.verdict("S4", "ahead", "smoke", "> 0", 0.01, -0.1, 0.1, 3, (0, 1), needs=40)]
    ).to_dict("records")
    assert row["verdict"] == "undecided" and row["needs"] is None


def test_a_table_says_how_much_has_not_been_measured_and_on_which_world():
    one = verdict("S4", "a is ahead of b", "tiny", "> 0", 0.1, 0.05, 0.15, 3, (0, np.inf))
    none = verdict("S5", "b is ahead of c", "tiny", "> 0", why="not measured")
    text = so_far(pd.concat([table([one, none]).assign(world="pictograms"), table([none]).assign(world="–")]))
    assert "a is ahead of b, on pictograms | > 0 | 0.100 (0.050 to 0.150) | 3 | reproduced |" in text
    assert "b is ahead" not in text and "Not measured yet: 2 of 3 comparisons." in text
    assert so_far(table([none])).strip() == "Not measured yet: 1 of 1 comparisons."
    assert "yet" not in so_far(table([one]))
    assert summary(table([one, none])) == "S4 reproduced (1 of 2 parts measured)" and summary(table([none])) == "–"
    unfit = verdict("S6", "c falls", "tiny", "> 0", why="a line needs three backbones in each series")
    assert "a line needs three" in so_far(table([unfit])) and "yet" not in so_far(table([unfit]))
    assert summary(table([unfit])) == "S6 undecided"


def test_the_n_that_decides_is_of_the_intervals_own_level():
    values = np.array([0.5, 1.0, 1.5, 2.2])
    usual, wider = (
        needed(values.mean(), *mean_interval(values, level), 4, (0.9, np.inf), level=level) for level in (0.95, 0.975)
    )
    assert usual < wider < 1.5 * usual


def test_what_is_decided_stands_alone_and_all_is_counted():
    rows = [
        verdict("S4", "a is ahead of b", "tiny", "> 0", 0.1, 0.05, 0.15, 3, (0, np.inf)),
        verdict("S5", "b is ahead of c", "tiny", "> 0", -0.1, -0.15, -0.05, 3, (0, np.inf)),
        verdict("S6", "c is ahead of d", "tiny", "> 0", 0.1, -0.05, 0.25, 3, (0, np.inf)),
    ]
    both = pd.concat([table(rows[:1]).assign(world="scenes"), table(rows[1:])])  # one paper names worlds
    text = decided(both)
    assert "a is ahead of b | > 0 | 0.100 (0.050 to 0.150) | 3 | reproduced |" in text
    assert "b is ahead of c | > 0 | -0.100 (-0.150 to -0.050) | 3 | contradicted |" in text
    assert "c is ahead" not in text and "world" not in text and " on " not in text
    assert count_of(both) == "1 reproduced, 1 contradicted, 1 undecided"
