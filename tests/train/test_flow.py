"""Rectified flow from the configuration to images: every ladder, the row, golden losses, samplers, the command."""

import json
import sys

import numpy as np
import pytest
import torch

from t2ikit import cli, runs
from t2ikit.errors import UserError
from t2ikit.files import read_lines
from t2ikit.generate import generate, load_run
from t2ikit.models.ladder import LADDERS
from t2ikit.train.folder import run_folder
from t2ikit.train.loop import Loop, train
from t2ikit.train.setup import resolve

# as in test_loop: raise config.NUMERICS with these
GOLDEN = {
    "rf-uniform": [1.0316365, 0.9344321, 1.0040814, 0.9827025],
    "rf-logit-normal": [1.0316365, 0.9338570, 1.0033426, 0.9816146],
}


@pytest.mark.parametrize("objective", GOLDEN)
def test_golden_losses(smoke, objective):
    folder = train(*smoke("crossattn-d2-w32", objective=objective, batch=4, probe_images=4))
    losses = [e["loss"] for e in read_lines(folder / "log.jsonl") if "loss" in e]
    assert losses == pytest.approx(GOLDEN[objective], rel=1e-4)


@pytest.mark.parametrize("ladder", LADDERS)
def test_every_ladder_trains_and_its_row_has_all_costs(smoke, ladder):
    folder = train(*smoke(f"{ladder}-d2-w32", objective="rf-uniform", steps=2))
    row, tokens = runs.row(folder), 64 if ladder in ("crossattn", "pixart") else 84
    cost = resolve(smoke(f"{ladder}-d2-w32")[0]).spec.cost()
    assert row["status"] == "done" and row["images"] == 4
    assert (row["N"], row["D"], row["C"]) == (cost.params, 4 * tokens, 6 * cost.params * 4 * tokens)
    assert row["N_token"] == cost.params_per_token < row["N"]
    assert row["C_token"] == 6 * row["N_token"] * row["D"]
    assert (row["flops_exact"], row["flops_paper"]) == (4 * cost.flops_train, 6 * 4 * cost.macs)


def test_the_step_is_rectified_flows(smoke):
    """Mean of |model((1 − t) x0 + t ε, t) − (ε − x0)|² at t = u, and a loss space of its own."""
    config, budget = smoke("incontext-d2-w32", objective="rf-uniform")
    parts = resolve(config)
    with runs.leased(run_folder(parts)) as lease:
        loop = Loop(parts, budget, run_folder(parts), lease)
        x0, noise, u, states, mask = loop.batch()
        loss = loop.train_step(x0, noise, u, states, mask)[0]
    model, t = parts.spec.build(seed=config.seed), u.view(-1, 1, 1, 1)
    with torch.no_grad():
        wanted = (model((1 - t) * x0 + t * noise, u, states, mask) - (noise - x0)).square().mean()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=0)
    spaces = {resolve(smoke(objective=name)[0]).loss_space for name in ("ddpm-eps", "rf-uniform", "rf-logit-normal")}
    assert len(spaces) == 3


@pytest.fixture
def flow(smoke):
    """A run of a UNet and rectified flow, loaded."""
    return load_run(train(*smoke("sd2-c320", objective="rf-logit-normal", steps=2)))


def test_a_flow_is_sampled_by_euler_or_heun(flow):
    prompts = ["a red circle", "two blue squares"]
    images = {name: generate(*flow, prompts, steps=3, sampler=name) for name in (None, "euler", "heun")}
    assert images["heun"].shape == (2, 64, 64, 3)
    assert np.array_equal(images[None], images["euler"]) and not np.array_equal(images["euler"], images["heun"])
    with pytest.raises(UserError, match="Unknown RectifiedFlow sampler 'ddim': choose one of euler, heun"):
        generate(*flow, prompts, sampler="ddim")


def test_the_command_trains_a_rung_and_lists_ladders(home, codec, monkeypatch, capsys):
    settings = {"objective": "rf-uniform", "codec": codec, "batch": 2, "steps": 1, "probe_images": 2}
    command = ["train", "incontext-adaln-d2-w32", "--tier", "smoke", "--world", "scenes"]
    monkeypatch.setattr(sys, "argv", ["t2ikit", *command, *(f"--set={k}={v}" for k, v in settings.items())])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    folder = capsys.readouterr().out.splitlines()[-1]
    assert "/runs/incontext-adaln-d2-w32-" in folder
    monkeypatch.setattr(sys, "argv", ["t2ikit", "models", "--ladder", "crossattn", "--tier", "tiny", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["name"] == "crossattn-d2-w32" and rows[-1]["params"] > 1e9
    assert all(list(r) == ["name", "family", "params", "macs", "attn_macs", "flops_train"] for r in rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["incontext-d2-w32", "crossattn-d2-w32"])
def test_compiled_in_bf16_is_the_same_run_up_to_rounding(smoke, name):
    settings = {"objective": "rf-uniform", "batch": 8, "steps": 6, "warmup": 0}
    losses = []
    for how in ({}, {"precision": "bf16", "compile": True}):
        folder = train(*smoke(name, **settings, **how))
        losses.append([e["loss"] for e in read_lines(folder / "log.jsonl") if "loss" in e])
    assert losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
