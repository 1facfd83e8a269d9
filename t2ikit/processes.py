"""Signals and processes: handlers for the length of a `with` block, and commands that run side by side."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import psutil

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # SIGUSR1 may be Slurm's warning that time is nearly up
LOOK = 2.0  # seconds between looks at what other processes do


def born(pid: int | None = None) -> float:
    """When the process (default: this one) was started, in seconds since 1970: with `pid` it names one process."""
    return psutil.Process(pid).create_time()


def alive(pid: int, since: float) -> bool:
    """Whether the process `pid` of this host that was born at `since` still runs; a zombie does not, though its parent
    has not asked yet."""
    try:
        return abs(born(pid) - since) < 1.0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cores() -> int:
    """The cores that this process may use: under Slurm or `taskset` fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def catching(handler: Callable[[int], object], *signums: int) -> Iterator[None]:
    """Have `handler` called with the number of each of these signals; elsewhere than in the main thread, where Python
    can set no handlers, nothing is caught."""
    if threading.current_thread() is not threading.main_thread():
        signums = ()
    before = {signum: signal.signal(signum, lambda number, _: handler(number)) for signum in signums}
    try:
        yield
    finally:
        for signum, earlier in before.items():
            signal.signal(signum, earlier)


@contextmanager
def repeating(action: Callable[[], object], seconds: float) -> Iterator[None]:
    """Have `action` called every so many seconds, by a thread, for the length of a `with` block."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def leave(signum: int) -> NoReturn:
    """End as a process that a signal stopped in good order: 130 after Ctrl-C, 143 after SIGTERM and any other."""
    raise KeyboardInterrupt if signum == signal.SIGINT else SystemExit(128 + signal.SIGTERM)


def until(condition: Callable[[], object]) -> None:
    """Return when `condition()` holds, asked every two seconds; one of STOPS ends this process in good order."""
    with catching(leave, *STOPS):
        while not condition():
            time.sleep(LOOK)


def killed(code: int) -> str:
    """What killed a process that ended with `code`, negative as subprocess has it."""
    name = signal.Signals(-code).name
    return f"killed by {name}" + (", often for want of memory" if name == "SIGKILL" else "")


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, what it printed on stdout, the last line it said on stderr."""

    code: int
    printed: str
    last: str


def side_by_side(
    commands: Sequence[Sequence[str]],
    workers: int,
    said: Callable[[str], object] = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[dict[int, Ended]]:
    """Run `commands`, `workers` at a time, each told on stderr line by line through `said`; yields every two seconds
    which ended since, by position.

    STOPS are handed to every child as SIGTERM, on which trainers and kernels checkpoint; when all have ended, this
    process ends too. Children print little on stdout.
    """
    children: set[subprocess.Popen] = set()
    stopped: list[int] = []

    def one(command: Sequence[str]) -> Ended | None:
        if stopped:
            return None
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, encoding="utf-8", errors="replace", env={**os.environ, **(environment or {})},
        )  # fmt: skip
        children.add(child)
        if stopped:  # it may have come between the check and the start
            child.terminate()
        last = ""
        with child:
            for line in child.stderr:
                last = line.strip() or last
                said(line.rstrip("\n"))
            printed = child.stdout.read()
        children.discard(child)
        return Ended(child.returncode, printed, last)

    def stop(signum: int) -> None:
        stopped.append(signum)
        for child in list(children):
            child.terminate()

    with catching(stop, *STOPS), ThreadPoolExecutor(max(1, workers)) as pool:
        pending = {pool.submit(one, command): number for number, command in enumerate(commands)}
        try:
            while pending and not stopped:
                done, _ = wait(pending, LOOK, FIRST_COMPLETED)
                yield {pending.pop(future): ended for future in done if (ended := future.result())}
        except BaseException:  # of whoever asks: no child is left behind
            stop(signal.SIGTERM)
            raise
    if stopped:
        leave(stopped[0])
