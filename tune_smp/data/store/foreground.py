"""The foreground of a mask: pixels per class, and a balanced sample of places to cut training tiles around."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.labels import IGNORE, ClassMap

SAMPLES = 1024  # places kept per mask, over all classes: 8 kB


def value_counts(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(K or 1, 256) how often each channel of a mask (K or 1, h, w) holds each value."""
    return np.stack([np.bincount(channel.reshape(-1), minlength=256) for channel in mask])


def class_pixels(counts: NDArray[np.int64], class_map: ClassMap) -> NDArray[np.int64]:
    """(classes,) from ``value_counts``; binary: foreground only; multilabel: ones per channel."""
    return counts[0, : class_map.classes] if class_map.mode == "multiclass" else counts[:, 1]


def foreground_pixels(mask: NDArray[np.uint8], class_map: ClassMap) -> int:
    """Pixels of any class but the background: multiclass's class 0 is background by convention."""
    if class_map.mode == "multiclass":
        return int(np.count_nonzero((mask > 0) & (mask < IGNORE)))
    return int(np.count_nonzero((mask == 1).any(axis=0)))


class ForegroundSample:
    """Places of foreground pixels, drawn evenly from each class, from a mask that comes block by block.

    Kept are those with the smallest random keys: the fixed seed makes the sample of an image always the same.
    """

    def __init__(self, class_map: ClassMap) -> None:
        self._is_multiclass = class_map.mode == "multiclass"
        self._places = [_SmallestKeys() for _ in range(class_map.classes)]
        # One per class: its keys come in raster order, however the mask is cut into blocks.
        self._random = [np.random.default_rng(number) for number in range(class_map.classes)]

    def add(self, mask: NDArray[np.uint8], y: int) -> None:
        """Take in the rows of a mask (K or 1, h, W) that begin at row ``y``."""
        width = mask.shape[2]
        for number, places in enumerate(self._places):
            if self._is_multiclass and number == 0:
                continue
            of_class = mask[0] == number if self._is_multiclass else mask[number] == 1
            found = np.flatnonzero(of_class)
            places.add(found + y * width, self._random[number].random((found.size,)))

    def places(self, width: int) -> list[NDArray[np.int32]]:
        """(n, 2) rows of (y, x) per class, at most SAMPLES together, each class with an equal share where it has it."""
        found = [places.smallest() for places in self._places]
        share = SAMPLES // max(1, sum(map(bool, map(len, found))))
        return [np.stack(np.divmod(flat[:share], width), axis=1).astype(np.int32) for flat in found]


class _SmallestKeys:
    """The SAMPLES items with the smallest keys."""

    def __init__(self) -> None:
        self._items: list[NDArray[Any]] = []
        self._keys: list[NDArray[np.float64]] = []
        self._limit = math.inf

    def add(self, items: NDArray[Any], keys: NDArray[np.float64]) -> None:
        candidates = keys < self._limit
        self._items.append(items[candidates])
        self._keys.append(keys[candidates])
        if sum(map(len, self._keys)) > 16 * SAMPLES:
            self.smallest()

    def smallest(self) -> NDArray[Any]:
        """The items, smallest key first."""
        if not self._keys:
            return np.empty(0, np.int64)
        items, keys = np.concatenate(self._items), np.concatenate(self._keys)
        order = np.argsort(keys)[:SAMPLES]
        self._items, self._keys = [items[order]], [keys[order]]
        if len(order) == SAMPLES:
            self._limit = float(keys[order[-1]])
        return self._items[0]
