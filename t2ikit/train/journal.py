"""What a run writes down beside its weights: its log, its one row, and a line per start."""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch

from t2ikit import files, runs
from t2ikit.models.cost import Cost
from t2ikit.train.setup import Parts

PACKAGES = ("t2ikit", "torch", "diffusers", "transformers", "accelerate", "numpy")
# what must not change between starts for bit-equal weights
EXACT = ("versions", "device", "threads", "processes", "micro_batch")


class Journal:
    """Log, row and segments of one run folder. Every write checks the lease first; without a lease nothing is written:
    another process of the same training does."""

    def __init__(self, folder: Path, lease: runs.Lease | None, parts: Parts, cost: Cost) -> None:
        self.folder, self.lease, self.parts, self.cost = folder, lease, parts, cost
        self.seconds, self.loss, self.evaluation = 0.0, None, {}
        self.exact_resume, self.device = True, "cpu"
        self.evaluated: int | None = None  # the step of the last evaluation

    def begin(self, step: int, device: torch.device, processes: int, micro_batch: int = 0) -> None:
        """Add this start's line, and take back the log to `step`, the last checkpoint's."""
        segment = {
            "first_step": step,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "versions": {name: version(name) for name in PACKAGES},
            "commit": commit(),
            "device": device_name(device),
            "threads": torch.get_num_threads(),
            "processes": processes,
            "micro_batch": micro_batch,
        }
        before = files.read_lines(self.folder / "segments.jsonl", ("first_step", *EXACT[:-1]))
        segments = [*({"micro_batch": 0} | s for s in before), segment]  # older starts had no such choice
        used = [
            s for s, after in pairwise(segments) if after["first_step"] > s["first_step"]
        ]  # the others left no steps
        self.exact_resume = all(s[key] == segment[key] for s in used for key in EXACT)
        self.device = segment["device"]
        kept = [e for e in files.read_lines(self.folder / "log.jsonl", ("step", "seconds")) if e["step"] <= step]
        if self.lease:
            self.lease.check()
            files.write_lines(self.folder / "segments.jsonl", segments)
            files.write_lines(self.folder / "log.jsonl", kept)
        for entry in kept:
            self._remember(entry)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Append a line for `step`: of training if it has a `loss`, of validation if it has a `val_loss`."""
        done = self.parts.config.batch * step
        entry = {
            "step": step,
            "images": done,
            "flops_exact": self.cost.flops_train * done,
            "flops_paper": 6 * self.cost.macs * done,  # paper S: 3 × 2 × MACs × images
            "seconds": round(self.seconds, 3),
            **values,
        }
        if self.lease:
            self.lease.check()
            files.append_line(self.folder / "log.jsonl", entry)
        self._remember(entry)

    def _remember(self, entry: dict[str, Any]) -> None:
        self.seconds = entry["seconds"]
        if "loss" in entry:
            self.loss = entry["loss"]
        if "val_loss" in entry:
            self.evaluated = entry["step"]
            self.evaluation = {
                k: v for k, v in entry.items() if k.startswith(("val_loss", "caption_gap", "flip_accuracy"))
            }

    def write_row(self, step: int, status: str) -> None:
        """Rewrite row.json. `D` counts `BackboneSpec.tokens`, C = 6 N D; `N_token`, `C_token`: without the parameters
        that are applied once a sample (adaLN, the time's embedding)."""
        if not self.lease:
            return
        config, cost, images = self.parts.config, self.cost, self.parts.config.batch * step
        tokens = cost.tokens * images
        self.lease.check()
        files.write_json(
            self.folder / "row.json",
            {
                "run": self.parts.id,
                "backbone": config.backbone,
                "world": config.world,
                "tier": config.tier,
                "seed": config.seed,
                "steps": step,
                "images": images,
                "N": cost.params,
                "D": tokens,
                "C": 6 * cost.params * tokens,
                "N_token": cost.params_per_token,
                "C_token": 6 * cost.params_per_token * tokens,
                "flops_exact": cost.flops_train * images,
                "flops_paper": 6 * cost.macs * images,
                "loss": self.loss,
                "val_loss": self.evaluation.get("val_loss"),
                "loss_space": self.parts.loss_space,
                "status": status,
                "device": self.device,
                "seconds": round(self.seconds, 1),
                "exact_resume": self.exact_resume,
                "caption_gap": self.evaluation.get("caption_gap"),
                "flip_accuracy": self.evaluation.get("flip_accuracy"),
                "lr": config.lr,
                "batch": config.batch,
                "captions": config.captions,
                "codec": config.codec,
                "precision": config.precision,
                "resolution": config.resolution,
                "objective": config.objective,
                "setting": config.setting,
            },
        )


def memory_bytes(device: torch.device) -> int:
    """Resident memory of the process on a CPU, the peak of allocated memory on a GPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the processor's with its number of cores and, where that is another, the maker whose
    kernels MKL takes: rows of equal names round alike."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = f"{cpu_name()} × {psutil.cpu_count(logical=False) or psutil.cpu_count()}"
    return f"{name}, MKL as on Intel" if "Intel" not in name and mkl_sees_intel() else name


def mkl_sees_intel() -> bool:
    """Whether a library loaded first tells MKL that the processor is one of Intel's (docs/another_processor.md)."""
    try:
        return bool(ctypes.CDLL(None).mkl_serv_intel_cpu_true())
    except (AttributeError, OSError, TypeError):  # no such library; no way to ask on Windows
        return False


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """The checkout's commit, None where the package is installed without one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists() or not shutil.which("git"):
        return None
    asked = subprocess.run(
        ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or None
