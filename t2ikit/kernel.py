"""Run the cells of one notebook in a kernel of this very Python, and know how it ended.

papermill marks every cell completed when the kernel was killed, and picks whichever `python3` kernelspec it meets
first; its client can wait for ever for a cell with widgets. The client here keeps its cell loop and mends all three.
Imports papermill: import it late.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import zmq
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager
from papermill.parameterize import parameterize_notebook
from traitlets import Type

from t2ikit.processes import STOPS, catching, killed

START_SECONDS = 120  # a cold file system on a cluster node
GRACE_SECONDS = 120.0  # from the first signal to the kernel's end: time to write a checkpoint


class CellFailed(Exception):
    """A cell raised (`name` is the class of its exception), timed out, or lost its kernel (`name` is empty)."""

    def __init__(self, name: str, message: str):
        super().__init__(": ".join(filter(None, [name, message])))
        self.name, self.message = name, message


class Stopped(Exception):
    """A signal ended the run; `signum` is which."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


def run(
    notebook: nbformat.NotebookNode,
    parameters: dict,
    *,
    cwd: Path,
    timeout: float | None,
    on_cell: Callable[[int, int, str], None],
    on_signal: Callable[[str], None],
    save: Callable[[nbformat.NotebookNode], None],
) -> None:
    """Execute with `parameters` injected, outputs written into the notebook, `save` called after every cell.

    timeout: seconds for one cell, None for no limit.
    on_cell: (number of the code cell from 1, code cells in all, its source), before each.
    on_signal: told once, when SIGTERM or SIGINT has been passed on to the kernel.
    Raises CellFailed or Stopped; the kernel is gone in every case.
    """
    notebook.metadata["papermill"] = nbformat.NotebookNode()
    for cell in notebook.cells:
        cell.metadata.setdefault("tags", [])  # papermill looks for them in every cell
    if parameters:
        notebook = parameterize_notebook(notebook, parameters, kernel_name="python3", language="python")
    record = _Record(notebook, save, on_cell)
    client = _Client(record, timeout=math.ceil(timeout) if timeout else None, startup_timeout=START_SECONDS)
    signals = _Handed(client, on_signal)
    with tempfile.TemporaryDirectory(prefix="t2ikit-") as sockets, signals.caught():
        client.sockets = sockets
        record.check = signals.check
        try:
            record.notebook_start()
            _start(client, cwd, signals)
            client.execute()
        except CellExecutionError as error:
            signals.check()
            raise CellFailed(error.ename, error.evalue) from error
        except CellTimeoutError as error:
            signals.check()
            raise CellFailed("", f"the cell took more than {timeout:g} seconds") from error
        except DeadKernelError as error:
            signals.check()
            raise CellFailed("", client.how_it_died()) from error
        signals.check()
        record.notebook_complete()


def _start(client: _Client, cwd: Path, signals: _Handed) -> None:
    """Start the kernel; once more if it does not answer: a loaded node is slow to start one."""
    for attempt in (1, 2):
        signals.check()
        client.km = client.create_kernel_manager()
        try:
            client.start_new_kernel(cwd=str(cwd))
            client.process = client.km.provisioner.process
            client.start_new_kernel_client()
            return
        except RuntimeError as error:
            if attempt == 2:
                signals.check()
                raise CellFailed("", f"the kernel did not start twice ({error})") from error


class _ThisPython(KernelSpecManager):
    """Every kernel name means ipykernel under sys.executable: a user's own `python3` may be another Python."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())


class Channel(AsyncZMQSocketChannel):
    """A channel whose replies are seen though it sends while somebody waits at it, as nbclient does for every output of
    a widget: sending takes ZeroMQ's only wake-up for what has come meanwhile (jupyter/nbclient issue 312)."""

    def send(self, msg: dict) -> None:
        super().send(msg)
        self.socket.get(zmq.EVENTS)  # pyzmq looks again


class _Connection(AsyncKernelClient):
    shell_channel_class = Type(Channel)


class _Client(PapermillNotebookClient):
    process = None  # subprocess.Popen of the kernel
    sockets = ""  # a short folder: the path of a Unix socket has at most 107 bytes

    def create_kernel_manager(self) -> AsyncKernelManager:
        # Unix sockets where there are any: no port to race for, nothing for the other users of a node to connect to
        private = {"transport": "ipc", "ip": f"{self.sockets}/kernel"} if os.name == "posix" else {}
        return AsyncKernelManager(
            kernel_name="python3", kernel_spec_manager=_ThisPython(), client_factory=_Connection, **private
        )

    def papermill_execute_cells(self) -> None:
        for index, cell in enumerate(self.nb.cells):
            self.nb_man.cell_start(cell, index)
            try:
                self.execute_cell(cell, index)
            except (CellExecutionError, CellTimeoutError, DeadKernelError):
                self.nb_man.cell_exception(cell, index)
                raise
            finally:
                self.nb_man.cell_complete(cell, index)

    def how_it_died(self) -> str:
        code = self.process.poll() if self.process else None
        if code is not None and code < 0:
            return f"the kernel was {killed(code)}"
        return f"the kernel ended with exit code {code}"


class _Record(NotebookExecutionManager):
    """papermill's bookkeeping of cells, with our own way of saving and telling."""

    def __init__(self, notebook: nbformat.NotebookNode, save: Callable, on_cell: Callable):
        super().__init__(notebook, progress_bar=False)
        self._write, self._on_cell = save, on_cell
        self.check: Callable[[], None] = lambda: None
        self._numbers: dict[int, int] = {}
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code" and cell.source.strip():
                self._numbers[index] = len(self._numbers) + 1

    def save(self, **_: object) -> None:
        self._write(self.nb)
        self.last_save_time = self.now()

    def cell_start(self, cell: nbformat.NotebookNode, cell_index: int, **kwargs: object) -> None:
        self.check()
        if cell_index in self._numbers:
            self._on_cell(self._numbers[cell_index], len(self._numbers), cell.source)
        super().cell_start(cell, cell_index, **kwargs)


class _Handed:
    """SIGINT and SIGTERM, and SIGUSR1 as SIGTERM, handed to the kernel, whose trainer then checkpoints; it is killed
    after the grace."""

    def __init__(self, client: _Client, on_signal: Callable[[str], None]):
        self.client, self.on_signal, self.signum, self.since = client, on_signal, 0, 0.0
        self.timer = threading.Timer(GRACE_SECONDS, self._send, [signal.SIGKILL])
        self.timer.daemon = True

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        try:
            with catching(self._hand_on, *STOPS):
                yield
        finally:
            if self.signum:
                self.timer.cancel()
                self.telling.join()

    def check(self) -> None:
        if self.signum:
            raise Stopped(self.signum)

    def _hand_on(self, signum: int) -> None:
        if self.signum:
            # Asked again: no more patience. Sooner, it is the same request, which a terminal or Slurm sends to every
            # process, so also to our parent, who passes it on.
            if time.monotonic() > self.since + 2:
                self._send(signal.SIGKILL)
            return
        signum = signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM  # a cell may not know another
        self.signum, self.since = signum, time.monotonic()
        self._send(signum)
        self.timer.start()
        # in a thread of its own: the handler may have interrupted a write to the same stream
        self.telling = threading.Thread(target=self.on_signal, args=[signal.Signals(signum).name])
        self.telling.start()

    def _send(self, signum: int) -> None:
        process = self.client.process
        if process is not None and process.poll() is None:
            os.kill(process.pid, signum)
