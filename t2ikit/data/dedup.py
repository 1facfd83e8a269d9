"""Near-duplicate images: pairs by perceptual hash and colour, groups by connected components.

A grey perceptual hash alone merges recolourings (a red heart and a blue one), so both conditions must hold.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

HASH_BITS = 4  # of 64
COLOUR_DIFFERENCE = 8.0  # of 255


def near_duplicates(
    phash: np.ndarray, thumbs: np.ndarray, bits: int = HASH_BITS, colour: float = COLOUR_DIFFERENCE, block: int = 512
) -> np.ndarray:
    """All pairs i < j, int64 [pairs, 2], with Hamming distance ≤ `bits` and mean absolute colour difference ≤ `colour`.

    phash: uint64 [n]; thumbs: uint8 [n, h, w, 3], area means. Every pair is compared (42,000 images: about 5 s on one
    core), so none is missed.
    """
    found = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(phash), block):
        rows = phash[start : start + block, None]
        i, j = np.nonzero(np.bitwise_count(rows ^ phash[None, start:]) <= bits)
        pairs = np.stack([i, j], 1)[j > i] + start
        found.append(pairs[colour_difference(thumbs, pairs) <= colour])
    return np.concatenate(found)


def colour_difference(thumbs: np.ndarray, pairs: np.ndarray, block: int = 65536) -> np.ndarray:
    """Mean absolute difference over pixels and channels of uint8 `thumbs` [n, h, w, 3]: float64 [pairs], 0 to 255."""
    flat = thumbs.reshape(len(thumbs), -1).astype(np.int16)
    out = np.empty(len(pairs))
    for start in range(0, len(pairs), block):
        i, j = pairs[start : start + block].T
        out[start : start + block] = np.abs(flat[i] - flat[j]).mean(1)
    return out


def groups(n: int, pairs: np.ndarray) -> np.ndarray:
    """Labels int64 [n], numbered by first appearance: two items share one if a chain of `pairs` [m, 2] links them."""
    graph = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]
