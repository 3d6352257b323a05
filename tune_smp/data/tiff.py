"""Every TIFF, through tifffile: axes mean what the axes string says, regions of large files are read lazily."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray

from tune_smp.data.formats import shown
from tune_smp.data.image_reader import (
    ALPHA_NOTE,
    IMAGE_AXES,
    PALETTE_NOTE,
    ImageInfo,
    ImageReader,
    region_by_axes,
    undecodable,
)
from tune_smp.errors import DataError, Problem

DECODED_WHOLE = 2**26  # bytes; up to this size, decoding everything at once is faster than region by region
# What tifffile only logs before it goes on with fewer pages or with zeros.
_LOSSES = (
    "invalid page offset",
    "invalid offset",
    "invalid value offset",
    "zeroed",
    "corrupted",
    "missing",
    "failed to",
)
_PHOTOMETRIC = frozenset({"MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "MASK", "YCBCR"})


class TiffReader(ImageReader):
    """A TIFF file: the first series at full resolution, or all series where they are pages of one stack."""

    def __init__(self, path: Path) -> None:
        self._part: tuple[int, Any] | None = None  # the series read last, and its pixels
        self._plane: tuple[int, NDArray[Any]] | None = None  # the plane decoded last, where less cannot be decoded
        self.file = _open(path)
        try:
            self._series, notes = _stack(self.file)
            self._first = self._series[0]
            self._axes, self._shape = self._first.axes, self._first.shape
            self._samples = _kept_samples(self._first)
            super().__init__(path, self._describe(path, notes))
            self._require_complete()
        except DataError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise undecodable(path, error) from error

    def close(self) -> None:
        """Let go of the file and of what was decoded."""
        self._part = self._plane = None
        self.file.close()

    def _describe(self, path: Path, notes: tuple[str, ...]) -> ImageInfo:
        sizes = dict(zip(self._axes, self._shape, strict=True))
        if "Y" not in sizes or "X" not in sizes:
            raise DataError(Problem(f"a TIFF needs the axes Y and X, found {self._axes}", shown(path)))
        page = self._first.keyframe
        if page.photometric.name not in _PHOTOMETRIC:
            fix = "convert it to greyscale or RGB"
            raise DataError(Problem(f"images in {page.photometric.name} colours are not supported", shown(path), fix))
        if page.photometric.name == "PALETTE":
            notes = (*notes, PALETTE_NOTE)
        if len(self._samples) < sizes.get("S", 1):
            notes = (*notes, ALPHA_NOTE)
        planes = len(self._series) * math.prod(size for axis, size in sizes.items() if axis not in IMAGE_AXES)
        channels = sizes.get("C", 1) * len(self._samples)
        return ImageInfo(channels, sizes["Y"], sizes["X"], planes, self._first.dtype, notes)

    def _require_complete(self) -> None:
        """All pixels lie within the file; a lazy reader would give zeros for those that do not."""
        size = self.file.filehandle.size
        for series in self._series:
            if series.dataoffset is not None:
                end = series.dataoffset + series.nbytes
            else:
                pages = [page for page in series.pages if page is not None]
                segments = (zip(page.dataoffsets, page.databytecounts, strict=True) for page in pages)
                end = max((offset + count for page in segments for offset, count in page), default=0)
            if end > size:
                problem = f"the file is truncated: its pixels end at byte {end}, the file at {size}"
                raise DataError(Problem(problem, shown(self.path), "copy the file again"))

    def _region(self, plane: int, y: slice, x: slice) -> NDArray[Any]:
        first = self._first
        if first.nbytes <= DECODED_WHOLE or first.dataoffset is not None or len(first.keyframe.dataoffsets) > 1:
            return self._decode(plane, y, x)
        # Each page is one compressed segment: decoded once, not again for every region.
        if self._plane is None or self._plane[0] != plane:
            self._plane = (plane, self._decode(plane, slice(None), slice(None)))
        return self._plane[1][:, y, x]

    def _decode(self, plane: int, y: slice, x: slice) -> NDArray[Any]:
        part, inner = divmod(plane, self.info.planes // len(self._series))
        region = region_by_axes(self._pixels(part), self._axes, plane=inner, y=y, x=x)[:, self._samples]
        return region.reshape(-1, *region.shape[-2:])

    def _pixels(self, part: int) -> Any:
        """Something to be indexed along all axes of the series: an array, a memory map or a zarr array."""
        if self._part is None or self._part[0] != part:
            self._part = (part, self._open_pixels(self._series[part]))
        return self._part[1]

    def _open_pixels(self, series: tifffile.TiffPageSeries) -> Any:
        if series.nbytes <= DECODED_WHOLE:
            return series.asarray()
        if series.dataoffset is not None and series.keyframe.is_memmappable:
            return series.asarray(out="memmap")
        import zarr  # noqa: PLC0415  costs 0.4 s, and only large compressed files need it

        return zarr.open(series.aszarr(level=0), mode="r")


def _open(path: Path) -> tifffile.TiffFile:
    """Open and index the file.

    Raises:
        DataError: it is not a TIFF, or tifffile would silently give less than the file promises.
    """
    with _complaints() as complaints:
        try:
            file = tifffile.TiffFile(path)
        except Exception as error:
            raise undecodable(path, error) from error
        try:
            series = file.series
        except Exception as error:
            file.close()
            raise undecodable(path, error) from error
    losses = [text for text in complaints if any(loss in text for loss in _LOSSES)]
    if losses or not series:
        file.close()
        raise undecodable(path, ValueError(losses[0] if losses else "it has no pages"))
    return file


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What tifffile logs in this thread meanwhile: it logs where it should raise."""
    messages: list[str] = []
    thread = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                messages.append(record.getMessage())

    listener = Listener(logging.WARNING)
    log = logging.getLogger("tifffile")
    log.addHandler(listener)
    try:
        yield messages
    finally:
        log.removeHandler(listener)


def _stack(file: tifffile.TiffFile) -> tuple[list[tifffile.TiffPageSeries], tuple[str, ...]]:
    """The series that are read: tifffile sees pages that were written one by one as series of their own."""
    series = list(file.series)
    first = series[0]
    if first.kind == "shaped" and len({(one.axes, one.shape, one.dtype) for one in series}) == 1:
        return series, ()
    notes = (f"the file holds {len(series)} images, the first is read",) if len(series) > 1 else ()
    return series[:1], notes


def _kept_samples(series: tifffile.TiffPageSeries) -> list[int]:
    """Which samples of a pixel are read: all but alpha."""
    if "S" not in series.axes:
        return [0]
    samples = series.shape[series.axes.index("S")]
    extra = series.keyframe.extrasamples
    alpha = {samples - len(extra) + i for i, kind in enumerate(extra) if kind.name in ("ASSOCALPHA", "UNASSALPHA")}
    return [sample for sample in range(samples) if sample not in alpha]
