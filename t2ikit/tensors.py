"""Safetensors that carry their own checksum: a file that was cut short or changed is named, never read as data. And
what weights are: their hash, and whether all are numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from t2ikit.config import canonical
from t2ikit.errors import UserError


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Safetensors bytes that any reader loads, with the SHA-256 of their contents in the metadata."""
    found = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    return save(found, {"sha256": _contents_hash(save(found))[0]})


def unpack(data: bytes, path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors in what `pack` made, or a UserError that names `path` and ends with `remedy`."""
    try:
        contents, noted = _contents_hash(data)
        if contents == noted:
            return load(data)
    except (ValueError, AttributeError, SafetensorError):  # not even a header
        pass
    raise UserError(f"{path} is damaged: {remedy}")


def read_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """`unpack` of a file's bytes."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    return unpack(data, path, remedy)


def tensors_hash(tensors: Sequence[Tensor]) -> str:
    """SHA-256 over shapes and float32 bytes, in the order given."""
    h = hashlib.sha256()
    for t in tensors:
        h.update(json.dumps(list(t.shape)).encode())
        h.update(t.detach().float().cpu().contiguous().numpy().tobytes())
    return h.hexdigest()


def only_finite(state: Mapping[str, Any], path: str | Path) -> None:
    """A UserError that names the first tensor with a NaN or an infinity."""
    bad = [k for k, x in state.items() if isinstance(x, Tensor) and x.is_floating_point() and not x.isfinite().all()]
    if bad:
        raise UserError(
            f"{path} holds NaN or infinity in {bad[0]!r} ({len(bad)} such tensors): get it again from its authors."
        )


def _contents_hash(data: bytes) -> tuple[str, str | None]:
    """SHA-256 of the header without its metadata and of all tensors; and the one that the metadata notes."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    metadata = header.pop("__metadata__", {})
    h = hashlib.sha256(canonical(header).encode())
    h.update(memoryview(data)[end:])
    return h.hexdigest(), metadata.get("sha256")
