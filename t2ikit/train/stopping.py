"""How a run ends before its time: it notes the signal, checkpoints, and exits with 143."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Terminated(SystemExit):
    """SIGTERM came: the run has checkpointed and stopped. Exit code 143."""

    def __init__(self) -> None:
        super().__init__(143)


@contextmanager
def signalled() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGUSR1 (Slurm's warning) append to, inside a `with` block of the main thread."""
    received: list[int] = []
    caught = (signal.SIGTERM, signal.SIGUSR1) if threading.current_thread() is threading.main_thread() else ()
    before = [signal.signal(s, lambda number, _: received.append(number)) for s in caught]
    try:
        yield received
    finally:
        for s, handler in zip(caught, before, strict=True):
            signal.signal(s, handler)
