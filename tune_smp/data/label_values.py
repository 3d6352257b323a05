"""The content of one label: its values and colours, and how many pixels of each. Learned while it is read, bounded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.texts import shown

PIECE = 2**22  # pixels that are looked at together
DISTINCT_LIMIT = 4096  # values or colours of one label that are listed; more are no classes anyway


@dataclass(frozen=True)
class LabelValues:
    """The content of one label: how many channels, and its distinct values, sorted.

    ``truncated``: there are more than ``DISTINCT_LIMIT``; the smallest and the largest are among those listed.
    ``counts`` has the pixels of each value. ``colors`` are those of three 8-bit channels, as 0xRRGGBB, and their
    pixels; of a label that is grey, or has a palette, they are none. ``is_constant``: every channel is one value.
    """

    name: str
    channels: int
    values: tuple[int | float, ...]
    truncated: bool = False
    counts: tuple[int, ...] = ()
    is_grey: bool = False  # three equal channels
    is_constant: bool = False
    colors: tuple[tuple[int, int], ...] = ()
    lossy: str = ""
    palette: tuple[tuple[int, int, int], ...] = ()
    inverted: bool = False
    alpha_values: int = 0  # distinct values of the alpha channel, 0 where there is none

    @property
    def is_colored(self) -> bool:
        """Whether three channels are the colours of one label."""
        return self.channels == 3 and not self.is_grey and bool(self.colors)


class ValueCounter:
    """Counts the pixels of each value, of arrays of one dtype that come one after the other; NaN comes last, once.

    Of more than ``limit`` values, only ``limit`` of the smallest and the largest stay.
    """

    def __init__(self, limit: int = DISTINCT_LIMIT) -> None:
        self._limit = limit
        self._table: NDArray[np.int64] | None = None  # of 8 and 16-bit integers: many times faster than sorting
        self._smallest = 0
        self._values: NDArray[Any] | None = None
        self._counts = np.empty(0, np.int64)

    def add(self, pixels: NDArray[Any]) -> None:
        """Count these, in pieces of ``PIECE``: memory stays bounded."""
        flat = pixels.reshape(-1)
        for start in range(0, flat.size, PIECE):
            piece = flat[start : start + PIECE]
            if piece.dtype.kind in "iu" and piece.dtype.itemsize <= 2:
                self._tabulate(piece)
            else:
                self._merge(*np.unique(piece, return_counts=True))

    def _tabulate(self, piece: NDArray[Any]) -> None:
        if self._table is None:
            self._smallest = int(np.iinfo(piece.dtype).min)
            self._table = np.zeros(2 ** (8 * piece.dtype.itemsize), np.int64)
            self._values = np.empty(0, piece.dtype)
        shifted = piece if not self._smallest else np.subtract(piece, self._smallest, dtype=np.int64)
        counts = np.bincount(shifted)
        self._table[: len(counts)] += counts

    def _merge(self, values: NDArray[Any], counts: NDArray[np.int64]) -> None:
        if (
            self._values is not None and len(self._values) > self._limit
        ):  # only the smallest and the largest still count
            values, counts = values[[0, -1]], counts[[0, -1]]
        if self._values is None:
            self._values, self._counts = values, counts
        else:
            self._values, places = np.unique(np.concatenate([self._values, values]), return_inverse=True)
            self._counts = np.bincount(places, np.concatenate([self._counts, counts])).astype(np.int64)
        self._values, self._counts = bounded(self._values, self._limit), bounded(self._counts, self._limit)

    def result(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Sorted values and their counts."""
        if self._values is None:
            return np.empty(0), self._counts
        if self._table is None:
            return self._values, self._counts
        present = np.flatnonzero(self._table)
        values = (present + self._smallest).astype(self._values.dtype)
        return bounded(values, self._limit), bounded(self._table[present], self._limit)


def label_values(name: str, chunks: Iterable[NDArray[Any]]) -> LabelValues:
    """Learn what one label holds, given as chunks (C, h, w) of one dtype."""
    counter, colors = ValueCounter(), ValueCounter()
    channels, is_grey, is_constant = 0, True, True
    first: NDArray[Any] | None = None
    for chunk in chunks:
        channels = chunk.shape[0]
        first = chunk[:, :1, :1] if first is None else first
        counter.add(chunk)
        is_constant = is_constant and bool((chunk == first).all())
        if channels == 3:
            is_grey = is_grey and bool((chunk == chunk[:1]).all())
            if chunk.dtype == np.uint8 and not is_grey:
                colors.add(packed(chunk))
    values, counts = counter.result()
    listed: list[int | float] = values.tolist()
    return LabelValues(
        shown(name),
        channels,
        tuple(listed),
        truncated=len(listed) > DISTINCT_LIMIT,
        counts=tuple(counts.tolist()),
        is_grey=channels == 3 and is_grey,
        is_constant=is_constant,
        colors=tuple(zip(*(part.tolist() for part in colors.result()), strict=True)),
    )


def packed(colors: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours (3, ...) → 0xRRGGBB (...)."""
    red, green, blue = colors.astype(np.int32)
    numbers: NDArray[np.int32] = (red << 16) | (green << 8) | blue
    return numbers


def bounded(values: NDArray[Any], limit: int) -> NDArray[Any]:
    """The first ``limit`` and the last."""
    return values if len(values) <= limit else np.concatenate([values[:limit], values[-1:]])
