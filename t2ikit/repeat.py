"""A committed row trained again, its numbers beside the committed ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from t2ikit.config import Budget
from t2ikit.errors import UserError
from t2ikit.files import read_json, write_csv
from t2ikit.generate import config_of, same_parts
from t2ikit.results import read_committed, read_run
from t2ikit.runs import home, merging
from t2ikit.train.folder import run_folder
from t2ikit.train.loop import train
from t2ikit.train.setup import Parts, resolve

SCORES = ("val_loss", "val_loss_averaged", "caption_gap", "flip_accuracy")
ONLY_AT_POINTS = 10**9  # steps between further evaluations


def committed_run(path: Path) -> tuple[Parts, Budget, pd.DataFrame]:
    """Of RESULTS/configs/RUN.json the parts, the budget that evaluates them at the committed steps on as many threads,
    and the committed evaluations."""
    path = path.resolve()
    noted = read_json(path, ("id", "config"))
    if "segments" not in noted:
        raise UserError(f"{path} is the configuration of a run that was not exported: give RESULTS/configs/RUN.json.")
    curves = read_committed(path.parent.parent).curves
    curves = curves[(curves["run"] == noted["id"]) & (curves["step"] > 0)].sort_values("step")
    if curves.empty:
        raise UserError(
            f"{path.parent.parent} has no evaluations of {noted['id']}: name a configuration in the folder of results "
            "that has its rows."
        )
    steps, first = [int(step) for step in curves["step"]], noted["segments"][0]
    alike = {key: first[key] for key in ("threads", "micro_batch") if key in first}
    budget = Budget(steps[-1], eval_every=ONLY_AT_POINTS, eval_at=tuple(steps), **alike)
    parts = resolve(config_of(path, noted["config"]))
    same_parts(path.stem, noted, parts)
    return parts, budget, curves


def repeat(path: Path, steps: int | None = None, root: Path | None = None) -> pd.DataFrame:
    """Train the run of RESULTS/configs/RUN.json anew under `root` (default: $T2IKIT_HOME/repeats) up to the last
    evaluation within `steps`. A row an evaluation and score: step, score, committed, again, off (relative), and on what
    both were trained: device, device_again."""
    parts, budget, curves = committed_run(path)
    if steps is not None:
        within = tuple(step for step in budget.eval_at if step <= steps)
        if not within:
            raise UserError(f"{path.stem} was first evaluated at step {budget.eval_at[0]}: give as many --steps.")
        budget = replace(budget, steps=within[-1], eval_at=within)
    root = root or home() / "repeats"
    train(parts.config, budget, root, parts)
    found = read_run(run_folder(parts, root))
    again, devices = found.curves.set_index("step"), (_device(path), found.runs["device"].item())
    rows = []
    for at in curves[curves["step"] <= budget.steps].to_dict("records"):
        for score in SCORES:
            if pd.notna(was := at.get(score)):
                now = float(again.loc[at["step"], score])
                rows.append((at["step"], score, was, now, abs(now - was) / max(abs(was), 1e-12), *devices))
    return pd.DataFrame(rows, columns=["step", "score", "committed", "again", "off", "device", "device_again"])


def keep(file: Path, run: str, table: pd.DataFrame) -> None:
    """Merge what `repeat` found of `run` into a CSV file; the same evaluation on the same device replaces the older."""
    with merging(file):
        frames = [pd.read_csv(file)] if file.exists() else []
        whole = pd.concat([*frames, table.assign(run=run)[["run", *table.columns]]])
        key = ["run", "step", "score", "device_again"]
        write_csv(file, whole.drop_duplicates(key, keep="last").sort_values(key, kind="stable"))


def _device(path: Path) -> str:
    """On what the run of RESULTS/configs/RUN.json was trained last."""
    return read_json(path)["segments"][-1]["device"]
