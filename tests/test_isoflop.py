"""isoFLOP studies: what a budget buys, one training for all budgets of a size, rates by sweep."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from papers_repro.dit_laws import studies
from t2ikit.cli import app
from t2ikit.errors import UserError
from t2ikit.isoflop import Grid, IsoFlop, read_rates, save_rates
from t2ikit.models import zoo
from t2ikit.objectives import objective, sample_losses
from t2ikit.results import Results, combine, export, read_live
from t2ikit.study import SAME, costs
from t2ikit.workers import train_apart

GRID = Grid(("incontext-d2-w32", "incontext-d2-w64"), (2e9, 4e9), {"batch": 4, "warmup": 0}, least_steps=5)
STUDY = IsoFlop("two", "Two sizes", {"smoke": GRID})


def with_grid(**changes):
    return replace(STUDY, grids={"smoke": replace(GRID, **changes)})


def as_results(runs, step, losses, source="live"):
    """Evaluations at `step`, one a run, as tables."""
    names = ("backbone", "world", "tier", "seed", "lr", *SAME)
    of_run = [{k: getattr(c, k) for k in names} for c, _ in runs]
    rows = [r | {"run": f"{r['backbone']}@{r['lr']:.2g}", "loss_space": "s", "source": source} for r in of_run]
    curves = [r | {"step": step, "val_loss": v, "loss": v, "loss_ema": v} for r, v in zip(rows, losses, strict=True)]
    keys = ("run", "source", "backbone", "world", "tier", "seed", "loss_space")
    curves = pd.DataFrame(curves)[[*keys, "step", "val_loss", "loss", "loss_ema"]]
    return Results(pd.DataFrame(rows), curves)


def test_a_budget_buys_its_flops_in_whole_steps():
    for p in STUDY.points("smoke"):
        assert p.images == 4 * p.steps and p.D == 84 * p.images  # 64 patches and 20 text tokens
        assert 6 * p.N * p.D == pytest.approx(p.C, rel=0.5 / p.steps)
        assert p.flops_exact == pytest.approx(p.C, rel=0.1)  # the two conventions are near for this family


@pytest.mark.parametrize("tier", studies.BUDGETS)
def test_every_point_of_paper_d_s_grid_has_its_steps(tier):
    grid = studies.INCONTEXT.at(tier)
    points = studies.INCONTEXT.points(tier)
    assert {p.C for p in points} == set(studies.BUDGETS[tier])
    assert all(grid.least_steps <= p.steps <= grid.most_steps for p in points)
    if tier != "smoke":
        assert grid.least_steps == 1000
        assert min(sum(p.C == c for p in points) for c in studies.BUDGETS[tier]) >= 5


def test_a_size_is_trained_once_for_all_its_budgets():
    runs = STUDY.runs("smoke", seeds=(0, 1))
    assert [c.seed for c, _ in runs] == [0, 0, 1, 1]
    assert {(c.backbone, c.seed) for c, _ in runs} == {(b, s) for s in (0, 1) for b in GRID.backbones}
    for config, budget in runs:
        steps = [p.steps for p in STUDY.points("smoke") if p.backbone == config.backbone]
        assert (budget.eval_at, budget.steps) == ((5, *steps), max(steps))  # 5: where rates are swept


def test_a_budget_that_buys_too_few_steps_is_one_sentence():
    with pytest.raises(
        UserError, match=r"A budget of 2e\+09 FLOPs buys 8 steps \(incontext-d2-w64\) to 26 .*none within"
    ):
        with_grid(least_steps=100).points("smoke")


def test_a_warm_up_longer_than_a_tenth_is_refused():
    with pytest.raises(UserError, match="A warm-up of 3 steps is more than a tenth of incontext-d2-w64's 8"):
        with_grid(settings={"batch": 4, "warmup": 3}).runs("smoke")


def test_a_study_trained_gives_the_table_of_a_law(home):
    study = with_grid(settings={"batch": 4, "warmup": 0, "objective": "rf-logit-normal"})
    folders = train_apart(study.runs("smoke"), home / "runs", workers=2)
    table = study.table(read_live(folders), "smoke")
    assert {"backbone", "world", "N", "D", "C", "loss", "steps", "seed", "val_loss"} <= set(table)
    expected = {(p.backbone, p.C, p.steps) for p in study.points("smoke")}
    assert set(zip(table["backbone"], table["C"], table["steps"], strict=True)) == expected
    assert table[["loss", "val_loss", "val_loss_averaged"]].notna().all().all()
    assert (table["val_loss"] != table["val_loss_averaged"]).all()
    export(folders, home / "results")
    kept = pd.read_csv(study.export_points(home / "results", "smoke"))  # anyone can fit it
    pd.testing.assert_frame_equal(
        kept[["C", "N", "D", "steps", "loss", "val_loss_averaged"]].sort_values(["C", "N"], ignore_index=True),
        table[["C", "N", "D", "steps", "loss", "val_loss_averaged"]].sort_values(["C", "N"], ignore_index=True),
        check_dtype=False, rtol=1e-6,
    )  # fmt: skip
    other = replace(
        study, rates={("smoke", "incontext-d2-w32", "scenes", "medium", 4, 64): 5e-4}
    )  # runs of another rate are no points of it
    assert set(other.table(read_live(folders), "smoke")["backbone"]) == {"incontext-d2-w64"}


def test_the_best_rate_of_a_sweep_is_kept_and_read(tmp_path):
    runs = STUDY.rate_runs("smoke")
    assert [c.lr for c, _ in runs] == [5e-4, 1e-3, 2e-3] * 2 and {b.steps for _, b in runs} == {5}
    results = as_results(runs, 5, [0.9, 0.8, 0.804, 0.7, 0.6, 0.5])
    table = STUDY.sweep(results, "smoke")
    assert table["above"].tolist() == pytest.approx([0.125, 0, 0.005, 0.4, 0.2, 0])
    assert STUDY.sweep(combine([]), "smoke").empty and STUDY.table(combine([]), "smoke").empty
    save_rates(tmp_path / "rates.csv", table[table["backbone"] == "incontext-d2-w32"])
    save_rates(tmp_path / "rates.csv", table[table["backbone"] == "incontext-d2-w64"])
    small, large = (("smoke", f"incontext-d2-w{width}", "scenes", "medium", 4, 64) for width in (32, 64))
    assert read_rates(tmp_path / "rates.csv") == {small: 1e-3, large: 2e-3}
    save_rates(tmp_path / "rates.csv", table.assign(val_loss=[0.8, 0.9, 1.0] * 2))
    assert read_rates(tmp_path / "rates.csv") == {small: 5e-4, large: 5e-4}
    save_rates(tmp_path / "rates.csv", table.assign(tier="tiny"))
    assert read_rates(tmp_path / "rates.csv") == {
        small: 5e-4, large: 5e-4, ("tiny", *small[1:]): 1e-3, ("tiny", *large[1:]): 2e-3,
    }  # fmt: skip
    assert read_rates(tmp_path / "none.csv") == {}


def test_a_sweep_around_another_rate_keeps_what_the_first_one_tried(tmp_path):
    path, row = tmp_path / "rates.csv", {"tier": "tiny", "backbone": "a", "world": "w", "seed": 0, "loss": 1.0}
    row |= {"captions": "medium", "batch": 8, "resolution": 64}

    def swept(steps=5, **losses):
        rows = [row | {"lr": float(lr), "steps": steps, "val_loss": loss, "above": 0} for lr, loss in losses.items()]
        save_rates(path, pd.DataFrame(rows))
        return pd.read_csv(path)

    swept(**{"5e-4": 0.9, "1e-3": 0.8, "2e-3": 0.5})
    table = swept(**{"1e-3": 0.8, "2e-3": 0.5, "4e-3": 0.4})
    assert table["lr"].tolist() == [5e-4, 1e-3, 2e-3, 4e-3]
    assert table["above"].tolist() == pytest.approx([1.25, 1, 0.25, 0])
    assert read_rates(path) == {("tiny", "a", "w", "medium", 8, 64): 4e-3}
    assert swept(7, **{"1e-3": 0.3})["lr"].tolist() == [1e-3]  # of another length: not to be compared


def test_a_rate_belongs_to_a_setting_and_seeds_that_tried_less_decide_nothing(tmp_path):
    path = tmp_path / "rates.csv"
    first = STUDY.sweep(as_results(STUDY.rate_runs("smoke"), 5, [0.9, 0.8, 0.7] * 2), "smoke")
    save_rates(path, first)
    swept = {p.backbone: 2e-3 for p in STUDY.points("smoke")}
    for name, rate in swept.items():
        study = replace(STUDY, rates=read_rates(path))
        assert study.config(name, "smoke")[0].lr == rate and study.swept(name, "smoke")
        assert study.config(name, "smoke", lr=7e-4)[0].lr == 7e-4
        elsewhere = replace(study, world="pictograms")  # a first guess, not a rate of its own
        assert elsewhere.config(name, "smoke")[0].lr == rate and not elsewhere.swept(name, "smoke")
    save_rates(path, first.assign(captions="dense", val_loss=[0.1, 0.2, 0.3] * 2))
    assert len(pd.read_csv(path)) == 12
    assert {key[3]: rate for key, rate in read_rates(path).items()} == {"medium": 2e-3, "dense": 5e-4}
    save_rates(path, first)
    # the second seed lacks the rate that was best, and lies lower as a whole
    second = first[first["lr"] < 2e-3].assign(seed=1, val_loss=[0.1, 0.3] * 2)
    save_rates(path, second)
    assert {rate for key, rate in read_rates(path).items() if key[3] == "medium"} == {5e-4}
    assert {c.seed for c, _ in STUDY.rate_runs("smoke", (0, 1))} == {0, 1}


def test_a_study_is_evaluated_where_its_sweep_of_rates_is(home):
    """The sweep's run at a size's own rate is the study's: whichever comes first serves both."""
    (config, budget), *_ = STUDY.runs("smoke")
    swept = next((c, b) for c, b in STUDY.rate_runs("smoke") if c == config)
    assert set(swept[1].eval_at) <= set(budget.eval_at)


def test_a_sweeps_rows_are_of_the_steps_it_took():
    """They had the tokens and FLOPs of each size's largest budget."""
    runs = [(c, b) for c, b in STUDY.rate_runs("smoke") if c.backbone == "incontext-d2-w32"]
    sweep = STUDY.sweep(as_results(runs, 5, [0.5, 0.4, 0.6]), "smoke")
    cost = zoo.spec("incontext-d2-w32").at("smoke").cost()
    assert set(sweep["steps"]) == {5} and set(sweep["images"]) == {20} and set(sweep["D"]) == {20 * cost.tokens}
    assert set(sweep["C"]) == {6 * cost.params * 20 * cost.tokens}
    assert set(sweep["flops_exact"]) == {20 * cost.flops_train}


def test_the_cheapest_run_comes_first():
    for tier in ("tiny", "paper"):
        costs_of = costs(studies.INCONTEXT.runs(tier), 1e12)["flops_exact"].tolist()
        assert costs_of == sorted(costs_of)


@pytest.mark.parametrize(
    "changed",
    [
        {"captions": "dense"},
        {"batch": 8},
        {"lr": 5e-4},
        {"world": "pictograms"},
        {"resolution": 128},
        {"objective": "rf-uniform"},
        {"betas": (0.9, 0.99)},
        {"caption_dropout": 0.0},
    ],
)
def test_runs_of_another_setting_are_no_points(changed):
    runs = [(c, b) for c, b in STUDY.runs("smoke") if c.backbone == "incontext-d2-w64"]
    steps = min(p.steps for p in STUDY.points("smoke") if p.backbone == "incontext-d2-w64")
    assert len(STUDY.table(as_results(runs, steps, [0.5]), "smoke")) == 1
    assert STUDY.table(as_results([(replace(c, **changed), b) for c, b in runs], steps, [0.5]), "smoke").empty


def test_a_rate_found_at_one_tier_is_that_tiers():
    study = replace(STUDY, grids={"smoke": GRID, "tiny": GRID}, rates={("smoke", "incontext-d2-w64"): 5e-3})
    assert [study.config("incontext-d2-w64", tier)[0].lr for tier in ("smoke", "tiny")] == [5e-3, 1e-3]


def test_a_run_committed_and_live_is_one_point_and_seven_digits_are_the_rate():
    study = replace(STUDY, rates={("smoke", "incontext-d2-w64"): 1e-3 / 3})
    runs = [(c, b) for c, b in study.runs("smoke") if c.backbone == "incontext-d2-w64"]
    steps = min(p.steps for p in study.points("smoke") if p.backbone == "incontext-d2-w64")
    live = as_results(runs, steps, [0.5])
    both = combine([live, as_results([(replace(c, lr=3.333333e-4), b) for c, b in runs], steps, [0.5], "committed")])
    assert study.table(both, "smoke")["source"].tolist() == ["committed"]


def test_twice_the_resolution_costs_four_times_the_image_tokens():
    study = with_grid(settings={"batch": 4, "warmup": 0, "resolution": 128}, budgets=(2e10, 4e10))
    for p in study.points("smoke"):
        assert p.D == (256 + 20) * p.images and p.C == pytest.approx(6 * p.N * p.D, rel=0.5 / p.steps)
    images = costs(study.runs("smoke"), 1e12)
    flops = {p.backbone: p.flops_exact / p.images for p in study.points("smoke")}
    assert (images["flops_exact"] / images["images"]).tolist() == pytest.approx(images["backbone"].map(flops).tolist())


def test_the_smallest_rung_of_tier_paper_takes_a_step():
    spec = zoo.spec(studies.INCONTEXT.at("paper").backbones[0]).at("paper")
    model = spec.build(seed=0)
    rng = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(1, spec.latent_channels, spec.latent_side, spec.latent_side, generator=rng) for _ in "01")
    states = torch.randn(1, spec.text_tokens, spec.text_width, generator=rng)
    flow, mask = objective("rf-logit-normal"), torch.ones(1, spec.text_tokens, dtype=torch.bool)

    def loss():
        return sample_losses(model, flow, x0, noise, flow.timesteps(torch.tensor([0.5])), states, mask).mean()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    before = loss()
    before.backward()
    optimizer.step()
    assert loss() < before


def test_a_dry_run_prints_the_grid_and_trains_nothing(home):
    done = CliRunner().invoke(app, ["study", "isoflop-incontext-scenes", "--tier", "paper", "--dry-run"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["C", "sizes", "H100_hours", "H200_hours"] and "epochs_to" in lines[0]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:7]}
    assert [float(c) for c in rows] == list(studies.BUDGETS["paper"])
    for c, row in rows.items():
        assert [float(hours) for hours in row[1:3]] == pytest.approx([float(c) / (989.4e12 * 0.4 * 3600)] * 2, rel=1e-3)
    assert not (home / "runs").exists()


def test_runs_up_to_a_budget_are_the_first_part_of_the_studys_own():
    study = studies.CROSSATTN
    whole = {config: budget for config, budget in study.runs("tiny")}
    part = study.up_to(1.7e13, "tiny")
    assert {p.C for p in part.points("tiny")} == {3e12, 7e12, 1.7e13}
    for config, budget in part.runs("tiny"):
        longer = whole[config]
        assert budget.steps <= longer.steps
        assert budget.eval_at == tuple(step for step in longer.eval_at if step <= budget.steps)
    assert sum(b.steps for _, b in part.runs("tiny")) < sum(b.steps for b in whole.values())
    with pytest.raises(UserError, match="no budget of 1e\\+12 FLOPs or less at tier tiny: choose among 3e\\+12, 7e"):
        study.up_to(1e12, "tiny")


def test_an_unknown_study_and_seeds_that_are_none(home):
    unknown = CliRunner().invoke(app, ["study", "fig99"])
    assert isinstance(unknown.exception, UserError) and "Unknown study 'fig99'" in str(unknown.exception)
    words = CliRunner().invoke(app, ["study", "fig03", "--seeds", "a"])
    assert isinstance(words.exception, UserError) and "--seeds 'a' are no whole numbers" in str(words.exception)
    figure = CliRunner().invoke(app, ["study", "fig03", "--optimum", str(home)])
    assert isinstance(figure.exception, UserError) and "is no isoFLOP study" in str(figure.exception)
    short = CliRunner().invoke(app, ["study", "fig03", "--up-to", "1e13"])
    assert isinstance(short.exception, UserError) and "leave --rates, --optimum and --up-to out" in str(short.exception)
    untrained = CliRunner().invoke(app, ["study", "isoflop-incontext-scenes", "--optimum", str(home), "--seeds", "1"])
    assert isinstance(untrained.exception, UserError) and "0 sizes at 3e+12 FLOPs" in str(untrained.exception)
    for options, sentence in (
        (["--gpu", "H100", "--mfu", "0"], "MFU of 0 is not possible: give a number above 0 and up to 1"),
        (["--save", "x.csv"], "--save keeps a sweep of rates: give --rates too"),
        (["--rates", "--optimum", "."], "give either --rates or --optimum"),
    ):
        done = CliRunner().invoke(app, ["study", "isoflop-incontext-scenes", "--dry-run", *options])
        assert isinstance(done.exception, UserError) and sentence in str(done.exception)
