"""Figure 12: scores beside runs, ranks and what they decide, from tables made by hand."""

import numpy as np
import pandas as pd
import pytest

from papers_repro.scalability import metrics, studies
from papers_repro.scalability.measured import committed
from papers_repro.scalability.measured import scores as told_scores
from t2ikit.results import Results, combine, fullest_curves, largest_set, read_committed, read_scores, scored

BACKBONES = [f"b{k}" for k in range(6)]


def score(run, metric, value, step=100, guidance=7.5, n=50, versus=None, prompts="p"):
    row = {"run": run, "step": step, "metric": metric, "value": value, "low": value - 0.1, "high": value + 0.1, "n": n}
    row |= {"versus": versus, "images.guidance": guidance, "images.prompts": f"{prompts}{n}"}
    return row | {"images.loss_space": "s", "images.steps": 25}


@pytest.fixture
def rows():
    runs = [{"run": f"r-{b}", "backbone": b, "world": "scenes", "seed": 0, "steps": 100, "lr": 1e-3} for b in BACKBONES]
    curves = [
        {"run": r["run"], "step": s, "caption_gap": k, "flip_accuracy": -k, "val_loss": 1.0}
        for k, r in enumerate(runs)
        for s in (50, 100)
    ]
    return Results(pd.DataFrame(runs), pd.DataFrame(curves))


def table(rows, **by_metric):
    """A joined table of each metric's values in the backbones' order, at the last step and at guidance 7.5."""
    made = [score(f"r-{b}", m, v) for m, values in by_metric.items() for b, v in zip(BACKBONES, values, strict=False)]
    return metrics.joined(pd.DataFrame(made), rows)


def test_scores_join_the_curves_at_their_step_and_guidance(rows):
    made = [
        *(score("r-b0", "tifa", 0.5), score("r-b0", "tifa", 0.4, guidance=1.0), score("r-b1", "tifa", 0.9, n=10)),
        *(score("r-b1", "tifa", 0.6), score("r-b2", "tifa", 0.7, step=50), score("r-b3", "tifa", 0.8, n=10)),
    ]
    curves = scored(rows, pd.DataFrame(made)).curves.set_index(["run", "step"])["tifa"]
    assert curves["r-b0", 100] == 0.5 and np.isnan(curves["r-b0", 50])
    assert curves["r-b1", 100] == 0.6 and np.isnan(curves["r-b3", 100])  # on one set of prompts, the largest
    assert curves["r-b2", 50] == 0.7
    errors = scored(rows, pd.DataFrame(made)).curves["tifa_se"].dropna()
    assert errors.tolist() == pytest.approx([0.1 / 1.96] * 3, rel=1e-4)


def test_a_curve_is_of_images_that_were_drawn_alike(rows):
    made = pd.DataFrame([
        *(score("r-b0", "tifa", 0.5), score("r-b0", "tifa", 0.3, n=10, step=50), score("r-b0", "tifa", 0.4, n=10)),
        *(score("r-b1", "tifa", 0.6), score("r-b1", "tifa", 0.7, n=10), score("r-b1", "tifa", 0.2, n=10, step=50)),
        *(score("r-b2", "tifa", 0.8), score("r-b2", "tifa", 0.9) | {"images.steps": 12}),
    ])  # fmt: skip
    largest = scored(rows, made[made["images.steps"] == 25])
    curves = scored(largest, made, chosen=fullest_curves).curves.set_index(["run", "step"])["tifa"]
    assert curves.dropna().to_dict() == {("r-b0", 50): 0.3, ("r-b0", 100): 0.4, ("r-b1", 50): 0.2, ("r-b1", 100): 0.7}


def test_without_scores_curves_are_as_they_were(rows, tmp_path):
    for chosen in (largest_set, fullest_curves):
        assert scored(rows, read_scores(tmp_path), chosen=chosen).curves.equals(rows.curves)


def test_rows_that_compare_two_runs_are_no_scores(tmp_path):
    made = pd.DataFrame([score("r-b0", "tifa", 0.5), score("r-b0", "tifa", 0.01, versus="r-b1")])
    made.to_csv(tmp_path / "scores.csv", index=False)
    assert read_scores(tmp_path)["value"].tolist() == [0.5]


def test_places_follow_what_is_better(rows):
    found = metrics.ranks(table(rows, tifa=[0.1, 0.3, 0.2], **{"fd-efficientnet-lite0": [9, 7, 8]}))
    assert found["tifa"].tolist() == [3, 1, 2] == found["fd-efficientnet-lite0"].tolist()
    square = metrics.alike(table(rows, tifa=[0.1, 0.3, 0.2], **{"fd-efficientnet-lite0": [9, 7, 8]}))
    assert square.loc["tifa", "fd-efficientnet-lite0"] == pytest.approx(1)
    assert square["p if 1"].iloc[0] == pytest.approx(1 / 3)


def test_ranks_of_few_backbones_decide_nothing_and_of_opposite_ones_contradict(rows):
    rising = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    (few,) = metrics.stable(table(rows, tifa=rising[:4], **{"contrastive-v1": rising[:4]}), "tiny")
    assert few["verdict"] == "undecided" and few["n"] == 4 and few["ours"] == pytest.approx(1)
    assert few["low"] is None and "exact p = 0.083" in few["why"]
    (five,) = metrics.stable(table(rows, tifa=rising[:5], **{"contrastive-v1": rising[:5]}), "tiny")
    assert five["ours"] == pytest.approx(1) and five["low"] < 0.5 and five["verdict"] == "undecided"
    (other,) = metrics.stable(table(rows, tifa=rising, **{"contrastive-v1": rising[::-1]}), "tiny")
    assert other["verdict"] == "contradicted"
    (none,) = metrics.stable(table(rows, **{"contrastive-v1": rising}), "tiny")
    assert none["why"] == "not measured"


def test_an_early_step_is_held_against_the_end(rows):
    late = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    made = [score(f"r-{b}", "tifa", v) for b, v in zip(BACKBONES, late, strict=True)]
    made += [score(f"r-{b}", "tifa", -v, step=50) for b, v in zip(BACKBONES, late, strict=True)]
    (row,) = metrics.early(metrics.joined(pd.DataFrame(made), rows), "tiny")
    assert row["ours"] == pytest.approx(-1) and row["verdict"] == "contradicted" and "step 50" in row["claim"]


def test_what_noise_of_the_prompts_could_do_contradicts_nothing(rows):
    late = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    made = [score(f"r-{b}", "tifa", v) for b, v in zip(BACKBONES, late, strict=True)]
    made += [score(f"r-{b}", "tifa", -v / 100, step=50) for b, v in zip(BACKBONES, late, strict=True)]
    (row,) = metrics.early(metrics.joined(pd.DataFrame(made), rows), "tiny")
    assert row["ours"] == pytest.approx(-1) and row["verdict"] == "undecided" and row["needs"] is None
    assert row["why"] == "noise of the prompts leaves about 0.00 of a rho"


def test_early_scores_of_runs_without_a_last_one_are_left_out_and_the_most_prompts_count(rows):
    late = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    made = [score(f"r-{b}", "tifa", v, step=50) for b, v in zip(BACKBONES, late, strict=True)]
    made += [score(f"r-{b}", "tifa", -v, step=50, n=10) for b, v in zip(BACKBONES, late, strict=True)]
    (none,) = metrics.early(metrics.joined(pd.DataFrame(made), rows), "tiny")
    assert none["why"] == "not measured"
    made += [score(f"r-{b}", "tifa", v) for b, v in zip(BACKBONES[:5], late, strict=False)]
    (row,) = metrics.early(metrics.joined(pd.DataFrame(made), rows), "tiny")
    assert row["n"] == 5 and row["ours"] == pytest.approx(1)


def test_of_ways_of_as_many_backbones_that_of_most_prompts_counts(rows):
    """At a tie the hash of the prompts had decided S32."""
    late = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    for names in (("a", "z"), ("z", "a")):
        made = []
        for sign, n, prompts in ((1, 1000, names[0]), (-1, 200, names[1])):
            for b, v in zip(BACKBONES, late, strict=True):
                made += [score(f"r-{b}", "tifa", v, n=n, prompts=prompts)]
                made += [score(f"r-{b}", "tifa", sign * v, step=50, n=n, prompts=prompts)]
        (row,) = metrics.early(metrics.joined(pd.DataFrame(made), rows), "tiny")
        assert row["ours"] == pytest.approx(1)


def test_metrics_that_noise_drowns_contradict_nothing(rows):
    rising = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    (row,) = metrics.stable(table(rows, tifa=rising / 10, **{"contrastive-v1": rising[::-1]}), "tiny")
    assert row["ours"] == pytest.approx(-1) and row["verdict"] == "undecided"
    assert row["why"] == "noise of the prompts leaves about 0.00 of a rho"


def test_a_guidance_that_some_backbones_lack_leaves_the_others(rows):
    made = [score(f"r-{b}", "tifa", k, guidance=g) for k, b in enumerate(BACKBONES[:4]) for g in (1.0, 7.5)
            if (k, g) != (3, 1.0)] + [score(f"r-{BACKBONES[3]}", "tifa", 3.0, guidance=2.0)]  # fmt: skip
    joined = metrics.joined(pd.DataFrame(made), rows)
    found = metrics.guidance_ranks(joined[joined["images.guidance"] != 2.0])
    assert found["rho with 7.5"][1.0] == pytest.approx(1) and found["exact p"][1.0] == pytest.approx(1 / 3)


def test_only_guidances_of_the_same_prompts_are_a_sweep(rows):
    made = [score(f"r-{b}", "tifa", k * (1 if g > 1 else -1), guidance=g) for k, b in enumerate(BACKBONES[:3])
            for g in (1.0, 7.5)] + [score("r-b4", "tifa", 0.3, n=1000, prompts="others")]  # fmt: skip
    joined = metrics.joined(pd.DataFrame(made), rows)
    assert set(metrics.guidances(joined)["backbone"]) == set(BACKBONES[:3])
    found = metrics.guidance_ranks(joined)
    assert found["rho with 7.5"].tolist() == pytest.approx([-1, np.nan], nan_ok=True)
    assert found["exact p"][1.0] == pytest.approx(1 / 3)
    assert metrics.guidance_chart(joined, "tifa", BACKBONES).to_dict()["layer"]


def test_the_panel_has_a_chart_a_metric_and_none_without_scores(rows, tmp_path):
    spec = metrics.panel(table(rows, tifa=[0.1, 0.2], **{"kid-efficientnet-lite0": [1, 2]}), BACKBONES).to_dict()
    assert [c["layer"][0]["title"]["text"] for c in spec["concat"]] == ["tifa", "kid-efficientnet-lite0"]
    assert metrics.panel(metrics.final(metrics.joined(read_scores(tmp_path), rows)), BACKBONES) is None


def test_one_point_a_run_of_alignment_without_sampling(rows):
    points = metrics.without_sampling(table(rows, tifa=[0.1, 0.2, 0.3]), rows.curves)
    assert points["caption_gap"].tolist() == [0, 1, 2] and len(points) == 3 and points["information"].isna().all()
    points = metrics.without_sampling(table(rows, tifa=[0.1, 0.2, 0.3], information=[5.0, 6.0]), rows.curves)
    assert points["information"].tolist()[:2] == [5, 6] and len(points) == 3  # measured by `t2ikit evaluate` alone


def test_alignment_is_held_against_tifa_on_the_prompts_that_most_runs_have(rows):
    made = [score(f"r-{b}", "tifa", 0.5, n=200) for b in BACKBONES[:4]] + [score("r-b0", "tifa", 0.4, n=1000)]
    assert metrics.without_sampling(metrics.joined(pd.DataFrame(made), rows), rows.curves)["tifa"].tolist() == [0.5] * 4
    assert metrics.final(metrics.joined(pd.DataFrame(made), rows))["value"].tolist() == [0.4]


def test_a_run_that_goes_on_keeps_the_point_of_its_last_scored_step(rows):
    """A short run of a rate sweep, scored, and then trained further."""
    points = metrics.without_sampling(
        metrics.joined(pd.DataFrame([score("r-b1", "tifa", 0.4, step=50)]), rows), rows.curves
    )
    assert points[["step", "caption_gap"]].to_numpy().tolist() == [[50, 1]]


def test_length_alone_is_no_agreement():
    """Two lengths apart in both scores, and at odds within each."""
    tifa = np.array([1, 2, 3, 4, 5, 11, 12, 13, 14, 15]) / 20
    gap = np.array([5, 4, 3, 2, 1, 15, 14, 13, 12, 11]) / 1000
    points = pd.DataFrame({"step": [400] * 5 + [1600] * 5, "tifa": tifa, "caption_gap": gap, "val_loss": -tifa})
    points = points.assign(information=tifa, flip_accuracy=0.5, backbone=list("abcdefghij"))
    twice = metrics.instead(pd.concat([points] * 2), "tiny")[0]  # a second seed of each is nearly the same point
    assert twice["n"] == 10
    found = pd.DataFrame(metrics.instead(points, "tiny")).set_index("claim")
    found.index = found.index.str.split().str[0]
    assert found.loc["caption_gap", "ours"] < -0.9 and found.loc["caption_gap", "verdict"] == "contradicted"
    assert (found.loc[["information", "−val_loss"], "ours"] > 0.9).all()
    assert found.loc["flip_accuracy", "why"] == "0 lengths have four runs or more"


def test_runs_are_paired_prompt_by_prompt():
    rows = metrics.paired(studies.RESULTS, read_committed(studies.RESULTS))
    assert {"tifa", "contrastive-v1"} <= set(rows["metric"]) and (rows["backbone"] != rows["less"]).all()
    inside = rows[["low", "high"]].abs().max(axis=1) < rows["margin"]
    assert (rows.loc[rows["alike"].astype(bool), "value"].abs() < 0.02).all() and rows.loc[inside, "alike"].all()
    assert metrics.paired(studies.RESULTS / "nowhere", combine([])).empty


def test_ranks_of_backbones_are_of_one_world():
    """Runs on two worlds are committed: averaged, they would order no backbones."""
    assert set(committed().runs["world"]) > {"scenes"} == set(told_scores()["world"])
