"""The folder of a training: where it is, whether what it holds can be gone on with, and who may write to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from t2ikit import files, runs
from t2ikit.config import Budget
from t2ikit.errors import UserError
from t2ikit.train.setup import Parts


def run_folder(parts: Parts, root: Path | None = None) -> Path:
    """Where the run is, or will be: `$T2IKIT_HOME/runs/ID`, or under `root`."""
    return (root or runs.home() / "runs") / parts.id


def is_done(folder: Path, steps: int) -> bool:
    """Whether the run in `folder` is complete with at least `steps` steps, or was before it was trained further."""
    if not (folder / "row.json").exists() or not (folder / "config.json").exists():
        return False
    files.read_json(folder / "config.json", ("config", "loss_space"))
    row = files.read_json(folder / "row.json", runs.ROW_KEYS)
    if row["status"] == "done" or row["steps"] < steps:
        return row["steps"] >= steps
    # averaged weights are validated where a training ends
    return any(e["step"] == steps and "val_loss_averaged" in e for e in evaluations(folder))


def evaluations(folder: Path) -> list[dict]:
    """The lines of the log that are evaluations."""
    return [e for e in files.read_lines(folder / "log.jsonl", ("step",)) if "val_loss" in e]


def check_folder(folder: Path, parts: Parts) -> None:
    """Raise a UserError if what `folder` holds of this run cannot be gone on with."""
    if (folder / "config.json").exists():
        before = files.read_json(folder / "config.json", ("config", "loss_space"))
        if before["loss_space"] != parts.loss_space:
            images = before["config"].get("probe_images")
            raise UserError(
                f"{folder.name} was evaluated in another loss space (probe_images={images}; now "
                f"{parts.config.probe_images}): go on with the same, or delete the folder to train anew."
            )
    elif any((folder / name).exists() for name in ("row.json", "checkpoint.json", "log.jsonl")):
        raise UserError(
            f"{folder} has a run's files but no config.json: restore it, or delete the folder to train anew."
        )


def check_resumable(folder: Path) -> None:
    """Raise a UserError if the run in `folder` was trained to an evaluation, before which there is a checkpoint always,
    and has none: from its first step on, it would overwrite what it has."""
    if not (folder / "checkpoint.json").exists() and (passed := evaluations(folder)):
        raise UserError(
            f"{folder.name} was evaluated at step {passed[-1]['step']} and has no checkpoint.json to go on from: "
            "restore it, or delete the folder to train anew."
        )


def check_evaluated(folder: Path, budget: Budget) -> None:
    """Raise a UserError if the run in `folder` has passed a step that it is asked to be evaluated at."""
    if not budget.eval_at or not (folder / "checkpoint.json").exists():
        return
    passed = files.read_json(folder / "checkpoint.json", ("step",))["step"]  # what comes after is trained again
    averaged = {e["step"]: "val_loss_averaged" in e for e in evaluations(folder) if e["step"] <= passed}
    # of the last step an evaluation that is missing altogether is made up
    if lost := [k for k in budget.eval_at if k <= passed and not averaged.get(k, k == passed)]:
        raise UserError(
            f"{folder.name} has {passed} steps and was not evaluated at step {lost[0]}, as is asked for now: move "
            "the folder away and run the same command again, which trains it anew."
        )


@contextmanager
def writer(folder: Path) -> Iterator[runs.Lease | None]:
    """The folder's lease for the first process of a training, None for the others, which start when it is taken."""
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    if not state.is_main_process:
        state.wait_for_everyone()
        yield None
        return
    with runs.leased(folder) as lease:
        state.wait_for_everyone()
        yield lease
