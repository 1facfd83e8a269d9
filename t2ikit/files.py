"""Files that are written whole or not at all, and read with a sentence for what is wrong with them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from t2ikit.errors import Busy, UserError

if TYPE_CHECKING:
    import pandas as pd


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either the old bytes or the new ones; a full disk leaves the old."""
    with replacing(path, len(data)) as f:
        f.write(data)


def write_csv(path: Path, table: pd.DataFrame, index: bool = False) -> None:
    """Write a table with seven digits a number; columns of whole numbers that have more keep them all: pandas holds a
    seed as a float where a row lacks one."""
    table = table.infer_objects()  # numbers among None are objects to pandas, which it would write with all digits
    for name in table.select_dtypes("float"):
        values = table[name].dropna()
        whole = (values % 1 == 0) & (values.abs() < 2**53)
        if whole.all() and any(float(f"{v:.7g}") != v for v in values):
            table[name] = table[name].astype("Int64")
    for name in [n for n in table if table[n].dtype.kind == "O"]:  # numbers among texts: `float_format` passes them by
        table[name] = [float(f"{v:.7g}") if isinstance(v, float) and v % 1 else v for v in table[name]]
    write_atomic(path, table.to_csv(index=index, float_format="%.7g").encode())


@contextlib.contextmanager
def replacing(path: Path, size: int) -> Iterator[IO[bytes]]:
    """A file to write about `size` bytes to, which takes the place of `path` when the `with` block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(3)}.tmp")
    with writing(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


@contextlib.contextmanager
def writing(path: Path, size: int) -> Iterator[None]:
    """What the system refuses while `path` is written, as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk is full: {path.name} ({size / 1e6:.1f} MB) was not written and what was there is kept; "
                f"free space under {path.parent} and run the same command again."
            ) from error
        raise UserError(
            f"{path} cannot be written ({error.strerror}): make its folder writable, or set T2IKIT_HOME to one that is."
        ) from error


@contextlib.contextmanager
def locked(path: Path, busy: str = "") -> Iterator[None]:
    """Hold the lock file `path` for the length of a `with` block: others, threads included, wait, or raise `Busy` with
    the sentence `busy` if one is given. The lock goes with the process that holds it."""
    with writing(path, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise Busy(busy) from None
        except OSError as error:
            raise UserError(
                f"{path} cannot be locked ({error.strerror}): its file system has no flock (Lustre: mount it with "
                "flock) or does not answer now; keep the file (T2IKIT_HOME) on one that has, or run again."
            ) from error
        yield


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path, keys: Sequence[str] = ()) -> Any:
    """The JSON in `path`, an object with `keys` if some are given; otherwise a UserError that names the file."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path} is missing: the folder is not a complete run; restore the file or delete the folder."
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it readable and run again.") from None
    except ValueError:  # no JSON, or not even text
        raise UserError(f"{path} is not readable JSON: restore it from a backup, or delete it and run again.") from None
    if keys and not (isinstance(value, dict) and all(k in value for k in keys)):
        raise UserError(
            f"{path} lacks {_first_missing(value, keys)!r}: restore it from a backup, or delete it and run again."
        )
    return value


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append one JSON line, in place of an end that a crash cut."""
    line = json.dumps(value, allow_nan=False) + "\n"
    with writing(path, len(line)), path.open("ab+") as f:
        if f.tell():
            f.seek(-1, os.SEEK_END)
            if f.read() != b"\n":
                f.seek(0)
                f.truncate(f.read().rfind(b"\n") + 1)
        f.write(line.encode())


def write_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """Replace all lines of `path`."""
    write_atomic(path, "".join(json.dumps(v, allow_nan=False) + "\n" for v in values).encode())


def read_lines(path: Path, keys: Sequence[str] = ()) -> list[dict[str, Any]]:
    """All complete JSON lines of `path`; an end that a crash cut is left out, a broken line is named."""
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise UserError(
                f"{path}, line {number}, is not JSON: restore the file, or delete that line and run again."
            ) from None
        if not (isinstance(rows[-1], dict) and all(k in rows[-1] for k in keys)):
            missing = _first_missing(rows[-1], keys)
            raise UserError(
                f"{path}, line {number}, lacks {missing!r}: restore the file, or delete that line and run again."
            )
    return rows


def _first_missing(value: Any, keys: Sequence[str]) -> str:
    return next((k for k in keys if not isinstance(value, dict) or k not in value), "{")
