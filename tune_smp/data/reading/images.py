"""TIFF and OME-Zarr as arrays (C, H, W), and label images on their way out. The only importer of bfio.

bfio reads OME-Zarr and the OME-TIFF that it reads without Java (1024 tiles, dimension order XYZCT), tifffile every
other TIFF. Which it is, is decided from the headers before bfio sees the file: some files bfio would misread, and
others make it look for Java, for a minute, in vain.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tune_smp.data.reading.calibration import UNKNOWN, Calibration
from tune_smp.data.reading.image_reader import ImageFormat, ImageInfo, ImageReader, Size, undecodable
from tune_smp.data.reading.ome_zarr import ZarrReader, calibrate_zarr, find_full_resolution
from tune_smp.data.reading.tiff import TiffReader, calibrate_tiff
from tune_smp.errors import DataError, Problem, ResourceError
from tune_smp.texts import shown

TILE = 1024  # px, the tiles in which bfio reads and writes
_BY_BFIO = frozenset({"channels", "height", "width", "planes", "dtype", "times"})
_WRITABLE = frozenset({"uint8", "uint16", "uint32", "int8", "int16", "int32", "float32"})


def _open_zarr(path: Path, _: Size | None) -> ImageReader:
    try:
        found = find_full_resolution(path)
        # bfio knows OME-Zarr by its suffix, which the fields of a plate lack.
        if found is not None and not (path.name.lower().endswith(ZARR.suffixes) and found.is_read_by_bfio(path)):
            return ZarrReader(path, found)
    except DataError:
        raise
    except Exception as error:  # broken or foreign metadata raise anything
        raise undecodable(path, error) from error
    return OmeReader(path, "zarr", found.info if found else None)


def _open_tiff(path: Path, size: Size | None) -> ImageReader:
    reader = TiffReader(path, size=size)
    if not _is_bfio_tiff(path, reader):
        return reader
    try:
        ome = OmeReader(path, "python", reader.stored)
    except DataError as error:
        # OME-XML that bfio cannot parse; tifffile reads the same pixels.
        logging.getLogger(__name__).info("bfio cannot open %s, tifffile reads it instead: %s", path, error)
        return reader
    reader.close()
    return ome


TIFF = ImageFormat(
    "TIFF",
    (".tif", ".tiff", ".ome.tif", ".ome.tiff", ".btf", ".tf8"),
    _open_tiff,
    (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),  # the last two: BigTIFF
)
ZARR = ImageFormat("OME-Zarr", (".ome.zarr", ".zarr"), _open_zarr)


def _is_bfio_tiff(path: Path, reader: TiffReader) -> bool:
    """Whether bfio reads this TIFF, and reads it right: it looks at less than this, and misreads other tile sizes.

    Of several planes it takes the order of the pages, whatever the OME-XML says, and 2.5.0 fails on them with tifffile
    2026.9.20 and later.
    """
    page = reader.file.pages.first
    order = re.search(r'DimensionOrder="(\w+)"', page.description)
    return (
        path.name.endswith((".ome.tif", ".ome.tiff"))
        and page.is_tiled
        and (page.tilewidth, page.tilelength, page.samplesperpixel) == (TILE, TILE, 1)
        and order is not None
        and order[1] == "XYZCT"
        and len(reader.file.pages) == reader.info.planes == reader.info.channels == 1
        and _promised_planes(page.description) == 1
        and page.dtype.name in _WRITABLE
    )


def _promised_planes(ome_xml: str) -> int:
    """The planes that an OME-XML speaks of, in this file or others."""
    return math.prod(int(size) for size in re.findall(r'\bSize[ZCT]="(\d+)"', ome_xml))


@functools.cache
def _bfio() -> ModuleType:
    """bfio, imported when first needed (0.8 s), without the logging set-up that it forces on everyone."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    import bfio  # noqa: PLC0415

    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    module: ModuleType = bfio
    return module


class OmeReader(ImageReader):
    """OME-Zarr, or OME-TIFF as bfio writes it.

    A chunk that is missing in an OME-Zarr reads as zeros: writers leave out chunks of zeros on purpose.
    """

    def __init__(self, path: Path, backend: Literal["zarr", "python"], known: ImageInfo | None = None) -> None:
        """``known`` has what bfio does not say: tags, and the size of pixels."""
        # One worker: with more, bfio's threads swallow what goes wrong and leave zeros.
        try:
            is_zarr_3 = backend == "zarr" and _bfio().utils.detect_zarr_format(path) == 3
            self._reader = _bfio().BioReader(path, max_workers=1, backend="zarr3" if is_zarr_3 else backend)
        except Exception as error:
            raise undecodable(path, error) from error
        reader = self._reader
        found = ImageInfo(reader.C, reader.Y, reader.X, reader.Z * reader.T, np.dtype(reader.dtype), times=reader.T)
        if known is not None:
            facts = {field.name: getattr(known, field.name) for field in fields(known) if field.name not in _BY_BFIO}
            found = replace(found, **facts)
        super().__init__(path, found)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()

    def _region(self, plane: int, y: slice, x: slice) -> NDArray[Any]:
        time, z = divmod(plane, self._reader.Z)
        if y.start >= y.stop or x.start >= x.stop:
            return np.empty((self.info.channels, max(0, y.stop - y.start), max(0, x.stop - x.start)), self.info.dtype)
        region = self._reader.read(
            Y=[y.start, y.stop], X=[x.start, x.stop], Z=[z, z + 1], C=list(range(self.info.channels)), T=[time]
        )  # (h, w, 1, C, 1), without trailing ones
        return np.moveaxis(region.reshape(y.stop - y.start, x.stop - x.start, self.info.channels), -1, 0)


class LabelWriter:
    """Writes an OME-TIFF (``.ome.tif``, ``.ome.tiff``) or OME-Zarr (``.ome.zarr``, ``.zarr``) strip by strip.

    A context manager: the image appears under its name, whole, when the block ends without an exception, and replaces
    what was there; else nothing is left. Holds at most 1024 rows of every plane that is being written.
    """

    def __init__(
        self,
        path: Path,
        *,
        shape: tuple[int, int, int, int],
        dtype: DTypeLike,
        times: int = 1,
        calibration: Calibration = UNKNOWN,
    ) -> None:
        """``shape`` is (planes, C, H, W); the planes are ``times`` times Z, T the slower one.

        Raises:
            ValueError: the suffix, or a dtype that bfio does not write faithfully (64-bit, bool).
        """
        self.path = path
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._is_tiff = path.name.lower().endswith((".ome.tif", ".ome.tiff"))
        if not (self._is_tiff or path.name.lower().endswith(ZARR.suffixes)):
            raise ValueError(f"labels are written as .ome.tif or .ome.zarr, not as {path.name!r}")
        if self.dtype.name not in _WRITABLE or 0 in shape or shape[0] % times:
            raise ValueError(f"labels of type {self.dtype} and shape {shape} cannot be written")
        self._depth = shape[0] // times
        self._calibration = calibration
        self._rows = [0] * shape[0]  # rows that came so far, per plane
        self._buffers: dict[int, NDArray[Any]] = {}  # plane → the strip (C, 1024, W) that is being filled

    def write(self, rows: NDArray[Any], *, plane: int = 0, y: int = 0) -> None:
        """Write ``rows`` (C, h, W) from row ``y`` of ``plane`` on; within a plane they come in order, of any height.

        Raises:
            ValueError: rows out of order, or of another shape or dtype than announced.
            ResourceError: the disk is full.
        """
        _, channels, height, width = self.shape
        end = y + rows.shape[1]
        if (
            y != self._rows[plane]
            or end > height
            or rows.shape != (channels, end - y, width)
            or rows.dtype != self.dtype
        ):
            raise ValueError(
                f"rows {y}…{end} of plane {plane} as {rows.shape} {rows.dtype} do not follow {self._rows[plane]}"
            )
        while y < end:
            start = y - y % TILE
            stop = min(start + TILE, end)
            if plane not in self._buffers:
                self._buffers[plane] = np.zeros((channels, TILE, -(-width // TILE) * TILE), self.dtype)
            self._buffers[plane][:, y - start : stop - start, :width] = rows[
                :, rows.shape[1] - (end - y) : rows.shape[1] - (end - stop)
            ]
            y = stop
            if stop == start + TILE or stop == height:
                self._write_strip(self._buffers.pop(plane), plane, start)
        self._rows[plane] = end

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            # Not around each strip: the filters are the whole process's. They are set and reset in the thread that
            # enters and leaves, which may be another than the main one.
            opened.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", message="Object at OME is not recognized")  # bfio's own metadata folder
            with self._disk_errors():
                self._folder = Path(tempfile.mkdtemp(prefix=".tune-smp-", dir=self.path.parent))
            opened.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._writer = self._new_writer()
            self._opened = opened.pop_all()
        return self

    def _new_writer(self) -> Any:
        # A fixed name: the image's own may be too long with anything added, or have characters that OME-XML lacks.
        self._temporary = self._folder / ("labels.ome.tif" if self._is_tiff else "labels.ome.zarr")
        planes, channels, height, width = self.shape
        return _bfio().BioWriter(
            self._temporary,
            backend="python" if self._is_tiff else "zarr",
            max_workers=1,  # with more, the Zarr writer swallows errors and the TIFF's bytes differ from run to run
            Y=height,
            X=width,
            Z=self._depth,
            C=channels,
            T=planes // self._depth,
            dtype=self.dtype,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opened:
            if kind is None:
                self._publish()
            else:
                with suppress(Exception):  # the first error is the one to report
                    self._writer.close()

    def _publish(self) -> None:
        if any(rows != self.shape[2] for rows in self._rows):
            raise ValueError(f"{self.path.name}: {self._rows} of {self.shape[2]} rows were written")
        with self._disk_errors():
            self._writer.close()
            (calibrate_tiff if self._is_tiff else calibrate_zarr)(self._temporary, self._calibration)
            if self.path.is_dir() and not self.path.is_symlink():
                self.path.replace(self._folder / "replaced")  # a folder that holds something cannot be replaced at once
            self._temporary.replace(self.path)

    def _write_strip(self, strip: NDArray[Any], plane: int, y: int) -> None:
        """Write a strip (C, 1024, width rounded up to whole tiles), zero beyond the image's edges."""
        _, channels, height, width = self.shape
        time, z = divmod(plane, self._depth)
        with self._disk_errors():
            for channel in range(channels):
                block = strip[channel, :, :, None, None, None]  # (Y, X, Z, C, T)
                if self._is_tiff:
                    # Whole tiles: BioWriter.write takes none beyond the edge, and pads with whatever memory holds.
                    where = [0, block.shape[1]], [y, y + TILE], [z, z + 1], [channel], [time]
                    self._writer._backend.write_image(*where, block)
                else:
                    self._writer.write(block[: height - y, :width], Y=y, X=0, Z=z, C=[channel], T=[time])

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"the image cannot be written ({error.strerror or error})"
            raise ResourceError(
                Problem(problem, shown(self.path), "free some space, or choose another --outputDir")
            ) from error
