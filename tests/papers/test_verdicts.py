"""The rule of every verdict: undecided ones say what n would decide them, and decided ones do not."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from papers_repro import verdicts
from papers_repro.measured import so_far, summary
from papers_repro.verdicts import MANY, mean_interval, needed, ranked, table, verdict


def half_of(values_scatter: float, n: int, lost: int) -> float:
    return stats.t.isf(0.025, n - lost) * values_scatter / n**0.5


@given(st.floats(0.01, 0.5), st.integers(3, 9), st.sampled_from([1, 2]))
def test_the_n_that_is_needed_is_the_first_whose_interval_decides(value, n, lost):
    half = half_of(1.0, n, lost)
    found = needed(value, value - half, value + half, n, 0.0, lost)
    if half <= value:
        assert found == n
    elif found is None:
        assert half_of(1.0, MANY, lost) > value
    else:
        assert half_of(1.0, found, lost) <= value < half_of(1.0, found - 1, lost)


def test_three_seeds_say_how_many_would_do():
    gains = np.array([0.0, 0.01, 0.02])
    low, high = mean_interval(gains)
    assert low < 0 < high
    row = verdicts.verdict("S4", "ahead", "tiny", "> 0", 0.01, low, high, 3, (0, np.inf),
                           needs=needed(0.01, low, high, 3, 0))  # fmt: skip
    assert (row["verdict"], row["needs"]) == ("undecided", 7)  # t of 6 degrees 2.447 / √7 = 0.925 < 1 < 1.049 with 6
    decided = verdicts.verdict("S4", "ahead", "tiny", "> 0", 0.01, 0.001, 0.02, 3, (0, np.inf), needs=7)
    assert (decided["verdict"], decided["needs"]) == ("reproduced", None)


def test_an_interval_about_the_end_itself_has_no_n():
    assert needed(0.02, 0.0, 0.04, 3, 0.02) is None
    assert needed(0.01, None, None, 1, 0.0) is None


def test_a_rank_correlation_says_how_many_runs_would_do():
    rng = np.random.default_rng(0)
    x = np.arange(12.0)
    row = ranked("TIFA", "ranks alike", x, x + rng.normal(0, 2.5, 12), "tiny")
    assert row["verdict"] == "undecided" and 12 < row["needs"] < MANY
    place, end = np.arctanh([row["ours"], verdicts.STRONG])
    widths = [1.96 * (1.06 / (row["needs"] - 3 - less)) ** 0.5 for less in (0, 1)]
    assert widths[0] <= abs(place - end) * (1 + 1e-4) and abs(place - end) < widths[1]
    assert ranked("TIFA", "ranks alike", x, x, "tiny")["needs"] is None


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
