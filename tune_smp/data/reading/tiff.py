"""Every TIFF, through tifffile: axes mean what the axes string says, regions of large files are read lazily."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tifffile
from numpy.typing import NDArray

from tune_smp.data.reading.calibration import Calibration, Length
from tune_smp.data.reading.image_reader import (
    SEVERAL_NOTE,
    UNNAMED_NOTE,
    ImageInfo,
    ImageReader,
    listed_sizes,
    plane_axes,
    plane_counts,
    region_by_axes,
    undecodable,
)
from tune_smp.data.reading.ome_xml import OwnPlanes, own_planes, pixel_attributes
from tune_smp.errors import DataError, Problem
from tune_smp.texts import shown

DECODED_WHOLE = 2**26  # bytes; up to this size, decoding everything at once is faster than region by region
# What tifffile only logs before it returns fewer pages, or zeros.
_LOSSES = (
    "invalid page offset",
    "invalid offset",
    "invalid value offset",
    "zeroed",
    "corrupted",
    "missing",
    "failed to",
)
# Without a handler, and without any set-up of logging, Python would print its warnings.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_UNNAMED = frozenset("QI")  # tifffile's letters for an axis without a name, and for pages in a row
# By the TIFF compression's number. JPEG 2000, JPEG XL, JPEG XR, WebP and LERC have exact modes too.
_LOSSY = dict.fromkeys((6, 7, 33007), "JPEG")
_LOSSY |= dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000")
_LOSSY |= {22610: "JPEG XR", 34934: "JPEG XR", 34887: "LERC", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL"}
_PHOTOMETRIC = frozenset({"MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "MASK", "YCBCR"})


class TiffReader(ImageReader):
    """A TIFF file: the planes that lie in it, at full resolution.

    Pages of one size without names are a stack. Of several images the first is read, or the only one of ``size``.
    """

    def __init__(self, path: Path, *, size: tuple[int, int] | None = None) -> None:
        self._part: tuple[int, Any] | None = None  # the series read last, and its pixels
        self._plane: tuple[int, NDArray[Any]] | None = None  # the plane decoded last, where less cannot be decoded
        self.file, own = _open(path)
        try:
            self._series, number = _chosen(self.file, size)
            self._first = self._series[0]
            self._axes, self._shape = self._first.axes, self._first.shape
            self._alpha = _alpha_samples(self._first)
            self._samples = [sample for sample in range(_sizes(self._first).get("S", 1)) if sample not in self._alpha]
            super().__init__(path, self._describe(path, own, number))
            self._require_complete()
        except DataError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise undecodable(path, error, own.notes) from error

    def close(self) -> None:
        """Let go of the file and of what was decoded."""
        self._part = self._plane = None
        self.file.close()

    def alpha(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any] | None:
        """The region (1, h, w) of the alpha channel, which ``read`` leaves out; None where there is none."""
        return self._decode(plane, y, x, self._alpha[:1]) if self._alpha else None

    def _describe(self, path: Path, own: OwnPlanes, number: int) -> ImageInfo:
        sizes = _sizes(self._first)
        if "Y" not in sizes or "X" not in sizes:
            raise DataError(Problem(f"a TIFF needs the axes Y and X, found {self._axes}", shown(path)))
        page = self._first.keyframe
        if page.photometric.name not in _PHOTOMETRIC:
            fix = "convert it to greyscale or RGB"
            raise DataError(Problem(f"images in {page.photometric.name} colours are not supported", shown(path), fix))
        planes, times = plane_counts(self._axes, self._shape)
        planes *= len(self._series)
        images = _image_sizes(self.file)
        notes = list(own.notes)
        if len(images) > 1 and len(self._series) == 1:
            notes.append(f"{SEVERAL_NOTE}, of which number {number + 1} is read: {listed_sizes(images)}")
        if planes > 1 and (len(self._series) > 1 or set(plane_axes(self._axes)) & _UNNAMED):
            notes.append(f"{UNNAMED_NOTE}: {planes} pages of {sizes['Y']}×{sizes['X']} px")
        return ImageInfo(
            channels=sizes.get("C", 1) * len(self._samples),
            height=sizes["Y"],
            width=sizes["X"],
            planes=planes,
            dtype=self._first.dtype,
            notes=tuple(notes),
            times=times,
            calibration=self._calibration(own, number),
            sizes=images if len(images) > 1 else (),
            inverted=page.photometric.name == "MINISWHITE",
            lossy=_LOSSY.get(int(page.compression), ""),
            palette=_palette(page),
            alpha=bool(self._alpha),
            orientation=_orientation(page),
        )

    def _calibration(self, own: OwnPlanes, number: int) -> Calibration:
        if self.file.is_ome and len(own.calibrations) == len(self.file.series):
            return own.calibrations[number]
        return imagej_calibration(self.file.imagej_metadata or {}, self._first.keyframe)

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
                raise DataError(
                    Problem("; ".join([problem, *self.info.notes]), shown(self.path), "copy the file again")
                )

    def _region(self, plane: int, y: slice, x: slice) -> NDArray[Any]:
        first = self._first
        if first.nbytes <= DECODED_WHOLE or first.dataoffset is not None or len(first.keyframe.dataoffsets) > 1:
            return self._decode(plane, y, x, self._samples)
        # Each page is one compressed segment: decoded once, not again for every region.
        if self._plane is None or self._plane[0] != plane:
            self._plane = (plane, self._decode(plane, slice(None), slice(None), self._samples))
        return self._plane[1][:, y, x]

    def _decode(self, plane: int, y: slice, x: slice, samples: Sequence[int]) -> NDArray[Any]:
        part, inner = divmod(plane, self.info.planes // len(self._series))
        region = region_by_axes(self._pixels(part), self._axes, plane=inner, y=y, x=x)[:, list(samples)]
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


def calibrate_tiff(path: Path, calibration: Calibration) -> None:
    """Write the size of pixels into the OME-XML of a file that bfio wrote.

    Not through bfio, which takes the size for that of the whole image when it writes the resolution of the TIFF.
    """
    attributes = pixel_attributes(calibration)
    if attributes:
        with tifffile.TiffFile(path) as file:
            description = file.pages.first.description
        described = re.sub(r"<((?:\w+:)?Pixels)\b", lambda found: f"{found[0]} {attributes}", description, count=1)
        tifffile.tiffcomment(path, described.encode())


def _open(path: Path) -> tuple[tifffile.TiffFile, OwnPlanes]:
    """Open and index the file, and nothing but this file.

    Raises:
        DataError: it is not a TIFF, or tifffile would silently give less than the file promises.
    """
    with _complaints() as complaints:
        try:
            file = tifffile.TiffFile(path, _multifile=False)
        except Exception as error:
            raise undecodable(path, error) from error
        try:
            own = OwnPlanes()
            if file.is_ome:
                own = own_planes(file.ome_metadata or "", file_name=path.name, pages=len(file.pages))
            if own.text:
                file.close()
                file = tifffile.TiffFile(path, omexml=own.text, _multifile=False)
                # Lower resolutions are not read; tifffile fails on them where the first page is not the first plane.
                file.pages.first.subifds = None
            series = [] if own.missing else file.series
        except Exception as error:
            file.close()
            raise undecodable(path, error) from error
    losses = [own.missing] if own.missing else [text for text in complaints if any(loss in text for loss in _LOSSES)]
    if losses or not series:
        file.close()
        raise undecodable(path, ValueError(losses[0] if losses else "it has no pages"))
    return file, own


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what tifffile logs in this thread meanwhile: it logs where it should raise."""
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


def _sizes(series: tifffile.TiffPageSeries) -> dict[str, int]:
    return dict(zip(series.axes, series.shape, strict=True))


def _is_stack(series: Sequence[tifffile.TiffPageSeries]) -> bool:
    """Whether they are pages of one stack: tifffile sees those that were written one by one as series of their own."""
    return series[0].kind == "shaped" and len({(one.axes, one.shape, one.dtype) for one in series}) == 1


def _image_sizes(file: tifffile.TiffFile) -> tuple[tuple[int, int], ...]:
    """Height and width of every image in the file; lower resolutions of one are none of their own."""
    every = [_sizes(series) for series in file.series]
    return tuple((sizes["Y"], sizes["X"]) for sizes in every if "Y" in sizes and "X" in sizes)


def _chosen(file: tifffile.TiffFile, size: tuple[int, int] | None) -> tuple[list[tifffile.TiffPageSeries], int]:
    """The series that are read, and the number of the first."""
    series = list(file.series)
    if _is_stack(series):
        return series, 0
    fitting = [number for number, found in enumerate(_image_sizes(file)) if found == size]
    number = fitting[0] if len(fitting) == 1 else 0
    return [series[number]], number


def _alpha_samples(series: tifffile.TiffPageSeries) -> list[int]:
    """Find the samples of a pixel that are alpha."""
    samples, extra = _sizes(series).get("S", 1), series.keyframe.extrasamples
    kinds = ("ASSOCALPHA", "UNASSALPHA")
    return [samples - len(extra) + i for i, kind in enumerate(extra) if samples > 1 and kind.name in kinds]


def _palette(page: tifffile.TiffPage) -> tuple[tuple[int, int, int], ...]:
    if page.photometric.name != "PALETTE" or page.colormap is None:
        return ()
    return tuple((int(r), int(g), int(b)) for r, g, b in (page.colormap >> 8).T)  # (3, n) of 16 bits


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get("Orientation")
    return int(tag.value) if tag is not None and int(tag.value) in range(2, 9) else 1


def imagej_calibration(metadata: Mapping[str, Any], page: tifffile.TiffPage) -> Calibration:
    """ImageJ: XResolution and YResolution are pixels per ``unit``; ``spacing`` along Z, ``finterval`` seconds."""
    unit = str(metadata.get("unit", ""))

    def per_pixel(name: str, unit: str) -> Length | None:
        tag = page.tags.get(name)
        pixels, units = tag.value if tag is not None else (0, 1)
        # ImageJ writes pixels per unit in millionths: digits beyond the sixth come from its rounding.
        return Length.of(float(f"{units / pixels:.6g}"), unit) if pixels and unit else None

    def listed(name: str, unit: str) -> Length | None:
        value = metadata.get(name)
        return Length.of(abs(float(value)), unit) if isinstance(value, int | float) and unit else None

    return Calibration(
        x=per_pixel("XResolution", str(metadata.get("xunit", unit))),
        y=per_pixel("YResolution", str(metadata.get("yunit", unit))),
        z=listed("spacing", str(metadata.get("zunit", unit))),
        t=listed("finterval", str(metadata.get("tunit", "s"))),
    )
