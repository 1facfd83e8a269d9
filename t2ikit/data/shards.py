"""Image-text pairs on disk: webdataset shards (tar) with an index, and a Parquet table with a row a sample.

What is broken is named: a shard that is corrupt or cut short, a sample without image or caption, an image that does not
decode.
Captions are untrusted text; they are written inside members whose names are numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from t2ikit.errors import UserError, need
from t2ikit.files import write_atomic, write_json

PER_SHARD = 1000
INDEX = "index.json"
IMAGE_SUFFIXES = ("webp", "png", "jpg", "jpeg")


@dataclass(frozen=True)
class Sample:
    """One pair as stored: key, encoded image, caption, further facts (the .json member), the image's suffix."""

    key: str
    image: bytes
    caption: str
    facts: dict[str, Any] = field(default_factory=dict)
    suffix: str = "webp"
    shard: str = ""


def write_shards(
    folder: Path, samples: Iterable[Sample], stem: str = "train", per_shard: int = PER_SHARD
) -> list[dict[str, Any]]:
    """Write STEM-00000.tar … into `folder`, each atomically and byte for byte reproducible; an index entry for each.

    An entry is {url, nsamples, filesize, sha256}, as in webdataset's `shardlist`; pass all entries to `write_index`.
    """
    try:
        from webdataset import TarWriter
    except ImportError as error:
        raise need("data", "webdataset") from error
    entries, waiting = [], list[Sample]()

    def flush() -> None:
        stream = io.BytesIO()
        with TarWriter(stream, encoder=False, mtime=0) as tar:
            for sample in waiting:
                facts = json.dumps(sample.facts, ensure_ascii=False, sort_keys=True).encode()
                tar.write(
                    {"__key__": sample.key, sample.suffix: sample.image, "txt": sample.caption.encode(), "json": facts}
                )
        data, name = stream.getvalue(), f"{stem}-{len(entries):05d}.tar"
        write_atomic(folder / name, data)
        entries.append(
            {"url": name, "nsamples": len(waiting), "filesize": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        )
        waiting.clear()

    for sample in samples:
        waiting.append(sample)
        if len(waiting) == per_shard:
            flush()
    if waiting:
        flush()
    return entries


def write_index(folder: Path, entries: list[dict[str, Any]]) -> None:
    """The index of all shards of `folder`, in webdataset's `wids` layout."""
    write_json(folder / INDEX, {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": entries})


def read_index(folder: Path) -> list[dict[str, Any]]:
    """The entries that `write_index` wrote."""
    try:
        return list(json.loads((folder / INDEX).read_text())["shardlist"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / INDEX} cannot be read as an index of shards ({error}): write the shards again."
        ) from error


def read_shard(path: Path, entry: dict[str, Any] | None = None) -> Iterator[Sample]:
    """The samples of one shard, in order. With its index `entry`, its hash is checked before anything is read.

    Raises a UserError that names the shard (and the sample, where one is at fault). An empty caption is a caption.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"Shard {path} cannot be read ({error.strerror}): get the data set again.") from error
    if entry is not None and hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise UserError(
            f"Shard {path} is corrupt: {len(data):,} bytes, not the recorded content of {entry['filesize']:,} bytes; "
            "remove it and get the data set again."
        )
    group: dict[str, bytes] = {}
    key = ""
    for member, content in _members(path, data):
        base, _, suffix = member.rpartition("/")[2].partition(".")
        here = member[: len(member) - len(suffix) - 1] if suffix else member
        if here != key and group:
            yield _sample(path, key, group)
            group = {}
        key = here if base else key
        group[suffix.lower()] = content
    if group:
        yield _sample(path, key, group)


def _members(path: Path, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and content of each regular file of a tar; ours, since webdataset ends silently if it is cut short."""
    end = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                stream = tar.extractfile(member) if member.isfile() else None
                content = stream.read() if stream else b""
                if len(content) != (member.size if stream else 0):
                    raise tarfile.ReadError("unexpected end of data")
                end = tar.offset
                if stream:
                    yield member.name, content
    except (tarfile.TarError, EOFError, UnicodeError) as error:
        raise UserError(
            f"Shard {path} is corrupt or cut short ({error}): remove it and get the data set again."
        ) from error
    if len(data) < end + 512 or data[end : end + 512].strip(b"\0"):
        raise UserError(
            f"Shard {path} is corrupt or cut short (no end mark after {end:,} bytes): remove it and get the data again."
        )


def _sample(path: Path, key: str, group: dict[str, bytes]) -> Sample:
    where = f"Sample {key!r} of shard {path}"
    suffix = next((suffix for suffix in IMAGE_SUFFIXES if suffix in group), None)
    if suffix is None:
        raise UserError(
            f"{where} has no image ({', '.join(sorted(group))}): it needs one of {', '.join(IMAGE_SUFFIXES)}."
        )
    try:
        facts = json.loads(group.get("json", b"{}"))
        facts = facts if isinstance(facts, dict) else {"value": facts}
        caption = group["txt"].decode() if "txt" in group else facts["caption"]
        if not isinstance(caption, str):
            raise TypeError("the caption is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{where} has no caption that can be read ({error}): it needs UTF-8 text in .txt, or .json with caption."
        ) from error
    return Sample(key, group[suffix], caption, facts, suffix, path.name)


def decode(sample: Sample) -> np.ndarray:
    """uint8 RGB [h, w, 3] of the sample's image, on white; a UserError names sample and shard if it fails."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(sample.image)) as image:
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                layer = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(
            f"The image of sample {sample.key!r} in shard {sample.shard} does not decode ({error}): "
            "remove the sample, or get the data set again."
        ) from error


def write_table(path: Path, table: pa.Table) -> None:
    """`table` as Parquet (zstd), atomically."""
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    write_atomic(path, stream.getvalue())


def read_table(path: Path, columns: Iterable[str] | None = None) -> pa.Table:
    """The Parquet table at `path`, or those of its `columns`; a UserError names what is missing or broken."""
    try:
        return pq.read_table(path, columns=list(columns) if columns is not None else None)
    except FileNotFoundError:
        raise UserError(f"There is no table {path}: get the data set again.") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"Table {path} cannot be read ({error}): get the data set again.") from error
