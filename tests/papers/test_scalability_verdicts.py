"""Paper S's verdicts: seeds decide, one seed does not, and equal compute is not equal steps."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit

from papers_repro.scalability.verdicts import FIG03, FIG04, Ahead, Slope, Sooner, decide, reached
from t2ikit.results import Results, combine


def curves(**scores: list[list[float]]) -> pd.DataFrame:
    """Flip accuracies at steps 100, 200, 400 of backbones' seeds; a step of `big` costs twice that of the others."""
    rows = []
    for backbone, of_seeds in scores.items():
        for seed, values in enumerate(of_seeds):
            for step, value in zip((100, 200, 400), values, strict=True):
                cost = step * (2e9 if backbone == "big" else 1e9)
                rows.append({"backbone": backbone, "seed": seed, "step": step, "flops_paper": cost, "tier": "tiny"})
                rows[-1] |= {"world": "scenes", "source": "committed", "flip_accuracy": value}
                rows[-1] |= {"flip_accuracy_se": 0.01}
                rows[-1]["run"] = f"{backbone}-{seed}"
    return pd.DataFrame(rows)


def of(curves):
    """The curves as results, a million parameters for each letter of a backbone's name."""
    return Results(curves.drop_duplicates("run").assign(N=lambda c: c["backbone"].str.len() * 1e6), curves)


def test_three_seeds_decide_and_the_difference_is_taken_seed_by_seed():
    small = [[0.6, 0.65, 0.70], [0.6, 0.65, 0.71], [0.6, 0.65, 0.72]]
    big = [[0.6, 0.65, s[2] + gain] for s, gain in zip(small, (0.06, 0.05, 0.04), strict=True)]
    row = Ahead("S4", "big", "small")(curves(small=small, big=big))
    assert row["verdict"] == "reproduced" and row["n"] == 3
    assert row["ours"] == pytest.approx(0.05)
    assert row["high"] - row["ours"] == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)  # t of two degrees of freedom
    assert Ahead("S4", "small", "big")(curves(small=small, big=big))["verdict"] == "contradicted"


def test_inside_two_standard_errors_of_the_seeds_nothing_is_decided_however_alike_the_pairs_are():
    small = [[0.6, 0.65, 0.70], [0.6, 0.65, 0.75]]
    big = [[0.6, 0.65, s[2] + 0.01] for s in small]
    row = Ahead("S9", "big", "small", margin=0.02)(curves(small=small, big=big))
    assert row["verdict"] == "undecided" and row["ours"] == pytest.approx(0.01)
    assert row["high"] - row["ours"] == pytest.approx(
        2 * 0.05 / 2**0.5
    )  # 0.05: of a difference, by the spread of seeds


def test_one_seed_shows_an_interval_and_decides_nothing():
    row = Ahead("S4", "big", "small")(curves(small=[[0.5, 0.5, 0.5]], big=[[0.9, 0.9, 0.9]]))
    assert row["verdict"] == "undecided" and "one seed" in row["why"]
    assert row["high"] - row["ours"] == pytest.approx(1.96 * 0.01 * 2**0.5, rel=1e-3)


def test_at_equal_compute_the_dearer_backbone_has_taken_fewer_steps():
    one = curves(small=[[0.5, 0.6, 0.7]], big=[[0.5, 0.65, 0.9]])
    assert Ahead("S6", "big", "small")(one)["ours"] == pytest.approx(0.2)
    assert Ahead("S6", "big", "small", "flops_paper")(one)["ours"] == pytest.approx(0.65 - 0.7)


def test_a_score_at_the_end_alone_says_nothing_of_equal_compute():
    one = curves(small=[[0.5, 0.6, 0.7]], big=[[0.5, 0.65, 0.9]]).query("step == 400")
    row = Ahead("S6", "small", "big", "flops_paper")(one)
    assert row["ours"] is None and row["why"] == "one of the two was not scored at equal compute"
    assert Ahead("S4", "big", "small")(one)["ours"] == pytest.approx(0.2)


def test_live_rows_without_flips_do_not_disturb():
    one = curves(small=[[0.5, 0.6, 0.7]], big=[[0.5, 0.65, 0.9]])
    live = one.assign(source="live", world="pictograms", flip_accuracy=None, flip_accuracy_se=None)
    table = decide(of(pd.concat([one, live])), [Ahead("S4", "big", "small")])
    assert table["ours"].tolist() == pytest.approx([0.2]) and table["world"].tolist() == ["scenes"]


def test_what_was_not_trained_is_undecided():
    row = Ahead("S4", "big", "small")(curves(small=[[0.5, 0.6, 0.7]]))
    assert row["verdict"] == "undecided" and row["why"] == "not measured"
    nothing = decide(combine([], "committed"), (*FIG03, *FIG04), "tifa")
    assert len(nothing) == len(FIG03 + FIG04) and set(nothing["verdict"]) == {"undecided"}
    assert set(nothing["why"]) == {"not measured", "a line needs three backbones in each series"}


def test_sooner_is_read_off_the_curve_between_evaluations():
    curve = curves(small=[[0.5, 0.6, 0.7]])
    assert reached(curve, "step", "flip_accuracy", 0.55) == (pytest.approx(100 * 2**0.5), "")
    assert reached(curve, "step", "flip_accuracy", 0.4) == (100, "there when first scored: counted from then")
    assert reached(curve, "step", "flip_accuracy", 0.8) == (400, "not there at the end: counted as if")
    both = curves(small=[[0.5, 0.6, 0.7]] * 2, big=[[0.6, 0.7, 0.9], [0.5, 0.7, 0.9]])
    row = Sooner("S5", "big", "small", 1.5)(both)
    assert (row["ours"], row["n"], row["verdict"]) == (pytest.approx(2), 2, "reproduced")
    assert Sooner("S5", "big", "small", 1.5, "flops_paper")(both)["ours"] == pytest.approx(1)


def test_a_run_that_is_first_scored_late_contradicts_no_large_factor():
    """From the first of the steps 100, 200, 400 on, nobody can be seen to be there with an eighth of the steps."""
    both = curves(small=[[0.5, 0.6, 0.7]] * 3, big=[[0.7, 0.8, 0.9], [0.71, 0.8, 0.9], [0.69, 0.8, 0.9]])
    assert Sooner("S5", "big", "small", 3)(both)["verdict"] == "reproduced"
    row = Sooner("S5", "big", "small", 8)(both)
    assert row["high"] < 8 and row["verdict"] == "undecided" and "too late to see more than 4 times" in row["why"]


def test_who_does_not_get_there_is_no_sooner_than_its_end():
    both = curves(small=[[0.5, 0.6, 0.7], [0.5, 0.6, 0.71]], big=[[0.3, 0.4, 0.5], [0.3, 0.4, 0.72]])
    row = Sooner("S5", "big", "small", 3)(both)
    assert 1 <= row["ours"] < 1.1 and row["why"] == "1 of 2 not there at the end: counted as if"
    one = Sooner("S5", "big", "small", 3)(both.query("seed == 0"))
    assert (one["ours"], one["verdict"]) == (1, "undecided") and one["why"].startswith("one seed; 1 of 1")
    first = both.loc[both["step"] > 0, "step"].min()
    short = both[(both["backbone"] == "small") | (both["step"] <= first)]  # stopped far below it
    row = Sooner("S5", "big", "small", 2)(short)
    assert row["verdict"] == "undecided" and row["why"].startswith("2 of 2 not there at the end")


def test_what_a_doubling_of_parameters_buys():
    """Two lines through one backbone that both series have, which counts once."""
    scores = {"a": 0.1, "aa": 0.2, "aaaa": 0.31, "bb": 0.15, "bbbb": 0.21}
    table = curves(**{name: [[0, 0, score - 1e-5], [0, 0, score + 1e-5]] for name, score in scores.items()})
    rows = of(table)
    claim = Slope("S11", "a buys more than b", ("a", "aa", "aaaa"), ("a", "bb", "bbbb"))
    row = decide(rows, [claim]).iloc[0]
    x = np.array([[0, 1, 2, 0, 0], [0, 0, 0, 1, 2]], float)
    lines, covariance = curve_fit(lambda x, at, a, b: at + a * x[0] + b * x[1], x, list(scores.values()))
    assert row["ours"] == pytest.approx(lines[1] - lines[2], rel=1e-6)
    error = np.array([0, 1, -1]) @ covariance @ np.array([0, 1, -1])
    assert row["high"] - row["ours"] == pytest.approx(4.3027 * error**0.5, rel=1e-3)  # t of two degrees of freedom
    assert row["n"] == 5 and row["verdict"] == "reproduced" and row["why"] == ""
    some = decide(of(table[(table["seed"] == 0) | table["backbone"].isin(["a", "bb"])]), [claim]).iloc[0]
    assert some["verdict"] == "reproduced" and some["why"] == "backbones with two seeds or more: 2 of 5"
    single = decide(of(curves(**{name: [[0, 0, score]] for name, score in scores.items()})), [claim]).iloc[0]
    assert (
        single["low"] == pytest.approx(row["low"]) and single["verdict"] == "undecided" and "one seed" in single["why"]
    )
    others = curves(**{name: [[0, 0, score]] for name, score in scores.items()}, z=[[0, 0, 0.1], [0, 0, 0.9]])
    assert decide(of(others), [claim]).iloc[0].equals(single)  # seeds of a backbone in neither series say nothing here
    noisy = decide(of(curves(**{name: [[0, 0, s - 0.2], [0, 0, s + 0.2]] for name, s in scores.items()})), [claim])
    assert noisy["ours"].iloc[0] == pytest.approx(row["ours"]) and noisy["verdict"].iloc[0] == "undecided"
    few = decide(rows, [Slope("S11", "a buys more than b", ("a", "aa"), ("a", "bb", "bbbb"))]).iloc[0]
    apart = decide(rows, [Slope("S11", "a buys more than b", ("a", "aa", "aaaa"), ("bb", "bbbb"))]).iloc[0]
    assert few["why"] == apart["why"] == "a line needs three backbones in each series"
