"""Encode once: a split of a world × a frozen encoder → safetensors shards with checksums, read at random by index.

A cache folder is named by the hash of (world, split, encoder), and its index.json repeats them, so a changed encoder or
data set never meets a stale cache. Shards are made when they are first asked for, so a short run over a large world
encodes only what it sees.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from t2ikit.config import digest
from t2ikit.data.world import World
from t2ikit.encoders import ImageCodec, TextEncoder, batches
from t2ikit.errors import UserError
from t2ikit.files import locked, read_json, write_atomic, write_json
from t2ikit.runs import home
from t2ikit.tensors import pack, read_tensors

SHARD = 2048  # items a shard: 4 MB of 16 × 16 × 4 latents
IN_MEMORY = 4  # shards: a batch of shuffled shards meets one or two

Encode = Callable[[np.ndarray], dict[str, Tensor]]  # indices of a split → tensors, a row an index


class EncodedSplit:
    """One split of a world through one encoder. `rows(indices)` gives float32 tensors (bool stays bool). `encoding`:
    seconds in which missing shards were encoded, by this process or by one that it waited for."""

    def __init__(self, folder: Path, identity: dict[str, str], n: int, encode: Encode) -> None:
        self.folder, self.identity, self.n, self.encode = folder, identity, n, encode
        self.encoding = 0.0
        index = folder / "index.json"
        if index.exists() and read_json(index) != identity:
            raise UserError(
                f"The cache {folder} was made from other data or by another encoder ({read_json(index)}): delete it "
                "and run again."
            )
        if not index.exists():
            write_json(index, identity)
        self._shard = functools.lru_cache(maxsize=IN_MEMORY)(self._load)

    def shard_path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.safetensors"

    def rows(self, indices: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Tensors for `indices`, in that order; missing shards are encoded first."""
        indices = np.asarray(indices)
        for bad in indices[(indices < 0) | (indices >= self.n)][:1]:
            raise UserError(f"Index {bad} is outside the split: it has {self.n} items.")
        out: dict[str, Tensor] = {}
        for shard in np.unique(indices // SHARD):
            mine = np.flatnonzero(indices // SHARD == shard)
            for k, v in self._shard(int(shard)).items():
                dtype = torch.bool if v.dtype == torch.bool else torch.float32
                whole = out.setdefault(k, torch.empty((len(indices), *v.shape[1:]), dtype=dtype))
                whole[mine] = v[indices[mine] % SHARD].to(dtype)
        return out

    def _load(self, shard: int) -> dict[str, Tensor]:
        path = self.shard_path(shard)
        if not path.exists():
            start = time.monotonic()
            with locked(self.folder / ".lock"):  # two runs that start together encode a shard once
                if not path.exists():
                    self._make(shard)
            self.encoding += time.monotonic() - start
        return read_tensors(path, "delete this cache shard and run again, it will be encoded anew.")

    def _make(self, shard: int) -> None:
        indices = np.arange(shard * SHARD, min((shard + 1) * SHARD, self.n))
        parts = [self.encode(indices[piece]) for piece in batches(len(indices), 128)]
        tensors = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
        halves = {k: (v if v.dtype == torch.bool else v.half()).contiguous() for k, v in tensors.items()}
        write_atomic(self.shard_path(shard), pack(halves))


def cached_latents(world: World, split: str, codec: ImageCodec, root: Path | None = None) -> EncodedSplit:
    """Rows `{"latents": [B, C, h, w]}`."""
    identity = {"world": world.fingerprint, "split": split, "codec": codec.fingerprint, "kind": "latents"}
    return _split(
        identity, world.length(split), lambda i: {"latents": codec.encode(world.images(split, i)).cpu()}, root
    )


def cached_states(
    world: World, split: str, density: str, encoder: TextEncoder, root: Path | None = None
) -> EncodedSplit:
    """Rows `{"states": [B, L, W], "mask": [B, L]}`."""
    identity = {
        "world": world.fingerprint,
        "split": split,
        "captions": density,
        "text": encoder.fingerprint,
        "kind": "states",
    }

    def encode(indices: np.ndarray) -> dict[str, Tensor]:
        states, mask = encoder.encode(world.captions(split, indices, density))
        return {"states": states.cpu(), "mask": mask.cpu()}

    return _split(identity, world.length(split), encode, root)


def _split(identity: dict[str, str], n: int, encode: Encode, root: Path | None) -> EncodedSplit:
    identity = identity | {"shard": str(SHARD)}
    folder = (root or home() / "cache") / f"{identity['kind']}-{identity['split']}-{digest(identity)}"
    return EncodedSplit(folder, identity, n, encode)
