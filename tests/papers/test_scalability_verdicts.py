"""Paper S's verdicts: seeds decide, one seed does not, and equal compute is not equal steps."""

import pandas as pd
import pytest

from papers_repro.scalability import verdicts


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
    return pd.DataFrame(rows)


def test_three_seeds_decide_and_the_difference_is_taken_seed_by_seed():
    small = [[0.6, 0.65, 0.70], [0.6, 0.65, 0.75], [0.6, 0.65, 0.80]]
    big = [[0.6, 0.65, s[2] + gain] for s, gain in zip(small, (0.04, 0.05, 0.06), strict=True)]
    row = verdicts.ahead(curves(small=small, big=big), "S4", "big", "small")
    assert row["verdict"] == "reproduced" and row["n"] == 3
    assert row["ours"] == pytest.approx(0.05)
    assert row["high"] - row["ours"] == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)  # t of two degrees of freedom
    assert verdicts.ahead(curves(small=small, big=big), "S4", "small", "big")["verdict"] == "contradicted"


def test_one_seed_shows_an_interval_and_decides_nothing():
    row = verdicts.ahead(curves(small=[[0.5, 0.5, 0.5]], big=[[0.9, 0.9, 0.9]]), "S4", "big", "small")
    assert row["verdict"] == "undecided" and "one seed" in row["why"]
    assert row["high"] - row["ours"] == pytest.approx(1.96 * 0.01 * 2**0.5, rel=1e-3)


def test_at_equal_compute_the_dearer_backbone_has_taken_fewer_steps():
    one = curves(small=[[0.5, 0.6, 0.7]], big=[[0.5, 0.65, 0.9]])
    assert verdicts.ahead(one, "S6", "big", "small")["ours"] == pytest.approx(0.2)
    assert verdicts.ahead(one, "S6", "big", "small", "flops_paper")["ours"] == pytest.approx(0.65 - 0.7)


def test_a_score_at_the_end_alone_says_nothing_of_equal_compute():
    one = curves(small=[[0.5, 0.6, 0.7]], big=[[0.5, 0.65, 0.9]]).query("step == 400")
    row = verdicts.ahead(one, "S6", "small", "big", "flops_paper")
    assert row["ours"] is None and row["why"] == "one of the two was not scored at equal compute"
    assert verdicts.ahead(one, "S4", "big", "small")["ours"] == pytest.approx(0.2)


def test_live_rows_without_flips_do_not_disturb():
    one = curves(small=[[0.5, 0.6, 0.7]], big=[[0.5, 0.65, 0.9]])
    live = one.assign(source="live", world="pictograms", flip_accuracy=None, flip_accuracy_se=None)
    claims = [("S4", "big", "small", "step")]
    table = verdicts.decide(pd.concat([one, live]), claims)
    assert table["ours"].tolist() == pytest.approx([0.2]) and table["world"].tolist() == ["scenes"]


def test_what_was_not_trained_is_undecided():
    row = verdicts.ahead(curves(small=[[0.5, 0.6, 0.7]]), "S4", "big", "small")
    assert row["verdict"] == "undecided" and row["why"] == "not measured"
    nothing = verdicts.decide(curves(small=[[0.5, 0.6, 0.7]]).query("seed > 0"), verdicts.FIG03)
    assert len(nothing) == len(verdicts.FIG03) and set(nothing["why"]) == {"not measured"}
