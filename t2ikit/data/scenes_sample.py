"""Which scene graph stands at (seed, split, index), by a counter-based hash: no order, batch or process changes it.

Also the config of the world, the split by description, and the enumeration of every scene of a small config.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations, product

import numpy as np

from t2ikit.config import digest
from t2ikit.data.scenes_graph import (
    BACKGROUNDS,
    COLORS,
    FORMATIONS,
    MAX_COUNT,
    MAX_JITTER,
    MAX_THINGS,
    SHAPES,
    SIZES,
    Graphs,
    Scene,
)
from t2ikit.errors import UserError

VERSION = 1
"""Raised by hand whenever a scene, an image or a caption of the same config changes."""
VAL_SHARE = 16
"""One description in 16 belongs to validation, whatever the seed."""
_ATTEMPTS = 4096


@dataclass(frozen=True)
class SceneConfig:
    """What decides the world, all of it in the fingerprint; fewer or more of each is easier or harder."""

    seed: int = 0
    train: int = 50_000  # images in the training split
    val: int = 2_000  # images in the validation split
    things: int = 3  # most groups of equal shapes in a scene
    count: int = 4  # most shapes in a group
    colors: int = 8  # how many of COLORS are used, from the first
    shapes: int = 8  # how many of SHAPES
    sizes: int = 2  # 2: large and small; 1: large only
    backgrounds: int = 4  # how many of BACKGROUNDS
    jitter: float = 1.0  # px, a multiple of 0.25: how far each shape may stand from its cell's centre; 0: on the grid
    caption_noise: float = 0.0  # probability that a training caption is another training scene's

    def __post_init__(self) -> None:
        most = {
            "things": MAX_THINGS,
            "count": MAX_COUNT,
            "colors": len(COLORS),
            "shapes": len(SHAPES),
            "sizes": len(SIZES),
            "backgrounds": len(BACKGROUNDS),
        }
        for name in ("seed", "train", "val", *most):
            value, low, high = getattr(self, name), int(name in most), most.get(name, 2**63 - 1)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UserError(f"scenes: {name} is {value!r}, it must be an integer from {low} to {high}.")
        if self.things > min(self.colors, self.shapes):
            raise UserError(
                f"scenes: {self.things} things need as many colours and shapes, since no two things share one; "
                f"there are {self.colors} and {self.shapes}: raise these or lower things."
            )
        for name, high in (("jitter", MAX_JITTER), ("caption_noise", 1.0)):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= high:
                raise UserError(f"scenes: {name} is {value!r}, it must be a number from 0 to {high}.")
            object.__setattr__(self, name, float(value))
        if (4 * self.jitter) % 1:
            raise UserError(f"scenes: jitter is {self.jitter} px, it must be a multiple of 0.25.")


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014), on uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draws(seed: int, stream: str, index: np.ndarray, n: int) -> np.ndarray:
    """uint64 [B, n]: n random words for each index [B], a function of (seed, stream, index) alone."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    key = np.uint64(int(digest({"seed": seed, "stream": stream}, 16), 16))
    start = _mix(key + np.asarray(index).astype(np.uint64) * golden)
    return _mix(start[:, None] + np.arange(1, n + 1, dtype=np.uint64) * golden)


def below(words: np.ndarray, n: int | np.ndarray) -> np.ndarray:
    """Words mapped to integers 0 … n-1 (multiply and shift; the bias is below n/2³²)."""
    return ((words >> np.uint64(32)) * np.asarray(n).astype(np.uint64) >> np.uint64(32)).astype(np.int64)


@lru_cache(maxsize=8)
def _layouts(things: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All ways in which 1 … `things` groups of up to `count` shapes stand on the grid, each two with a relation.

    Returns formations [N, 3] (-1: none), sorted by the number of groups, then by their tuple of counts; the rows
    [T + 1] at which each tuple of counts begins; the tuples [things + 1] at which each number of groups begins.
    """
    size = np.array([len(f) for f in FORMATIONS])
    rows = np.array([[min(c // 3 for c in f), max(c // 3 for c in f)] for f in FORMATIONS])
    columns = np.array([[min(c % 3 for c in f), max(c % 3 for c in f)] for f in FORMATIONS])
    before = (rows[:, None, 1] < rows[None, :, 0]) | (columns[:, None, 1] < columns[None, :, 0])
    apart = before | before.T
    usable = np.flatnonzero(size <= count)
    tables, starts, tuples, total = [], [], [0], 0
    for n in range(1, things + 1):
        grid = np.stack(np.meshgrid(*[usable] * n, indexing="ij"), -1).reshape(-1, n)
        for i, j in combinations(range(n), 2):
            grid = grid[apart[grid[:, i], grid[:, j]]]
        counts = size[grid] @ (10 ** np.arange(n)[::-1])
        grid = grid[np.argsort(counts, kind="stable")]
        starts += (total + np.unique(np.sort(counts), return_index=True)[1]).tolist()
        tables.append(np.pad(grid, ((0, 0), (0, MAX_THINGS - n)), constant_values=-1))
        tuples.append(len(starts))
        total += len(grid)
    return np.concatenate(tables), np.array([*starts, total]), np.array(tuples)


@lru_cache(maxsize=16)
def _permutations(values: int, n: int) -> np.ndarray:
    """All ordered choices [P, 3] of n different values below `values`, filled up with 0."""
    return np.pad(np.array(list(permutations(range(values), n))), ((0, 0), (0, MAX_THINGS - n)))


def _description(graphs: Graphs) -> np.ndarray:
    """uint64 [B]: a hash of what every dense caption states without places: the set of (count, size, color, shape) and
    the background. Scenes of equal dense captions have equal hashes."""
    count = np.array([len(f) for f in FORMATIONS])[graphs.formation]
    code = ((graphs.color * 16 + graphs.shape) * 16 + graphs.size) * 16 + count
    code = np.where(graphs.formation >= 0, code + 1, 0).astype(np.uint64)
    things = np.where(code > 0, _mix(code), np.uint64(0)).sum(1, dtype=np.uint64)
    return _mix(things + _mix(graphs.background.astype(np.uint64) + np.uint64(1 << 32)))


def sample(config: SceneConfig, split: str, index: np.ndarray) -> Graphs:
    """The scene graphs of `split` at index [B]; each is redrawn until its description belongs to the split."""
    formations, starts, tuples = _layouts(config.things, config.count)
    colors = _permutations(config.colors, config.things)
    shapes = _permutations(config.shapes, config.things)
    parts = [np.zeros((len(index), MAX_THINGS), np.int64) for _ in range(4)] + [np.zeros(len(index), np.int64)]
    todo = np.arange(len(index))
    for attempt in range(_ATTEMPTS):
        if not todo.size:
            break
        word = draws(config.seed, f"{split} {attempt}", index[todo], 9)
        n = below(word[:, 0], config.things)
        counts = tuples[n] + below(word[:, 1], tuples[n + 1] - tuples[n])
        formation = formations[starts[counts] + below(word[:, 2], starts[counts + 1] - starts[counts])]
        drawn = [
            colors[below(word[:, 3], len(colors))],
            shapes[below(word[:, 4], len(shapes))],
            below(word[:, 5:8], config.sizes),
            formation,
            below(word[:, 8], config.backgrounds),
        ]
        held_out = _description(Graphs(*drawn, offset=None)) % np.uint64(VAL_SHARE) == 0
        keep = held_out == (split == "val")
        for part, new in zip(parts, drawn, strict=True):
            part[todo[keep]] = new[keep]
        todo = todo[~keep]
    if todo.size:
        raise UserError(
            f"scenes: with {config.colors} colors, {config.shapes} shapes, {config.things} things and a count of "
            f"{config.count} no description is left for the {split} split: raise one of them."
        )
    steps = int(4 * config.jitter)
    offset = below(draws(config.seed, f"{split} offset", index, 18), 2 * steps + 1) - steps
    return Graphs(*parts, offset=offset.reshape(-1, 9, 2))


def enumerate_scenes(config: SceneConfig) -> Iterator[Scene]:
    """Every scene of the config once, on the grid (no jitter) and irrespective of splits, in a fixed order.

    About 45,700 of them with things=2, count=1, colors=7, shapes=6, sizes=1, backgrounds=1.
    """
    formations, _, _ = _layouts(config.things, config.count)
    for row in formations:
        n = int((row >= 0).sum())
        if any(a > b for a, b in zip(row[: n - 1], row[1:n], strict=True)):
            continue
        choices = product(
            permutations(range(config.colors), n),
            permutations(range(config.shapes), n),
            product(range(config.sizes), repeat=n),
            range(config.backgrounds),
        )
        for color, shape, size, background in choices:
            pad = [0] * (MAX_THINGS - n)
            arrays = (np.array([[*a, *pad]]) for a in (color, shape, size))
            yield Graphs(*arrays, row[None], np.array([background]), np.zeros((1, 9, 2), np.int64)).scene(0)
