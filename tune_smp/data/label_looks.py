"""How a label's values lie in its pixels: in patches, as classes and objects do, or as single pixels along edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

WINDOW = 1024  # px, of a larger label the corner of this size is looked at
MOST_VALUES = 4096  # more are probabilities, or pixels of a photograph
SEARCHED = 2**25  # pixels in which patches are searched, of all values together: about 0.3 s
_EIGHT = np.ones((3, 3), bool)  # neighbours by edge and corner
_FORWARD = ((0, 1), (1, 0), (1, 1), (1, -1))  # half of a pixel's eight neighbours


@dataclass(frozen=True)
class LabelLook:
    """Per value (n,): its pixels, equal neighbours among them, patches of it, and how many of these touch the edge.

    An equal neighbour is counted once: deep inside a patch there are 4 per pixel, along a line of one pixel about 1.
    ``patches`` is 0 where it was not counted.
    """

    values: NDArray[Any]
    pixels: NDArray[np.int64]
    neighbours: NDArray[np.int64]
    patches: NDArray[np.int64]
    at_edge: NDArray[np.int64]


def look_at(label: NDArray[Any]) -> LabelLook | None:
    """Look at one label (H, W); None where it holds too many values."""
    label = label[:WINDOW, :WINDOW]
    values, numbers = np.unique(label, return_inverse=True)
    if len(values) > MOST_VALUES:
        return None
    numbers = numbers.reshape(label.shape)
    pixels = np.bincount(numbers.reshape(-1), minlength=len(values))
    neighbours = sum(_equal_neighbours(numbers, *step, count=len(values)) for step in _FORWARD)
    patches, at_edge = _patches(numbers, len(values))
    return LabelLook(values, pixels, np.asarray(neighbours), patches, at_edge)


def _equal_neighbours(numbers: NDArray[np.intp], down: int, right: int, *, count: int) -> NDArray[np.int64]:
    height, width = numbers.shape
    here = numbers[: height - down, max(0, -right) : width - max(0, right)]
    there = numbers[down:, max(0, right) : width - max(0, -right)]
    return np.bincount(here[here == there], minlength=count)


def _patches(numbers: NDArray[np.intp], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    patches, at_edge = np.zeros(count, np.int64), np.zeros(count, np.int64)
    left = SEARCHED
    for number, where in enumerate(ndimage.find_objects(numbers + 1)):
        part = numbers[where] == number
        left -= part.size
        if left < 0:
            break
        labelled, patches[number] = ndimage.label(part, _EIGHT)
        whole = np.zeros(patches[number] + 1, bool)
        rows, columns = where
        sides = (
            (rows.start == 0, labelled[0]),
            (rows.stop == numbers.shape[0], labelled[-1]),
            (columns.start == 0, labelled[:, 0]),
            (columns.stop == numbers.shape[1], labelled[:, -1]),
        )
        for is_edge, side in sides:
            if is_edge:
                whole[side] = True
        at_edge[number] = np.count_nonzero(whole[1:])
    return patches, at_edge
