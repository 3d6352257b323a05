"""Pure geometry: an image's shape, a tile size and an overlap → windows, who owns which pixel, and blending weights."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """Rows ``y`` … ``y + height`` and columns ``x`` … ``x + width`` (exclusive) of an image, in pixels."""

    y: int
    x: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the last two axes of an array."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def windows(height: int, width: int, *, tile: int, overlap: int = 0) -> list[Window]:
    """Windows that cover the image, row by row; neighbours overlap by at least ``overlap`` pixels (< ``tile``).

    The last ones are shifted inside; along an axis shorter than the tile there is one window as short as the axis.
    """
    rows, columns = _spans(height, tile, overlap), _spans(width, tile, overlap)
    return _grid(rows, columns)


def owned(height: int, width: int, *, tile: int, overlap: int = 0) -> list[Window]:
    """For each of ``windows(...)``, in the same order, the part it owns: every pixel belongs to exactly one window.

    Neighbours share their overlap half and half, so that what is owned lies as far from the window's edge as can be.
    """
    rows, columns = _shares(_spans(height, tile, overlap)), _shares(_spans(width, tile, overlap))
    return _grid(rows, columns)


def grid_count(height: int, width: int, tile: int) -> int:
    """Number of windows without overlap."""
    return -(-height // tile) * -(-width // tile)


def blend_weights(tile: int, overlap: int) -> NDArray[np.float32]:
    """Weights (tile, tile), float32, above zero: 1 in the middle, falling linearly over the overlap.

    Two neighbours' weights add up to 1 where windows overlap by exactly ``overlap`` <= tile / 2; divide by the sum of
    weights elsewhere (at the image's border and where the last windows are shifted).
    """
    from_edge = np.arange(tile) + 0.5
    ramp = np.minimum(from_edge, from_edge[::-1]) / max(overlap, 1)
    profile = np.minimum(ramp, 1.0) if overlap else np.ones(tile)
    return np.outer(profile, profile).astype(np.float32)


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """(start, end) of the windows along one axis."""
    if min(length, tile) < 1 or not 0 <= overlap < tile:
        raise ValueError(f"length {length} and tile {tile} must be positive and overlap {overlap} in [0, tile)")
    if length <= tile:
        return [(0, length)]
    count = 1 + -(-(length - tile) // (tile - overlap))
    starts = (min(index * (tile - overlap), length - tile) for index in range(count))
    return [(start, start + tile) for start in starts]


def _shares(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(start, end) of what each window owns along one axis."""
    borders = [(start + end) // 2 for (_, end), (start, _) in pairwise(spans)]
    return list(pairwise([spans[0][0], *borders, spans[-1][1]]))


def _grid(rows: list[tuple[int, int]], columns: list[tuple[int, int]]) -> list[Window]:
    return [Window(y0, x0, y1 - y0, x1 - x0) for y0, y1 in rows for x0, x1 in columns]
