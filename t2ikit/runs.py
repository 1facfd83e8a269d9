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
import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from t2ikit.errors import Busy, UserError

LEASE_SECONDS = 900.0  # a lease of another host is given up after this long without a heartbeat


def home() -> Path:
    """The one root for data, caches and runs: $T2IKIT_HOME, else the checkout the package is in, else ~/.t2ikit."""
    if chosen := os.environ.get("T2IKIT_HOME"):
        return Path(chosen).expanduser().resolve()
    checkout = Path(__file__).resolve().parent.parent
    return checkout if (checkout / "pyproject.toml").exists() else Path.home() / ".t2ikit"


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either the old bytes or the new ones; a full disk leaves the old and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}")
    try:
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk is full: {path.name} ({len(data) / 1e6:.1f} MB) was not written and what was there is kept; "
                f"free space under {path.parent} and run the same command again."
            ) from error
        raise


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The JSON in `path`, or a UserError that names the file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the folder is not a complete run; restore the file or delete the folder.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is not readable JSON: restore it from a backup, or delete it and run again.") from None


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line."""
    with path.open("a") as f:
        f.write(json.dumps(value, allow_nan=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All complete JSON lines of `path`; a last line that a crash cut short is left out, a broken one elsewhere is named."""
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise UserError(f"{path}, line {number}, is not JSON: restore the file, or delete that line and run again.") from None
    return rows


class Lease:
    """The right to write to a run folder: one holder at a time, on any host that shares the disk."""

    def __init__(self, folder: Path) -> None:
        self.path, self.token = folder / "lease.json", secrets.token_hex(8)

    def acquire(self) -> None:
        """Take the lease, or raise `Busy` naming the process that holds it. A dead holder's lease is taken over."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (self.path.parent / ".lease.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two takers on one disk come one after the other
            holder = holder_of(self.path.parent)
            if holder:
                raise Busy(
                    f"{self.path.parent.name} is being trained by process {holder['pid']} on {holder['host']}: "
                    f"wait for it, or stop it and run the same command again."
                )
            self.beat(check=False)

    def beat(self, check: bool = True) -> None:
        """Renew the heartbeat."""
        if check:
            self.check()
        process = psutil.Process()
        write_json(
            self.path,
            {"host": socket.gethostname(), "pid": process.pid, "born": process.create_time(), "token": self.token, "beat": time.time()},
        )

    def check(self) -> None:
        """Raise `Busy` unless this process still holds the lease. Called before every rename into the folder."""
        if not self.path.exists() or read_json(self.path).get("token") != self.token:
            raise Busy(f"Another process has taken over {self.path.parent.name}: this one stops without writing to it.")

    def release(self) -> None:
        with contextlib.suppress(Busy):
            self.check()
            self.path.unlink(missing_ok=True)


def holder_of(folder: Path) -> dict[str, Any] | None:
    """The live holder of the folder's lease, or None."""
    path = folder / "lease.json"
    if not path.exists():
        return None
    lease = read_json(path)
    if lease["host"] != socket.gethostname():
        return lease if time.time() - lease["beat"] < LEASE_SECONDS else None
    try:
        alive = abs(psutil.Process(lease["pid"]).create_time() - lease["born"]) < 1.0
    except psutil.NoSuchProcess:
        alive = False
    return lease if alive else None


@contextlib.contextmanager
def leased(folder: Path) -> Iterator[Lease]:
    """Hold the folder's lease for the length of a `with` block."""
    lease = Lease(folder)
    lease.acquire()
    try:
        yield lease
    finally:
        lease.release()


def table(root: Path | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of all run folders under `root`, sorted by name, and a sentence for each folder that is not readable as a run."""
    root = root or home() / "runs"
    if not root.is_dir():
        raise UserError(f"There is no folder {root}: train a run first (`t2ikit train --help`), or name the folder that has runs.")
    rows, problems = [], []
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        try:
            rows.append(row(folder))
        except UserError as error:
            problems.append(str(error))
    return rows, problems


def row(folder: Path) -> dict[str, Any]:
    """The run's row, with its status as of now: running, done, stopped or failed."""
    read_json(folder / "config.json")
    values = read_json(folder / "row.json")
    if holder_of(folder):
        values["status"] = "running"
    elif values["status"] == "running":
        values["status"] = "stopped"
    return values
