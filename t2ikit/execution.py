"""Execute one notebook with checked parameters, and keep its state in a file that even a kill cannot make lie."""

from __future__ import annotations

import contextlib
import datetime
import json
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from t2ikit import files, processes, runs
from t2ikit.errors import Busy, NotebookFailed, UserError
from t2ikit.notebook_parameters import checked


def to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def execute(
    notebook: Path,
    parameters: Mapping[str, object],
    out: Path,
    *,
    log: Callable[[str], None] = to_stderr,
    timeout: float | None = None,
) -> Path:
    """Execute `notebook` with `parameters` into `out`, both .ipynb; returns `out`.

    parameters: names and types as in the cell tagged `parameters`; checked before the kernel starts.
    timeout: seconds for one cell; None for no limit.
    The kernel is this Python, its folder is that of `out`. `out` and `status_path(out)` are rewritten after every cell.
    SIGTERM goes on to the kernel, which has two minutes to checkpoint; then SystemExit(143).
    Raises UserError for a wrong parameter or a UserError in a cell, Busy if `out` is being written by another process,
    NotebookFailed with the failing cell otherwise.
    """
    node = read(Path(notebook))
    name, out = Path(notebook).stem, Path(out).resolve()
    plain = checked(node, parameters, Path(notebook).name)
    if out == Path(notebook).resolve():
        raise UserError(f"{out} would be overwritten by its own outputs: choose another file for them.")

    from t2ikit import kernel

    record = _Status(out, plain)
    with runs.merging(record.path):  # of two that start at once, one is first
        if (now := status(out)).get("state") == "running":
            raise Busy(
                f"{out} is being written by process {now['pid']} on {now['host']}: wait for it, or choose another "
                "place."
            )
        record.write()

    def on_cell(number: int, cells: int, source: str) -> None:
        line = first_line(source)
        record.write(cell=number, cells=cells, line=line)
        log(f"{name}: cell {number} of {cells}: {line}")

    def on_signal(signal_name: str) -> None:
        record.write(kind="signal", error=f"{signal_name}: the kernel may write its checkpoint")
        log(f"{name}: {signal_name} passed on to the kernel")

    def failed(kind: str, message: str) -> str:
        at = f" at cell {record.value['cell']} of {record.value['cells']} ({record.value['line']})"
        sentence = f"{Path(notebook).name} stopped{at if record.value['cell'] else ''}: {message}"
        record.write(state="failed", kind=kind, error=sentence, ended=_now())
        return sentence

    try:
        with processes.repeating(record.beat, runs.BEAT_SECONDS):
            kernel.run(
                node,
                plain,
                cwd=out.parent,
                timeout=timeout,
                on_cell=on_cell,
                on_signal=on_signal,
                save=lambda nb: files.write_atomic(out, _bytes(nb)),
            )
    except kernel.CellFailed as error:
        known = {"UserError": UserError, "Busy": Busy}.get(error.name)
        sentence = failed("user" if known else "cell", error.message if known else str(error))
        raise (known or NotebookFailed)(f"{sentence.rstrip('.')}. The outputs so far are in {out}.") from error
    except kernel.Stopped as stop:
        log(failed("signal", str(stop)))
        raise SystemExit(128 + stop.signum) from stop
    except BaseException as error:
        failed("internal", f"{type(error).__name__}: {error}")
        raise
    record.write(state="done", ended=_now())
    return out


def status_path(out: Path) -> Path:
    """Where the state of `out` is kept: `fig01.status.json` beside `fig01.ipynb`."""
    return Path(out).with_suffix(".status.json")


def status(out: Path) -> dict[str, Any]:
    """The state of `out`; {} if it was never executed.

    {state: "running" | "done" | "failed", cell: number from 1, cells: how many, line: first line of the cell,
    error: a sentence, kind: "user" | "cell" | "signal" | "killed" | "internal", started, ended: ISO times,
    parameters, host, pid, born (when the process was, in seconds since 1970), beat (its last heartbeat, the same)}
    `running` is believed only while its process lives; another host's, while its heart beats. Told to stop, a notebook
    is running, of kind "signal", until its kernel has ended.
    """
    path = status_path(out)
    if not path.exists():
        return {}
    value = {"born": 0.0, "beat": 0.0} | files.read_json(path, ("state", "kind", "error", "host", "pid"))
    if value["state"] == "running" and not runs.works(value):
        told = {} if value["kind"] else {"kind": "killed", "error": f"process {value['pid']} is gone: it was killed"}
        value |= {"state": "failed"} | told
    return value


class _Status:
    def __init__(self, out: Path, parameters: dict[str, Any]):
        self.path = status_path(out)
        self.value: dict[str, Any] = {
            "state": "running", "cell": None, "cells": None, "line": None, "error": None, "kind": None,
            "started": _now(), "ended": None,
            "parameters": json.loads(json.dumps(parameters), parse_constant=lambda _: None),  # JSON has no NaN
        }  # fmt: skip
        self.alone = threading.RLock()  # cells, signals and the heart write

    def write(self, **changes: object) -> None:
        with self.alone:
            self.value |= changes | runs.signature()
            files.write_json(self.path, self.value)

    def beat(self) -> None:
        with contextlib.suppress(UserError, OSError):  # a disk that hiccups: the next beat
            self.write()


def first_line(source: str) -> str:
    """The first line of code of a cell, at most 80 characters: what a reader knows it by."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    code = next((line for line in lines if not line.startswith("#")), lines[0] if lines else "")
    return code if len(code) <= 80 else code[:79] + "…"


def read(notebook: Path) -> Any:
    """The notebook as an nbformat 4 node, or a UserError."""
    import nbformat

    if not notebook.is_file():
        raise UserError(f"There is no notebook {notebook}: give the path of an .ipynb file.")
    try:
        return nbformat.read(notebook, as_version=4)
    except (
        nbformat.reader.NotJSONError, nbformat.NBFormatError, nbformat.ValidationError, UnicodeDecodeError,
        AttributeError, KeyError, TypeError,  # what it makes of JSON that is no notebook
    ):  # fmt: skip
        raise UserError(f"{notebook} is not a Jupyter notebook: give the path of an .ipynb file.") from None


def _bytes(notebook: Any) -> bytes:
    import nbformat

    return (nbformat.writes(notebook) + "\n").encode()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
