"""The images to predict: files stacked into channels, read in bands of rows."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.reading.formats import open_image
from tune_smp.data.reading.image_reader import ImageInfo
from tune_smp.errors import DataError, Problem

# bfio's OME-TIFF and most microscopes' files are tiled by 1024 rows or fewer: a band decodes every file tile once.
BAND_HEIGHT = 1024
CACHE_BYTES = 256 * 2**20  # decoded bands kept: an ordinary image is decoded once for statistics and prediction


class PixelSource(Protocol):
    """An image as prediction needs it: an ``ImageReader`` is one, and so are several of them stacked."""

    @property
    def info(self) -> ImageInfo:
        """Channels, height, width, planes, dtype."""

    def read(self, plane: int = 0, y: slice = ..., x: slice = ...) -> NDArray[Any]:
        """The region (C, h, w) of one plane."""


class StackedReader:
    """Several files of one size as the channels of one image, in order; a context manager.

    A file of one plane serves every plane of the others, as in training.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raise DataError where a file cannot be opened or differs from the first in size or planes."""
        with ExitStack() as opened:
            self._readers = [opened.enter_context(open_image(path)) for path in paths]
            self.info = _stacked_info(paths, [reader.info for reader in self._readers])
            self._files = opened.pop_all()

    def read(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any]:
        """The region (C, h, w) of one plane."""
        regions = [reader.read(plane if reader.info.planes > 1 else 0, y, x) for reader in self._readers]
        return regions[0] if len(regions) == 1 else np.concatenate(regions, dtype=self.info.dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()


class PlaneBands:
    """One plane of an image by rows, of any height; the bands of rows that were decoded last are kept.

    Several threads may read at once: one of them decodes, the others wait.
    """

    def __init__(self, reader: PixelSource, plane: int) -> None:
        self._reader, self._plane = reader, plane
        info = reader.info
        band_bytes = info.channels * min(BAND_HEIGHT, info.height) * info.width * info.dtype.itemsize
        self._kept = max(2, CACHE_BYTES // max(band_bytes, 1))  # 2: a tile may lie across two bands
        self._bands: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, y: int, height: int) -> NDArray[Any]:
        """Rows ``y`` … ``y + height`` (C, height, W)."""
        first, last = y // BAND_HEIGHT, (y + height - 1) // BAND_HEIGHT
        parts = []
        for number in range(first, last + 1):
            top = number * BAND_HEIGHT
            parts.append(self._band(number)[:, max(y - top, 0) : y + height - top])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Every row once, in bands (C, h, W)."""
        return (self._band(number) for number in range(-(-self._reader.info.height // BAND_HEIGHT)))

    def _band(self, number: int) -> NDArray[Any]:
        with self._lock:
            if number not in self._bands:
                while len(self._bands) >= self._kept:
                    self._bands.popitem(last=False)
                top, bottom = number * BAND_HEIGHT, min((number + 1) * BAND_HEIGHT, self._reader.info.height)
                self._bands[number] = _finite(self._reader.read(self._plane, slice(top, bottom)))
            self._bands.move_to_end(number)
            return self._bands[number]


def _finite(pixels: NDArray[Any]) -> NDArray[Any]:
    """The pixels as they are. Raises DataError where one is NaN or infinite: a network would spread it over a tile."""
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        fix = "replace these pixels, or pass --skipCorrupt to leave such images out"
        raise DataError(Problem("pixels must be finite numbers, some are NaN or infinite", fix=fix))
    return pixels


def _stacked_info(paths: Sequence[Path], infos: Sequence[ImageInfo]) -> ImageInfo:
    first = infos[0]
    planes = max(info.planes for info in infos)
    for path, info in zip(paths, infos, strict=True):
        if (info.height, info.width) != (first.height, first.width) or info.planes not in (1, planes):
            sizes = ", ".join(f"{info.height} × {info.width} px of {info.planes} planes" for info in infos)
            differs = f"files stacked into channels must have one size, these have {sizes}"
            raise DataError(Problem(differs, str(path), "give every channel of an image the same size"))
    deepest = next(info for info in infos if info.planes == planes)
    return replace(
        first,
        planes=planes,
        times=deepest.times,
        channels=sum(info.channels for info in infos),
        dtype=np.result_type(*(info.dtype for info in infos)),
        notes=tuple(note for info in infos for note in info.notes),
    )
