"""Several runs at once, each in a process of its own: `t2ikit train` started by the study, one bar for all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from tqdm.auto import tqdm

from t2ikit import runs
from t2ikit.config import Budget, RunConfig, canonical
from t2ikit.errors import UserError

POLL = 2.0  # seconds between looks at the children
TERMINATED = 143


def command(config: RunConfig, budget: Budget, root: Path) -> list[str]:
    """The command line that trains `config`: also what the results' provenance prints."""
    named = {"backbone", "world", "tier"}
    fields = {k: v for part in (config, budget) for k, v in asdict(part).items() if k not in named}
    settings = [f"{k}={v if isinstance(v, str) else canonical(v)}" for k, v in fields.items()]
    base = [
        sys.executable,
        "-m",
        "t2ikit.cli",
        "train",
        config.backbone,
        "--world",
        config.world,
        "--tier",
        config.tier,
        "--runs",
        str(root),
    ]
    return base + [part for s in settings for part in ("--set", s)]


def train_apart(wanted: Sequence[tuple[RunConfig, Budget]], root: Path, workers: int | None = None) -> list[Path]:
    """Train all of `wanted`, `workers` at a time (default: on a machine without GPU as many as its cores hold, a run's
    threads each; with one, 1); returns the run folders in order. Stopped, it goes on when called again.

    A run that fails does not stop the others; at the end a UserError names each with the last thing it said. SIGTERM
    and Ctrl-C are handed on: every child checkpoints before this process ends.
    """
    if workers is None:
        import torch

        threads = max((budget.threads for _, budget in wanted), default=0)
        workers = 1 if torch.cuda.is_available() or not threads else max(1, (os.cpu_count() or 1) // threads)
    waiting, running, folders, failed = list(enumerate(wanted)), {}, {}, {}
    started: dict[int, float] = {}
    with (
        tempfile.TemporaryDirectory() as scratch,
        _handing_on(running),
        tqdm(total=len(wanted), desc="runs", unit="run", mininterval=POLL) as bar,
    ):
        while waiting or running:
            while waiting and len(running) < workers:
                number, (config, budget) = waiting.pop(0)
                streams = [open(Path(scratch) / f"{number}.{kind}", "w+") for kind in ("out", "err")]  # noqa: SIM115
                environment = os.environ | {"OMP_NUM_THREADS": str(budget.threads or 1)}
                process = subprocess.Popen(
                    command(config, budget, root), stdout=streams[0], stderr=streams[1], env=environment
                )
                running[number], started[number] = (process, streams), time.monotonic()
            time.sleep(POLL)
            for number in [n for n, (process, _) in running.items() if process.poll() is not None]:
                process, (out, err) = running.pop(number)
                said, told = _last_line(out), _last_line(err)
                if process.returncode == 0:
                    folders[number] = Path(said)
                    row = runs.read_json(folders[number] / "row.json")
                    seconds = time.monotonic() - started[number]
                    bar.write(f"{row['run']}: {row['steps']} steps, loss {row['loss']:.4f}, {seconds:.0f} s")
                elif process.returncode == TERMINATED:
                    raise SystemExit(TERMINATED)
                else:
                    failed[number] = told
                bar.update()
            bar.set_postfix_str(", ".join(wanted[n][0].backbone for n in running), refresh=True)
    if failed:
        named = "; ".join(f"{wanted[n][0].backbone}, seed {wanted[n][0].seed}: {told}" for n, told in failed.items())
        raise UserError(f"{len(failed)} of {len(wanted)} runs failed, the others are kept: {named}")
    return [folders[n] for n in range(len(wanted))]


def _last_line(stream: IO[str]) -> str:
    stream.seek(0)
    lines = [line for line in stream.read().replace("\r", "\n").splitlines() if line.strip()]
    stream.close()
    return lines[-1].strip() if lines else ""


class _handing_on:
    """Hand SIGTERM and SIGINT to the children as SIGTERM, wait until they have checkpointed, then end."""

    def __init__(self, running: dict) -> None:
        self.running = running

    def __enter__(self) -> None:
        self.before = {s: signal.signal(s, self._received) for s in (signal.SIGTERM, signal.SIGINT)}

    def _received(self, number: int, _: object) -> None:
        for process, _streams in list(self.running.values()):
            process.terminate()
        for process, _streams in list(self.running.values()):
            process.wait()
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(TERMINATED)

    def __exit__(self, *_: object) -> None:
        for process, _streams in self.running.values():  # an error here must not leave children behind
            process.terminate()
        for s, handler in self.before.items():
            signal.signal(s, handler)
