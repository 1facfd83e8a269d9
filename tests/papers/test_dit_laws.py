"""Paper D's profiles, verdicts and charts on tables whose law is known; scores of real snapshots; its notebooks."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from papers_repro.dit_laws import compare, plots, predict, profiles, scores, studies, verdicts
from t2ikit import batch, papers
from t2ikit.data.world import get_world
from t2ikit.errors import UserError
from t2ikit.laws import audit_folder, fit_isoflop, fit_power
from t2ikit.metrics.likelihood import chain, variational_bound
from t2ikit.objectives import DDPM
from t2ikit.results import Results, combine, read_committed, read_live
from t2ikit.study import SAME
from t2ikit.train.loop import train

E, A, B, ALPHA, BETA = 0.02, 3.0, 25.7, 0.3, 0.4  # N_opt ∝ C^0.571, paper D's exponent
NEW = ["dit_fig05", "dit_g1", "dit_g2", "dit_g3", "dit_g5", "dit_g6", "dit_width_depth", "dit_ood"]
NEW += ["dit_extrapolation", "dit_floor"]


def loss_at(p):
    return E + A / p.N**ALPHA + B / p.D**BETA


def measured(study, loss=loss_at, noise=1e-4, seeds=(0,), tier="tiny", source="committed"):
    """Results as if `study` had been trained: each point's loss by a formula, with noise."""
    rng, runs, curves = np.random.default_rng(0), [], []
    for seed in seeds:
        for backbone in dict.fromkeys(p.backbone for p in study.points(tier)):
            config = study.config(backbone, tier, seed)[0]
            of_run = {"run": f"{study.name}-{backbone}-{seed}", "backbone": backbone, "world": config.world}
            of_run |= {"tier": tier, "seed": seed, "loss_space": "s", "source": source}
            runs.append(of_run | {key: getattr(config, key) for key in (*SAME, "lr")})
            for p in (p for p in study.points(tier) if p.backbone == backbone):
                value = loss(p) * np.exp(noise * rng.standard_normal())
                losses = dict.fromkeys(("loss", "loss_ema", "val_loss", "val_loss_averaged", "caption_gap"), value)
                curves.append(of_run | {"step": p.steps, "images": p.images, "val_loss_se": 0.001} | losses)
    return Results(pd.DataFrame(runs), pd.DataFrame(curves))


def profile_of(study, label="ours", **options):
    return profiles.profile(study, measured(study, **options), "tiny", label)


OURS = profile_of(studies.INCONTEXT)


def test_the_law_that_made_the_points_is_found():
    table = profiles.laws([OURS]).set_index(["law", "counting"])
    n_opt = table.loc[("N_opt (parameters)", "6ND, all parameters")]
    assert n_opt["exponent"] == pytest.approx(BETA / (ALPHA + BETA), abs=0.06) and n_opt["n"] == 5
    assert n_opt["low"] < n_opt["exponent"] < n_opt["high"]
    assert table.loc[("N_opt (parameters)", "6ND, by the surface"), "exponent"] == pytest.approx(0.571, abs=0.03)
    d_opt = table.loc[("D_opt (tokens)", "6ND, all parameters"), "exponent"]
    assert n_opt["exponent"] + d_opt == pytest.approx(1)
    assert "39 of 39" not in OURS.note() and "37 of 37 grid points measured (committed), n = 1 seed(s)" in OURS.note()
    row = profiles.budgets([OURS]).iloc[0]
    low, high = map(float, row["95%"].split(" to "))
    assert low < row["N_opt (parameters)"] < high
    assert 6 * row["N_opt (parameters)"] * row["D_opt (tokens)"] == pytest.approx(row["C (FLOPs)"], rel=0.01)
    assert profiles.basins(OURS)["decades of N within 1%"].between(0.1, 1).all()


def test_counting_otherwise_moves_n_and_c_together():
    exponents = {label: OURS.law(name).exponent for name, label in profiles.LAWS.items()}
    rows = profiles.conventions(OURS)
    countings = ("6ND, per-token parameters", "exact FLOPs")
    assert {(r["counting"], r["law"]) for r in rows} == {(c, law) for c in countings for law in exponents}
    same = replace(OURS, table=OURS.table.assign(N_token=OURS.table["N"], flops_exact=OURS.table["C"]))
    for row in profiles.conventions(same):
        assert row["exponent"] == pytest.approx(exponents[row["law"]])
    for row in rows:
        assert row["exponent"] == pytest.approx(exponents[row["law"]], abs=0.1)


def test_sizes_whose_rate_was_not_swept_are_told():
    first = studies.CROSSATTN.at("tiny").backbones[0]
    study = replace(studies.CROSSATTN, rates={("tiny", first, "scenes", "medium", 8, 64): 1e-3})
    note = profile_of(study).note()
    assert "The rates of 9 sizes were not swept, crossattn-d4-w32 the first." in note
    assert "not swept" not in OURS.note()
    assert "The rates of 10 sizes were not swept" in profile_of(studies.DENSE).note()  # scenes' are not theirs


@pytest.mark.parametrize("tier", studies.SIZES)
def test_twice_the_resolution_is_twice_at_every_tier(tier):
    one, other = (s.config(s.at(tier).backbones[0], tier)[0] for s in (studies.INCONTEXT, studies.LARGER))
    assert other.resolution == 2 * one.resolution


def test_nothing_measured_is_said_and_decides_nothing():
    empty = profiles.profile(studies.INCONTEXT, combine([]), "tiny", "ours")
    assert empty.note().startswith("ours: no measured results yet at tier tiny (37 grid points).")
    assert plots.parabolas([empty]) is None and plots.law_chart([empty], "n_opt") is None
    assert profiles.budgets([empty]).empty and profiles.laws([empty]).empty and profiles.surfaces([empty]).empty
    held, why = compare.held_out(empty)
    assert held is None and why
    beyond = compare.predict(empty, studies.FURTHER, profiles.profile(studies.FURTHER, combine([]), "tiny", "far"))
    assert plots.further(empty, beyond) is None
    rows = [
        verdicts.interior_minima("D1", empty), verdicts.exponent("D2", empty, "n_opt", "N_opt"),
        verdicts.falls("D3", empty, "loss"), verdicts.predicted("D5", empty, held, why),
        *verdicts.far("D5", beyond, "tiny"),
        verdicts.steeper("D6", "", OURS, empty), verdicts.crosses("D6", OURS, empty), *verdicts.covered(empty, None),
        verdicts.shape_matters("D17", empty),
        verdicts.ranks_alike("D12", "", empty.table, "val_loss", "loss", "tiny"),
        *verdicts.flat_rate("D10", studies.LEARNING_RATE.sweep(combine([]), "tiny"), {}, "tiny"),
    ]  # fmt: skip
    table = verdicts.table(rows)
    assert (table["verdict"] == "undecided").all() and (table["why"] != "").all()


def test_a_bowl_is_a_bowl_and_a_slope_is_none():
    row = verdicts.interior_minima("D1", OURS)
    assert (row["verdict"], row["ours"], row["n"]) == ("reproduced", 1.0, 5)
    slope = profile_of(studies.INCONTEXT, loss=lambda p: 3 * p.N**-0.1)
    assert verdicts.interior_minima("D1", slope)["verdict"] != "reproduced"
    hill = profile_of(studies.INCONTEXT, loss=lambda p: 9 - 0.1 * np.log10(p.N * 6e5 / p.C**0.5) ** 2)
    assert verdicts.interior_minima("D1", hill)["verdict"] == "contradicted"


def test_an_exponent_is_held_against_the_print_with_a_margin():
    assert verdicts.exponent("D2", OURS, "n_opt", "N_opt")["verdict"] == "reproduced"
    row = verdicts.exponent("D3", OURS, "loss_opt", "loss")  # another loss, at budgets below the print's
    assert (
        row["high"] < -0.0273 - 0.01 and row["verdict"] == "undecided" and "the print's starts at 1e+17" in row["why"]
    )
    times = {b.C: b for b in OURS.fit.budgets}
    larger = fit_power(np.array([1e4 * c for c in times]), np.array([b.loss for b in times.values()]))
    assert verdicts.exponent("D3", OURS, "loss_opt", "loss", larger)["verdict"] == "contradicted"
    noisy = profile_of(studies.INCONTEXT, noise=0.05)
    assert verdicts.exponent("D2", noisy, "n_opt", "N_opt")["verdict"] == "undecided"


def test_a_loss_that_falls_and_bends_follows_no_power_law():
    straight = profile_of(studies.INCONTEXT, loss=lambda p: 3 * p.C**-0.15 * (1 + 0.1 * np.log10(p.N / 3e5) ** 2))
    assert verdicts.falls("D3", straight, "loss")["verdict"] == "reproduced"
    row = verdicts.falls("D3", OURS, "loss")  # its floor flattens it
    assert row["high"] < 0 and row["verdict"] == "contradicted" and "flatter at larger budgets" in row["why"]
    rising = profile_of(studies.INCONTEXT, loss=lambda p: p.C**0.15 * (1 + 0.1 * np.log10(p.N / 3e5) ** 2))
    assert verdicts.falls("D3", rising, "loss")["verdict"] == "contradicted"


@pytest.mark.parametrize("luck", ["run", "size", "growing"])
def test_luck_that_budgets_share_is_no_bend(luck):
    """Each budget's points are of the same trainings: by Student's t over vertices alone, one in five bent falsely."""
    rng, bent = np.random.default_rng(3), 0
    straight = OURS.table.assign(true=lambda t: t["C"] ** -0.19 * 10 ** (0.15 * np.log10(t["N"] / t["C"] ** 0.6) ** 2))
    group = {"run": "run", "growing": "run", "size": "backbone"}[luck]
    for _ in range(60):
        drawn = straight[group].map({name: rng.standard_normal() for name in straight[group].unique()})
        growth = (straight["C"] / straight["C"].max()) ** 0.6 if luck == "growing" else 1.0
        table = straight.assign(val_loss_averaged=straight["true"] * np.exp(0.03 * drawn * growth))
        columns = (table[name].to_numpy() for name in ("C", "N", "val_loss_averaged"))
        fit = fit_isoflop(*columns, runs=table["run"].to_numpy(), surface=False, min_steps=1)
        bent += verdicts.falls("D3", replace(OURS, table=table, fit=fit))["verdict"] == "contradicted"
    assert bent <= 6


def test_noise_alone_makes_no_shape_worse_and_no_rate_bad():
    """The range of several noisy values is no effect, and neither is the distance from a seed's luckiest rate."""
    rng, shape, wide = np.random.default_rng(0), 0, 0
    study, sweep = studies.WIDTH_DEPTH, studies.LEARNING_RATE
    rates = sweep.rate_runs("tiny", range(4))
    own = {b: sweep.config(b, "tiny")[0].lr for b in sweep.at("tiny").backbones}
    frame = pd.DataFrame([{"backbone": c.backbone, "lr": c.lr, "seed": c.seed} for c, _ in rates])
    flat = profile_of(study, seeds=range(4))
    for _ in range(100):
        noisy = flat.table.assign(val_loss_averaged=1 + 0.02 * rng.standard_normal(len(flat.table)))
        shape += verdicts.shape_matters("D17", replace(flat, table=noisy))["verdict"] == "contradicted"
        losses = frame.assign(val_loss=1 + 0.03 * rng.standard_normal(len(frame)))
        wide += verdicts.flat_rate("D10", losses, own, "tiny")[1]["verdict"] == "reproduced"
    assert shape <= 8 and wide <= 8


def test_where_two_families_cross():
    at, slope = 2e13, -0.02
    other = profile_of(studies.INCONTEXT, "other", loss=lambda p: loss_at(p) * (p.C / at) ** slope)
    found = compare.paired(OURS, other)
    assert found.ratio.exponent == pytest.approx(slope, abs=0.002)
    assert found.crossing_interval[0] < at < found.crossing_interval[1] < 2 * found.crossing_interval[0]
    assert verdicts.steeper("D6", "", OURS, other)["verdict"] == "reproduced"
    assert verdicts.steeper("D6", "", other, OURS)["verdict"] == "contradicted"
    assert verdicts.crosses("D6", OURS, other)["verdict"] == "reproduced"
    # a family whose tokens cost half as much meets the other elsewhere once that is counted
    half = replace(other, table=other.table.assign(flops_exact=other.table["flops_exact"] / 2))
    by_6nd, exact = (compare.paired(OURS, half, counting) for counting in compare.COUNTINGS)
    spent = profiles.at_vertices(half, lambda t: t["flops_exact"])
    own = fit_power(spent, np.array([b.loss for b in half.usable])).exponent
    cost = profiles.at_vertices(OURS, lambda t: t["flops_exact"])
    assert exact.ratio.x == pytest.approx(cost)
    assert exact.ratio.y == pytest.approx(by_6nd.ratio.y * (cost / spent) ** own)
    assert exact.crossing < by_6nd.crossing / 2  # the cheaper family is ahead from earlier on
    row = compare.comparisons([(OURS, other)]).iloc[0]
    assert row["crossing (FLOPs)"] == pytest.approx(at, rel=0.1) and row["budgets"] == 5
    alike = profile_of(studies.INCONTEXT, "alike", loss=lambda p: 0.9 * loss_at(p), noise=0.003)
    assert compare.paired(OURS, alike).crossing_interval is None
    assert verdicts.crosses("D6", OURS, alike)["verdict"] == "undecided"
    assert compare.paired(OURS, OURS).crossing_interval is None  # no difference, and no scatter about it
    # what runs share widens the difference of the slopes until it may be none: so does it the crossing
    shared = (0.0, 0.0, 2 * abs(slope))
    ours, others = (replace(p, fit=replace(p.fit, jackknife=shared)) for p in (OURS, other))
    found = compare.paired(ours, others)
    assert found.ratio.low < 0 < found.ratio.high and found.crossing_interval is None


def test_the_largest_budget_and_a_far_run_are_predicted():
    held, why = compare.held_out(OURS)
    assert held["error"] < 0.005 and "mean error 0." in why
    row = verdicts.predicted("D5", OURS, held, why)
    assert held["baseline_power_law"] < held["baseline_last_budget"]  # both baselines, with four budgets before
    better = held["skill_over_last_budget"] > 0 and held["skill_over_power_law"] > 0
    assert row["low"] <= row["ours"] <= row["high"]
    assert row["verdict"] == ("reproduced" if better else "undecided")
    apart = held["predictions"] + [at | {"loss": at["loss"] * 1.2} for at in held["predictions"]]  # another seed
    assert verdicts.predicted("D5", OURS, held | {"predictions": apart}, why)["ours"] == pytest.approx(
        1.1 * row["ours"]
    )
    over = {"predictions": [at | {"low": 2.0, "high": 3.0} for at in held["predictions"]]}
    assert verdicts.predicted("D5", OURS, held | over, why)["verdict"] == "contradicted"
    far = profile_of(studies.FURTHER, "far", seeds=(0, 1))
    for at, expected in (
        (far, "reproduced"),
        (profile_of(studies.FURTHER, "far"), "undecided"),  # one seed
        (replace(far, table=far.table.assign(val_loss_averaged=1.0)), "contradicted"),
    ):
        beyond = compare.predict(OURS, studies.FURTHER, at)
        assert beyond["decades beyond"].tolist() == pytest.approx([np.log10(5)])
        surface, line = verdicts.far("D5", beyond, "tiny")
        assert surface["verdict"] == expected and "skill" in surface["why"] and "over the power law" in surface["why"]
        assert line["ours"] == surface["ours"] and line["paper"] == beyond["power law"].item()
    between = (beyond["predicted"] + beyond["high"]) / 2
    worse = beyond.assign(measured=between, **{"last budget": (between + beyond["high"]) / 2})
    assert verdicts.far("D5", worse, "tiny")[0]["verdict"] == "undecided"  # inside, but no nearer than a baseline


def test_more_seeds_are_trained_where_the_loss_is_lowest():
    study = studies.INCONTEXT
    best = {
        c: min(of, key=loss_at)
        for c in studies.BUDGETS["tiny"]
        if (of := [p for p in study.points("tiny") if p.C == c])
    }
    runs = study.optimum_runs(measured(study), "tiny", seeds=(1, 2))
    assert {(c.backbone, c.seed) for c, _ in runs} == {(p.backbone, s) for p in best.values() for s in (1, 2)}
    for config, budget in runs:
        own = [p for p in best.values() if p.backbone == config.backbone]
        assert budget.steps == max(p.steps for p in own) and {p.steps for p in own} <= set(budget.eval_at)
        assert config.lr == study.config(config.backbone, "tiny")[0].lr
    few = measured(study).select(backbone=["incontext-d2-w32", "incontext-d2-w64"])
    with pytest.raises(UserError, match="so its optimum is not known: train and export the study first"):
        study.optimum_runs(few, "tiny", seeds=(1,))


def test_the_far_run_is_foretold_once_and_before_it_is_trained(home, tmp_path, monkeypatch):
    far = profile_of(studies.FURTHER, "far")
    trained = {"far run": replace(far, table=far.table.iloc[:0])}
    monkeypatch.setattr(predict, "FILE", tmp_path / "predicted.csv")
    monkeypatch.setattr(profiles, "profile", lambda study, rows, tier, label, y: trained.get(label, OURS))
    predict.main("tiny")
    kept = compare.read_foretold(predict.FILE)
    assert kept["backbone"].tolist() == far.table["backbone"].tolist() and kept["points"].item() == len(OURS.table)
    with pytest.raises(UserError, match="foretold or measured already"):
        predict.main("tiny")
    law = kept.iloc[0]
    value = law["E"] + law["A"] / law["N (parameters)"] ** law["alpha"] + law["B"] / law["D (tokens)"] ** law["beta"]
    assert value == pytest.approx(law["predicted"], rel=1e-5)  # anyone can compute it from the row

    later = compare.predict(OURS, studies.FURTHER, far).assign(predicted=9.0, low=8.0, high=10.0)  # of a later law
    told = compare.as_foretold(later, kept, "tiny")
    assert told["foretold"].all() and told["predicted"].item() == pytest.approx(law["predicted"])
    assert compare.as_foretold(later, kept.iloc[:0], "tiny")["predicted"].item() == 9.0
    trained["far run"] = far
    predict.FILE.unlink()
    with pytest.raises(UserError, match="foretold or measured already"):
        predict.main("tiny")


def test_a_known_floor_is_covered_or_not():
    for floor, expected in ((E, "reproduced"), (3 * E, "contradicted")):
        assert expected in [r["verdict"] for r in verdicts.covered(OURS, floor)]
    no_floor = {
        name: replace(getattr(OURS.fit.surface, name), intervals={"E": (0.0, 1.9 * E)}) for name in ("huber", "vpnls")
    }
    at_the_edge = replace(OURS, fit=replace(OURS.fit, surface=replace(OURS.fit.surface, **no_floor)))
    for row in verdicts.covered(at_the_edge, E):
        assert (row["verdict"], row["why"]) == ("undecided", "the interval reaches 0, which is no floor")
    assert set(profiles.surfaces([OURS])["fit"]) == {"huber", "vpnls"}


def test_rates_and_shapes_decide_with_seeds_alone(tmp_path):
    study, tier = studies.LEARNING_RATE, "tiny"
    runs = study.rate_runs(tier, (0, 1, 2))
    own = {b: study.config(b, tier)[0].lr for b in study.at(tier).backbones}
    frame = pd.DataFrame({"backbone": [c.backbone for c, _ in runs], "lr": [c.lr for c, _ in runs],
                          "seed": [c.seed for c, _ in runs]})  # fmt: skip
    factor = np.log2(frame["lr"] / frame["backbone"].map(own))
    frame["above"] = 0.002 * factor**2 + 1e-5 * frame["seed"] * factor
    frame["val_loss"] = 0.5 * (1 + frame["above"])
    flat, far = verdicts.flat_rate("D10", frame, own, tier)
    assert flat["verdict"] == far["verdict"] == "reproduced" and flat["n"] == 3
    assert {r["verdict"] for r in verdicts.flat_rate("D10", frame[frame["seed"] == 0], own, tier)} == {"undecided"}
    alone = frame[frame["lr"] == frame["backbone"].map(own)].assign(above=0.0)  # nothing was swept
    assert {(r["verdict"], r["n"]) for r in verdicts.flat_rate("D10", alone, own, tier)} == {("undecided", 0)}
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(frame))
    even = frame.assign(val_loss=0.5 * (1 + noise * (factor.abs() < 1.5)))  # nothing but noise within a factor of 2
    assert verdicts.flat_rate("D10", even, own, tier)[0]["verdict"] == "undecided"
    twice = frame.assign(val_loss=0.5 * (1 + 0.002 * (factor - 1) ** 2))  # flat around twice the rate in use
    assert verdicts.flat_rate("D10", twice, own, tier)[0]["ours"] == pytest.approx(0.002)
    lucky = frame.assign(val_loss=0.5 * (1 - 0.1 * (factor.round() == frame["seed"] - 1)))  # each seed at another rate
    assert verdicts.flat_rate("D10", lucky, own, tier)[0]["ours"] < 0.01
    two = frame[(frame["seed"] != 1) | (factor.abs() < 1.5)]  # the second seed has the rates around its own alone
    flat, far = verdicts.flat_rate("D10", two, own, tier)
    assert (flat["n"], far["n"]) == (3, 2)
    setting = {"tier": "tiny", "world": "scenes", "captions": "medium", "batch": 8, "resolution": 64}
    frame.assign(**setting, val_loss=1 + frame["above"]).to_csv(tmp_path / "rates.csv")
    best = profiles.best_rates(tmp_path / "rates.csv", "tiny").set_index("backbone")
    assert best["rate"].to_dict() == own and not best["at the edge"].any()
    assert best["next above it by"].tolist() == pytest.approx([0.002] * 3, rel=1e-2)
    assert profiles.best_rates(tmp_path / "none.csv", "tiny").empty
    one, three = (
        profile_of(studies.WIDTH_DEPTH, noise=0.0001, loss=lambda p: 0.1, seeds=seeds) for seeds in ((0,), (0, 1, 2))
    )
    assert verdicts.shape_matters("D17", one)["verdict"] == "undecided"
    assert verdicts.shape_matters("D17", three)["verdict"] == "reproduced"


def test_ranks_are_of_sizes_within_budgets():
    table = OURS.table.assign(score=lambda t: t["val_loss"] ** 2, other=lambda t: -t["val_loss"])
    row = verdicts.ranks_alike("D12", "", table, "val_loss", "score", "tiny")
    assert (row["verdict"], row["n"]) == ("reproduced", 10) and row["ours"] > 0.95
    assert verdicts.ranks_alike("D12", "", table, "val_loss", "other", "tiny")["verdict"] == "contradicted"
    some = table[table["backbone"].isin(list(table["backbone"].unique()[:4]))]
    assert verdicts.ranks_alike("D12", "", some, "val_loss", "score", "tiny")["verdict"] == "undecided"


def test_compute_alone_is_no_agreement():
    """Two losses that fall with compute and disagree at every budget."""
    table = OURS.table.assign(other=lambda t: t["C"] ** -0.5 * (2 - t["val_loss"] / t["val_loss"].max()))
    assert table["val_loss"].corr(table["other"], "spearman") > 0.7
    row = verdicts.ranks_alike("D12", "", table, "val_loss", "other", "tiny")
    assert row["verdict"] == "contradicted" and row["ours"] < -0.9


def test_exact_claims_follow_from_code_and_print():
    audit = audit_folder(studies.PUBLISHED)
    assert verdicts.refuses_two_points()["verdict"] == "reproduced"
    assert verdicts.audited("D14", "", audit, "epochs")["verdict"] == "reproduced"
    text = verdicts.audited("D15", "", audit, "statement", "crossing")
    assert text["verdict"] == "contradicted" and text["n"] > 5
    assert verdicts.audited("D15", "", audit, "nothing")["verdict"] == "undecided"


def test_charts_say_what_they_show():
    shapes = profile_of(studies.WIDTH_DEPTH)
    shaped = profiles.shapes(shapes.table)
    assert dict(zip(shaped["backbone"], shaped["width"], strict=True))["incontext-d14-w64"] == 64
    held, _ = compare.held_out(OURS)
    drawn = {
        "N (parameters)": plots.parabolas([OURS]), "N_opt (parameters)": plots.law_chart([OURS], "n_opt"),
        "C (FLOPs)": plots.against_compute(OURS.table, "val_loss", "world"),
        "Depth (blocks)": plots.against_shape(shaped, "val_loss"),
        "95%": plots.against_prediction(OURS, held), "known floor, 0.02": plots.above_floor(OURS, 0.02),
    }  # fmt: skip
    for text, chart in drawn.items():
        assert text in json.dumps(chart.to_dict())
    (dash,) = [m for m in (layer["mark"] for layer in drawn["95%"].to_dict()["layer"]) if m.get("shape") == "stroke"]
    assert dash["filled"] is False  # the theme fills points, and a filled line shows nothing
    for trained in (combine([]), measured(studies.FURTHER)):
        far = profiles.profile(studies.FURTHER, trained, "tiny", "far")
        chart = json.dumps(plots.further(OURS, compare.predict(OURS, studies.FURTHER, far)).to_dict())
        assert "power law, 95%" in chart and ('"kind": "measured"' in chart) == bool(len(far.table))
    few = replace(OURS, fit=None, why="too few")
    assert "N (parameters)" in json.dumps(plots.parabolas([few]).to_dict())


def test_losses_of_two_spaces_are_not_fitted_together():
    table = OURS.table.assign(loss_space=np.where(OURS.table["steps"] > 3000, "a", "b"))
    with pytest.raises(UserError, match="different spaces"):
        profiles.fitted(studies.INCONTEXT, table, "tiny", "mixed", "val_loss")


def test_the_shapes_are_of_about_equal_size():
    for tier in ("tiny", "small", "paper"):
        n = np.array([p.N for p in studies.WIDTH_DEPTH.points(tier)])
        assert len(n) == 4 and n.max() / n.min() < 1.15


@pytest.fixture
def live(home, codec):
    """One size of the smoke study on a small codec, trained to its first two budgets."""
    study = replace(studies.along("incontext", codec=codec, probe_images=8), name="one")
    config, budget = study.config("incontext-d2-w32", "smoke")
    steps = [p.steps for p in study.points("smoke") if p.backbone == "incontext-d2-w32"][:2]
    train(config, replace(budget, steps=steps[1], eval_every=steps[1], eval_at=tuple(steps)), home / "runs")
    return study, study.table(read_live(list((home / "runs").iterdir())), "smoke")


@pytest.mark.parametrize("tier", ["smoke", "tiny", "small"])
def test_studies_that_share_a_run_agree_on_where_it_is_evaluated(tier):
    """Else the figure that trains it first would make the other train it anew."""
    of_run = {}
    for study in studies.STUDIES.values():
        for config, budget in study.runs(tier):
            of_run.setdefault(config, []).append(budget)
    shared = [budgets for budgets in of_run.values() if len(budgets) > 1]
    assert shared
    for budgets in shared:
        for one in budgets:
            for other in budgets:
                assert {s for s in other.eval_at if s <= one.steps} <= set(one.eval_at)


def test_snapshots_are_scored_once_and_read_when_committed(live, tmp_path, monkeypatch):
    study, table = live
    assert len(table) == 2
    found = scores.of_table(table, tmp_path, ["vlb", "nll", "val_loss"], "smoke")
    assert len(found) == 6 and found["value"].notna().all() and (found["n"] == 16).all()
    assert set(zip(found["on_world"], found["on_captions"], strict=True)) == {("scenes", "medium")}
    monkeypatch.setattr(scores, "METRICS", dict.fromkeys(scores.METRICS))  # nothing is computed again
    monkeypatch.setattr(scores, "load_run", None)
    again = scores.of_table(table, tmp_path, ["vlb", "nll", "val_loss"], "smoke")
    pd.testing.assert_frame_equal(found, again, check_dtype=False)
    wide = scores.wide(table, found)
    assert wide[["vlb", "nll"]].notna().all().all() and len(wide) == 2
    kept = found.drop(columns=["world", "captions"])
    kept = kept.rename(columns={"steps": "step", "on_world": "world", "on_captions": "captions"})
    kept[scores.COLUMNS].to_csv(tmp_path / scores.FILE, index=False)
    committed = scores.of_table(table.assign(source="committed"), tmp_path, ["vlb"], "smoke")
    assert committed["value"].tolist() == pytest.approx(found[found["metric"] == "vlb"]["value"].tolist())
    with pytest.raises(UserError, match="Unknown metric 'psnr'"):
        scores.of_table(table, tmp_path, ["psnr"], "smoke")


def test_the_chain_of_the_bound_is_near_the_whole_one():
    """On Gaussian latents of deviation 0.3, whose best denoiser is known; evenly in time it would be far off."""
    alphas = DDPM().scheduler.alphas_cumprod
    x0 = 0.3 * torch.randn(16, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def noise(x_t, t):
        a = alphas[t].view(-1, 1, 1, 1)
        return (1 - a).sqrt() * x_t / (0.09 * a + 1 - a)

    few, linear = chain(alphas, scores.CHAIN), np.linspace(0, 999, scores.CHAIN).round().astype(int)
    whole, ours, even = (variational_bound(noise, x0, alphas, c).total.mean() for c in (None, few, linear))
    assert len(few) <= scores.CHAIN and few[0] == 0 and few[-1] == 999
    assert ours == pytest.approx(whole, rel=0.03) and even > 1.3 * whole


def test_the_averaged_weights_validation_loss_is_the_runs_own(live, tmp_path):
    study, table = live
    folder = next(p for p in (scores.home() / "runs").iterdir())
    rows = scores.of_snapshot(folder, int(table["steps"].iloc[0]), ["val_loss"], n=8)
    assert rows[0]["value"] == pytest.approx(table["val_loss_averaged"].iloc[0], rel=1e-5)
    (other,) = scores.of_snapshot(folder, int(table["steps"].iloc[0]), ["val_loss"], [("scenes-single", "dense")], n=8)
    assert other["value"] != rows[0]["value"] and other["captions"] == "dense"


def test_images_are_drawn_for_the_captions_that_are_asked(live, monkeypatch):
    study, table = live
    folder, asked = next(p for p in (scores.home() / "runs").iterdir()), []
    real = scores.generate
    monkeypatch.setattr(scores, "generate", lambda parts, model, prompts, **k: (asked.append(prompts), real(
        parts, model, prompts, **k | {"steps": 1}))[1])  # fmt: skip
    sets = [("scenes", "medium"), ("scenes", "dense")]
    both = scores.of_snapshot(folder, int(table["steps"].iloc[0]), ["fd-efficientnet-lite0"], sets, n=8)
    assert [row["captions"] for row in both] == ["medium", "dense"] and both[0]["value"] != both[1]["value"]
    assert asked == [get_world("scenes").captions("val", np.arange(8), captions) for _, captions in sets]


def test_more_images_than_there_are_is_all_of_them_and_kept(live, monkeypatch):
    study, table = live
    folder, step = next(p for p in (scores.home() / "runs").iterdir()), int(table["steps"].iloc[0])
    monkeypatch.setattr(scores, "_probe", lambda *key: key[-1])
    monkeypatch.setitem(scores.METRICS, "vlb", lambda parts, model, n: {"value": 1.0, "se": None, "n": n})
    (row,) = scores.of_snapshot(folder, step, ["vlb"], n=10**6)
    assert row["n"] == get_world("scenes").length("val")
    monkeypatch.setitem(scores.METRICS, "vlb", None)  # not computed again
    assert scores.of_snapshot(folder, step, ["vlb"], n=10**6) == [row]


def test_a_mistake_on_the_command_line_is_one_sentence():
    line = [sys.executable, "-m", "papers_repro.dit_laws.scores", "nothing"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("t2ikit: Unknown study 'nothing'")
    assert done.stderr.count("\n") == 1


COMMITTED = read_committed(studies.RESULTS)


@pytest.mark.parametrize("run", COMMITTED.runs["run"] if len(COMMITTED.runs) else [])
def test_a_committed_run_has_its_configuration_and_its_curve(run):
    config = json.loads((studies.RESULTS / "configs" / f"{run}.json").read_text())
    (row,) = COMMITTED.runs[COMMITTED.runs["run"] == run].to_dict("records")
    assert config["id"] == run and row["status"] == "done"
    last = COMMITTED.curves[(COMMITTED.curves["run"] == run) & (COMMITTED.curves["step"] == row["steps"])]
    assert last["val_loss"].tolist() == pytest.approx([row["val_loss"]])


@pytest.mark.parametrize("figure", ["dit_fig05", "dit_extrapolation", "dit_ood"])
def test_without_runs_a_notebook_says_so(figure, home, tmp_path):
    executed = batch.execute(papers.find(figure), {"tier": "paper"}, tmp_path / "out.ipynb")
    assert "no measured results yet at tier paper" in executed.read_text()
    (metrics,) = (home / "reports").glob("*.metrics.json")
    assert {r["verdict"] for r in json.loads(metrics.read_text())} == {"undecided"}


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["dit_fig01", "dit_fig02", "dit_fig03", *NEW])
def test_each_figure_measures_at_smoke(figure, home, read_offline):
    (html,) = batch.reproduce([figure], "smoke")
    assert read_offline(html).locator("svg.marks").count() > 0
    (metrics,) = (home / "reports").glob("*.metrics.json")
    rows = json.loads(metrics.read_text())
    assert {r["verdict"] for r in rows if r.get("tier") == "smoke"} <= {"undecided"}  # it shows that the code works


def test_the_tiers_beta2_is_the_best_of_the_committed_sweep():
    table = pd.read_csv(studies.RESULTS / "beta2.csv")
    config, _ = studies.INCONTEXT.config(table["backbone"][0], "tiny")
    assert config.betas[1] == table.loc[table["val_loss_averaged"].idxmin(), "beta2"]
