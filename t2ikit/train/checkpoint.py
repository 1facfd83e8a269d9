"""Checkpoints: the whole state of a run in one safetensors file, and a pointer to the last good one with its SHA-256.

The pointer is written after the file it names, and the older file removed after that: at every moment one good
checkpoint is named. Snapshots, weights alone, stay for metrics and samplers.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from t2ikit.errors import UserError
from t2ikit.files import read_json, write_atomic, write_json
from t2ikit.runs import Lease
from t2ikit.tensors import pack, read_tensors


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], lease: Lease) -> None:
    """Write `tensors` as the state after `step` steps and point to it."""
    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    name = f"checkpoint-{step:08d}.safetensors"
    lease.check()
    write_atomic(folder / name, data)
    lease.check()
    write_json(folder / "checkpoint.json", {"step": step, "file": name, "sha256": hashlib.sha256(data).hexdigest()})
    for old in folder.glob("checkpoint-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor]] | None:
    """Step and tensors of the last good checkpoint, or None before the first. A damaged file is named."""
    if not (folder / "checkpoint.json").exists():
        return None
    pointer = read_json(folder / "checkpoint.json", ("step", "file", "sha256"))
    path = folder / pointer["file"]
    if not path.exists() or hashlib.sha256(data := path.read_bytes()).hexdigest() != pointer["sha256"]:
        raise UserError(
            f"The checkpoint {path} is missing or damaged: restore it from a backup, or delete the run folder to "
            "train anew."
        )
    return pointer["step"], load(data)


def save_snapshot(folder: Path, step: int, model: nn.Module, average: dict[str, Tensor] | None, lease: Lease) -> Path:
    """Weights alone, read later by metrics and samplers: the raw ones, and under `ema.` the averaged ones if given."""
    data = pack(model.state_dict() | {f"ema.{k}": v for k, v in (average or {}).items()})
    path = snapshot_path(folder, step)
    lease.check()
    write_atomic(path, data)
    return path


def load_snapshot(folder: Path, step: int) -> dict[str, Tensor]:
    """The tensors that `save_snapshot` wrote. A damaged file is named."""
    return read_tensors(snapshot_path(folder, step), "choose another step, or delete the run folder and train anew.")


def snapshot_path(folder: Path, step: int) -> Path:
    return folder / "snapshots" / f"step-{step:08d}.safetensors"


def pack_optimizer(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """AdamW's moments and step counts as `optimizer.NAME.KEY` tensors."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{names[i]}.{k}": torch.as_tensor(v) for i, s in state.items() for k, v in s.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: dict[str, Tensor]) -> None:
    """Put back what `pack_optimizer` took."""
    state = optimizer.state_dict()
    prefix = "optimizer."
    for key, value in tensors.items():
        if key.startswith(prefix):
            name, item = key[len(prefix) :].rsplit(".", 1)
            state["state"].setdefault(names.index(name), {})[item] = value.clone()
    optimizer.load_state_dict(state)
