"""The run folder: where it is, who may write to it, and the table of all runs (one run is one row).

RUN/config.json      configuration, resolved numbers, fingerprints, id
RUN/row.json         the run's row, rewritten at each log interval
RUN/log.jsonl        a line per log interval and per evaluation
RUN/segments.jsonl   a line per start: versions, commit, device, threads, processes, first step
RUN/checkpoint.json  which checkpoint is the last good one, and its SHA-256
RUN/snapshots/       weights alone at each evaluation
RUN/lease.json       who trains it now
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2ikit.errors import Busy, UserError
from t2ikit.files import locked, read_json, write_json
from t2ikit.processes import alive, born, repeating

LEASE_SECONDS = 900.0  # a lease of another host is given up after this long without a heartbeat
BEAT_SECONDS = 60.0
SIGNATURE = ("host", "pid", "born", "beat")
LEASE_KEYS = (*SIGNATURE, "token")
ROW_KEYS = (
    "run", "backbone", "world", "tier", "seed", "steps", "images", "N", "D", "C", "flops_exact", "flops_paper", "loss",
    "val_loss", "loss_space", "status", "device", "seconds", "exact_resume",
)  # fmt: skip


def home() -> Path:
    """The one root for data, caches and runs: $T2IKIT_HOME, else the checkout the package is in, else ~/.t2ikit.

    UserError if it is relative: kernels and jobs work in folders of their own, and would each have another root.
    """
    if chosen := os.environ.get("T2IKIT_HOME"):
        if not (path := Path(chosen).expanduser()).is_absolute():
            raise UserError(f"T2IKIT_HOME is {chosen!r}, a relative path: give one that begins with / or ~.")
        return path.resolve()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").exists() else Path.home() / ".t2ikit"


def merging(path: Path) -> contextlib.AbstractContextManager[None]:
    """Those who read, merge and write `path`, a table or a folder of them, come one after the other."""
    path = path.resolve()
    return locked(path.parent / f".{path.name}.lock")  # beside it: whatever home each has, they meet there


def signature() -> dict[str, Any]:
    """Who works on a file, in the file: this process, as of now."""
    return dict(zip(SIGNATURE, (socket.gethostname(), os.getpid(), born(), time.time()), strict=True))


def works(signed: Mapping[str, Any]) -> bool:
    """Whether the process of this signature still works: on this host it is looked at, another's heartbeat tells."""
    if signed["host"] != socket.gethostname():
        return time.time() - signed["beat"] < LEASE_SECONDS
    return alive(signed["pid"], signed["born"])


class Lease:
    """The right to write to a run folder: one holder at a time, on any host that shares the disk."""

    def __init__(self, folder: Path) -> None:
        self.path, self.token = folder / "lease.json", secrets.token_hex(8)

    def acquire(self) -> None:
        """Take the lease, or raise `Busy` naming the process that holds it. A dead holder's lease is taken over."""
        with self._alone():
            if holder := holder_of(self.path.parent):
                raise Busy(
                    f"{self.path.parent.name} is being trained by process {holder['pid']} on {holder['host']}: "
                    f"wait for it, or stop it and run the same command again."
                )
            for own in (self.path.parent, self.path.parent / "snapshots"):  # not images: others may be drawing
                for left in own.glob(".*.tmp"):  # what a killed writer left behind
                    left.unlink(missing_ok=True)
            self._write()

    def beat(self) -> None:
        """Renew the heartbeat."""
        with self._alone():
            self.check()
            self._write()

    def check(self) -> None:
        """Raise `Busy` unless this process still holds the lease. Called before every rename into the folder."""
        if not self.path.exists() or read_json(self.path, LEASE_KEYS)["token"] != self.token:
            raise Busy(f"Another process has taken over {self.path.parent.name}: this one stops without writing to it.")

    def release(self) -> None:
        with contextlib.suppress(UserError), self._alone():
            self.check()
            self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        write_json(self.path, signature() | {"token": self.token})

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """Those who take, renew or release the lease come one after the other."""
        return locked(self.path.with_name(".lease.lock"))


def holder_of(folder: Path) -> dict[str, Any] | None:
    """The live holder of the folder's lease, or None."""
    path = folder / "lease.json"
    try:
        lease = read_json(path, LEASE_KEYS)
    except UserError:
        if path.exists():
            raise
        return None
    return lease if works(lease) else None


@contextlib.contextmanager
def leased(folder: Path) -> Iterator[Lease]:
    """Hold the folder's lease for the length of a `with` block, with a heartbeat through steps of any length."""
    lease = Lease(folder)
    lease.acquire()

    def beat() -> None:
        # lost, or no space: the writer finds out at its next check or write; or a disk that hiccups: the next beat
        with contextlib.suppress(UserError, OSError):
            lease.beat()

    try:
        with repeating(beat, BEAT_SECONDS):
            yield lease
    finally:
        lease.release()


def table(root: Path | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of all run folders under `root`, sorted by name, and a sentence for each folder that is no readable run."""
    root = root or home() / "runs"
    if not root.is_dir():
        raise UserError(
            f"There is no folder {root}: train a run first (`t2ikit train --help`), or name the folder that has runs."
        )
    rows, problems = [], []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        try:
            if (holder := holder_of(folder)) and not (folder / "row.json").exists():
                problems.append(f"{folder.name} is being started by process {holder['pid']} on {holder['host']}.")
            else:
                rows.append(row(folder))
        except UserError as error:
            problems.append(str(error))
    return rows, problems


def row(folder: Path) -> dict[str, Any]:
    """The run's row, with its status as of now: running, done, stopped or failed."""
    read_json(folder / "config.json", ("id", "config"))
    values = read_json(folder / "row.json", ROW_KEYS)
    if holder_of(folder):
        values["status"] = "running"
    elif values["status"] == "running":
        values["status"] = "stopped"
    return values
