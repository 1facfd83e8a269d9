"""isoFLOP studies: what a budget buys, one training for all budgets of a size, rates by sweep."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from papers_repro.dit_laws import studies
from t2ikit.cli import app
from t2ikit.errors import UserError
from t2ikit.isoflop import Grid, IsoFlop, best_rates, read_rates, save_rates
from t2ikit.models import zoo
from t2ikit.objectives import objective, sample_losses
from t2ikit.results import combine, read_live
from t2ikit.workers import train_apart

GRID = Grid(("incontext-d2-w32", "incontext-d2-w64"), (2e9, 4e9), {"batch": 4, "warmup": 0}, least_steps=5)
STUDY = IsoFlop("two", "Two sizes", {"smoke": GRID})


def with_grid(**changes):
    return replace(STUDY, grids={"smoke": replace(GRID, **changes)})


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
        assert min(sum(p.C == c for p in points) for c in studies.BUDGETS[tier]) >= (2 if tier == "small" else 5)


def test_a_size_is_trained_once_for_all_its_budgets():
    runs = STUDY.runs("smoke", seeds=(0, 1))
    assert [(c.backbone, c.seed) for c, _ in runs] == [(b, s) for s in (0, 1) for b in GRID.backbones]
    for config, budget in runs:
        steps = [p.steps for p in STUDY.points("smoke") if p.backbone == config.backbone]
        assert (budget.eval_at, budget.steps) == (tuple(steps), max(steps))


def test_a_budget_that_buys_too_few_steps_is_one_sentence():
    with pytest.raises(
        UserError, match=r"A budget of 2e\+09 FLOPs buys 8 steps \(incontext-d2-w64\) to 26 .*none within"
    ):
        with_grid(least_steps=100).points("smoke")


def test_a_warm_up_longer_than_a_tenth_is_refused():
    with pytest.raises(UserError, match="A warm-up of 3 steps is more than a tenth of incontext-d2-w32's 26"):
        with_grid(settings={"batch": 4, "warmup": 3}).runs("smoke")


def test_a_study_trained_gives_the_table_of_a_law(home):
    study = with_grid(settings={"batch": 4, "warmup": 0, "objective": "rf-logit-normal"})
    folders = train_apart(study.runs("smoke"), home / "runs", workers=2)
    table = study.table(read_live(folders), "smoke")
    assert {"backbone", "world", "N", "D", "C", "loss", "steps", "seed", "val_loss"} <= set(table)
    expected = {(p.backbone, p.C, p.steps) for p in study.points("smoke")}
    assert set(zip(table["backbone"], table["C"], table["steps"], strict=True)) == expected
    assert table[["loss", "val_loss"]].notna().all().all()
    other = replace(study, rates={"incontext-d2-w32": 5e-4})  # runs of another rate are no points of it
    assert set(other.table(read_live(folders), "smoke")["backbone"]) == {"incontext-d2-w64"}


def test_the_best_rate_of_a_sweep_is_kept_and_read(tmp_path):
    runs = STUDY.rate_runs("smoke")
    assert [c.lr for c, _ in runs] == [5e-4, 1e-3, 2e-3] * 2 and {b.steps for _, b in runs} == {5}
    names = [f"{c.backbone}@{c.lr}" for c, _ in runs]
    losses = [0.9, 0.8, 0.804, 0.7, 0.6, 0.5]
    curves = pd.DataFrame(
        {"run": names, "backbone": [c.backbone for c, _ in runs], "step": 5, "val_loss": losses, "loss_ema": losses}
    )
    results = combine([])
    results = replace(results, runs=pd.DataFrame({"run": names, "lr": [c.lr for c, _ in runs]}), curves=curves)
    table = best_rates(results, 5)
    assert table["above"].tolist() == pytest.approx([0.125, 0, 0.005, 0.4, 0.2, 0])
    save_rates(tmp_path / "rates.csv", table)
    assert read_rates(tmp_path / "rates.csv") == {"incontext-d2-w32": 1e-3, "incontext-d2-w64": 2e-3}
    assert read_rates(tmp_path / "none.csv") == {}


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
    done = CliRunner().invoke(
        app, ["study", "isoflop-incontext-scenes", "--tier", "paper", "--dry-run", "--gpu", "H200"]
    )
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["C", "sizes", "hours"] and "epochs_to" in lines[0]
    hours = float(next(line for line in lines if line.strip().startswith("6e+18")).split()[2])
    assert hours == pytest.approx(6e18 / (989.4e12 * 0.4 * 3600), rel=1e-3)
    assert not (home / "runs").exists()


def test_an_unknown_study_and_seeds_that_are_none(home):
    unknown = CliRunner().invoke(app, ["study", "fig99"])
    assert isinstance(unknown.exception, UserError) and "Unknown study 'fig99'" in str(unknown.exception)
    words = CliRunner().invoke(app, ["study", "fig03", "--seeds", "a"])
    assert isinstance(words.exception, UserError) and "--seeds 'a' are no whole numbers" in str(words.exception)
