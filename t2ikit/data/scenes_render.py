"""Draws scene graphs: each shape's pixel coverage from its signed distance, blended onto a plain background."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from t2ikit.data.scenes_graph import (
    BACKGROUNDS,
    CELL,
    COLORS,
    FORMATION_MASK,
    MARGIN,
    MAX_JITTER,
    SHAPES,
    SIDE,
    SIZES,
    Graphs,
)

_PALETTE = np.array(list(COLORS.values()), np.float32)
_BACKGROUND = np.array(list(BACKGROUNDS.values()), np.float32)
_STEPS = int(4 * MAX_JITTER)
_OFFSETS = 2 * _STEPS + 1


def _outline(shape: str) -> np.ndarray:
    """Vertices [V, 2] of a polygonal shape inside the square [-1, 1]², y down."""
    if shape == "square":
        return np.array([(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)])
    if shape == "triangle":
        return np.array([(0, -0.9), (1, 0.8), (-1, 0.8)])
    if shape == "diamond":
        return np.array([(0, -1), (0.8, 0), (0, 1), (-0.8, 0)])
    if shape == "cross":
        a, b = 0.32, 0.95
        return np.array(
            [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]
        )
    if shape == "star":
        angle = np.pi * (np.arange(10) / 5 - 0.5)
        radius = np.where(np.arange(10) % 2, 0.42, 1.05)
        return np.stack([radius * np.cos(angle), radius * np.sin(angle) + 0.08], 1)
    if shape == "heart":
        t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        x = 16 * np.sin(t) ** 3
        y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
        return np.stack([x / 16.5, -(y + 2.5) / 15.5], 1)
    raise ValueError(f"{shape} is not a polygon")


def _polygon_distance(xy: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Signed distance of points [..., 2] to a polygon [V, 2], negative inside (Quilez, "2D distance functions")."""
    squared = np.full(xy.shape[:-1], np.inf)
    inside = np.zeros(xy.shape[:-1], bool)
    for start, end in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        edge, to = end - start, xy - start
        along = np.clip(to @ edge / (edge @ edge), 0, 1)
        squared = np.minimum(squared, ((to - along[..., None] * edge) ** 2).sum(-1))
        crosses = (start[1] > xy[..., 1]) != (end[1] > xy[..., 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (to[..., 0] < edge[0] * to[..., 1] / edge[1])
    return np.where(inside, -1, 1) * np.sqrt(squared)


def _distance(shape: str, radius: float, xy: np.ndarray) -> np.ndarray:
    """Signed distance in px of points [..., 2] (px from the shape's centre), negative inside."""
    if shape == "circle":
        return np.hypot(xy[..., 0], xy[..., 1]) - 0.95 * radius
    if shape == "ring":
        return np.abs(np.hypot(xy[..., 0], xy[..., 1]) - 0.74 * radius) - 0.24 * radius
    return _polygon_distance(xy, radius * _outline(shape))


@lru_cache(maxsize=2)
def _sprites(scale: int) -> np.ndarray:
    """Coverage, float32 in 0…1: `(CELL · scale)`² pixels a row, for every shape, size and offset; row 0 is empty.

    In steps of 1/255, so that a last digit of another machine's cosine moves no pixel; 0.49 keeps halves off the edge.
    """
    pixel = np.arange(CELL * scale) - (CELL * scale - 1) / 2
    shifted = pixel - np.arange(-_STEPS, _STEPS + 1)[:, None] / 4 * scale
    y, x = shifted[:, None, :, None], shifted[None, :, None, :]
    xy = np.stack(np.broadcast_arrays(x, y), -1)
    radii = [scale * radius for radius in SIZES.values()]
    coverage = [np.clip(0.5 - _distance(shape, radius, xy), 0, 1) for shape in SHAPES for radius in radii]
    table = np.floor(255 * np.stack(coverage) + 0.49).reshape(-1, pixel.size**2) / 255
    return np.concatenate([np.zeros_like(table[:1]), table]).astype(np.float32)


def render(graphs: Graphs, scale: int = 1) -> np.ndarray:
    """uint8 RGB [B, 64 · scale, 64 · scale, 3] of B scene graphs."""
    b, side, size, margin = len(graphs), SIDE * scale, CELL * scale, MARGIN * scale
    mask = FORMATION_MASK[graphs.formation] & (graphs.formation >= 0)[..., None]
    thing = mask.argmax(1)
    kind = np.take_along_axis(graphs.shape * len(SIZES) + graphs.size, thing, 1)
    dx, dy = graphs.offset[..., 0] + _STEPS, graphs.offset[..., 1] + _STEPS
    sprite = np.where(mask.any(1), 1 + (kind * _OFFSETS + dy) * _OFFSETS + dx, 0)
    background = _BACKGROUND[graphs.background]
    step = _PALETTE[np.take_along_axis(graphs.color, thing, 1)] - background[:, None]
    out = np.empty((b, side, side, 3), np.uint8)
    out[:] = background.astype(np.uint8)[:, None, None]
    sprites = _sprites(scale)
    for cell in range(9):
        drawn = np.flatnonzero(sprite[:, cell])
        coverage = sprites[sprite[drawn, cell]].reshape(-1, size, size, 1)
        top, left = margin + size * (cell // 3), margin + size * (cell % 3)
        value = coverage * step[drawn, cell, None, None] + (background[drawn, None, None] + 0.5)
        out[drawn, top : top + size, left : left + size] = value.astype(np.uint8)
    return out
