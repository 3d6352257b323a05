"""The base of all image readers, which give the pixels of one plane, or of a region of it, as an array (C, H, W)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.reading.calibration import UNKNOWN, Calibration
from tune_smp.errors import DataError, Problem
from tune_smp.texts import shown

Size = tuple[int, int]
"""Height and width in px."""

IMAGE_AXES = "CSYX"  # channels, samples, height, width; every other axis counts planes
INT32 = np.iinfo(np.int32)
ALPHA_NOTE = "the alpha channel is left out"
PALETTE_NOTE = "the image has a palette: its indices are read as values, not its colours"


INVERTED_NOTE = "photometric MinIsWhite: viewers show 0 as white; the values are used as they are stored"
ORIENTATION_NOTE = "a tag says that viewers turn or mirror the image; it is read as it is stored"
UNNAMED_NOTE = "pages without axis names are read as planes; channels need an axis C"
NAME_AXES = "name the axes, as ImageJ and OME-TIFF do: with tifffile, imwrite(..., metadata={'axes': 'CYX'})"
SEVERAL_NOTE = "the file holds several images"


@dataclass(frozen=True)
class ImageInfo:
    """The content of an image file; ``dtype`` is the one that ``read`` returns.

    ``planes`` counts Z and T together: T is the slower one, so plane = t * Z + z, and ``times`` is the size of T. Notes
    are what a user must know; a detail that differs from file to file stands behind ": ".
    """

    channels: int
    height: int
    width: int
    planes: int
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()
    times: int = 1
    calibration: Calibration = UNKNOWN
    sizes: tuple[tuple[int, int], ...] = ()  # height and width of every image in the file, where it holds several
    inverted: bool = False  # MinIsWhite; ImageJ stores its inverted masks so, with objects of 255: nothing is turned
    lossy: str = ""  # a compression that may change values
    palette: tuple[tuple[int, int, int], ...] = ()  # RGB of each index, 0…255
    alpha: bool = False  # there is an alpha channel, which ``read`` leaves out
    orientation: int = 1  # of TIFF and EXIF; 1 is upright

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width


class ImageReader(ABC):
    """An open image file; a context manager."""

    def __init__(self, path: Path, stored: ImageInfo) -> None:
        """``stored`` describes the file as it is; ``self.info`` has the dtype that is served instead, and all notes.

        Raises:
            DataError: pixels of a kind that has no place here (complex, say), or no pixels at all.
        """
        if 0 in (stored.channels, stored.height, stored.width, stored.planes):
            raise DataError(Problem("the image has no pixels", shown(path)))
        dtype, note = _served_dtype(path, stored.dtype)
        self.path = path
        self.stored = stored
        self.info = replace(stored, dtype=dtype, notes=(*stored.notes, *_tag_notes(stored), *([note] if note else [])))

    def read(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any]:
        """The region (C, h, w) of one plane in ``info.dtype``, a fresh array.

        Raises:
            DataError: the pixels cannot be decoded, or 64-bit integers do not fit into 32 bits.
            IndexError: there is no such plane.
        """
        if not 0 <= plane < self.info.planes:
            raise IndexError(f"plane {plane} of {self.info.planes} in {self.path}")
        rows = range(self.info.height)[y]
        columns = range(self.info.width)[x]
        try:
            region = self._region(plane, slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        except (DataError, MemoryError):
            raise
        except Exception as error:  # decoders raise whatever their libraries do
            raise undecodable(self.path, error, self.info.notes) from error
        return self._serve(region)

    @abstractmethod
    def _region(self, plane: int, y: slice, x: slice) -> NDArray[Any]:
        """The region (C, h, w) as it is stored; slices have bounds within the image and no step."""

    def alpha(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any] | None:  # noqa: ARG002
        """The region (1, h, w) of the alpha channel, which ``read`` leaves out; None where there is none."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _serve(self, region: NDArray[Any]) -> NDArray[Any]:
        if region.dtype.kind in "iu" and region.dtype.itemsize == 8 and region.size:
            smallest, largest = int(region.min()), int(region.max())
            if smallest < INT32.min or largest > INT32.max:
                problem = f"64-bit integers must fit into 32 bits, found {smallest} … {largest}"
                raise DataError(Problem(problem, shown(self.path), "save the image as 32-bit integers or floats"))
        try:
            with np.errstate(over="raise"):
                return np.array(region, dtype=self.info.dtype, order="C")
        except FloatingPointError as error:
            problem = f"64-bit floats must fit into 32 bits, some are beyond ±{np.finfo(np.float32).max:.1e}"
            raise DataError(Problem(problem, shown(self.path), "scale the pixel values down")) from error


def region_by_axes(pixels: Any, axes: str, *, plane: int, y: slice, x: slice) -> NDArray[Any]:
    """The region (C, S, h, w) of one plane of an array whose axes are named by letters.

    C are channels, S the samples of a pixel, Y and X height and width, in whatever order; all other axes together count
    planes, the last one fastest, but for T, which is always slower than Z. ``pixels`` is anything that is indexed like
    an array; only the region is read.
    """
    sizes = dict(zip(axes, pixels.shape, strict=True))
    order = plane_axes(axes)
    position = np.unravel_index(plane, [sizes[axis] for axis in order]) if order else ()
    where: dict[str, Any] = {"C": slice(None), "S": slice(None), "Y": y, "X": x}
    where |= {axis: int(number) for axis, number in zip(order, position, strict=True)}
    region = np.asarray(pixels[tuple(where[axis] for axis in axes)])
    kept = [axis for axis in axes if axis in IMAGE_AXES]
    region = region.transpose([kept.index(axis) for axis in IMAGE_AXES if axis in kept])
    return region.reshape(sizes.get("C", 1), sizes.get("S", 1), *region.shape[-2:])


def plane_axes(axes: str) -> str:
    """The axes that count planes, slowest first: in their order, but T before Z."""
    others = [axis for axis in axes if axis not in IMAGE_AXES]
    if {"T", "Z"} <= set(others) and others.index("Z") < others.index("T"):
        z, t = others.index("Z"), others.index("T")
        others[z], others[t] = "T", "Z"
    return "".join(others)


def plane_counts(axes: str, shape: Iterable[int]) -> tuple[int, int]:
    """Number of planes, and how many times there are among them."""
    sizes = {axis: size for axis, size in zip(axes, shape, strict=True) if axis not in IMAGE_AXES}
    return math.prod(sizes.values()), sizes.get("T", 1)


def listed_sizes(sizes: Iterable[tuple[int, int]]) -> str:
    """``2000×3000, 64×64 px``."""
    return ", ".join(f"{height}×{width}" for height, width in sizes) + " px"


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """A format that is read, as its reader declares it.

    ``suffixes`` are in lower case, the usual one first. ``open`` takes a path and the size of the wanted image, of
    several in one file. ``magic`` is what its files can begin with, empty for folders.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[Path, Size | None], ImageReader]
    magic: tuple[bytes, ...] = ()


def counted_notes(notes: Mapping[str, Iterable[str]], kind: str) -> list[str]:
    """List what readers noticed, each once, with the number of files of this ``kind`` and an example of what differs.

    ``notes`` has the notes of each file by its path.
    """
    files: dict[str, list[str]] = defaultdict(list)
    for name, texts in notes.items():
        for text in texts:
            note, _, detail = text.partition(": ") if text.startswith((SEVERAL_NOTE, UNNAMED_NOTE)) else (text, "", "")
            files[note].append(f", {shown(Path(name).name)}: {detail}" if detail else "")
    return [f"{note} ({len(found)} of {len(notes)} {kind}{found[0]})" for note, found in files.items()]


def undecodable(path: Path, error: Exception, notes: Iterable[str] = ()) -> DataError:
    """Translate a decoder's exception for the user; ``notes`` is what the reader noticed before it failed."""
    reason = "; ".join([" ".join(str(error).split())[:300] or type(error).__name__, *notes])
    return DataError(Problem(f"the image cannot be decoded: {reason}", shown(path), "copy or export the file again"))


def _tag_notes(info: ImageInfo) -> Iterable[str]:
    if info.inverted:
        yield INVERTED_NOTE
    if info.orientation != 1:
        yield f"{ORIENTATION_NOTE} (orientation {info.orientation})"
    if info.alpha:
        yield ALPHA_NOTE
    if info.palette:
        yield PALETTE_NOTE


def _served_dtype(path: Path, stored: np.dtype[Any]) -> tuple[np.dtype[Any], str]:
    """The dtype that stands for the stored one, and what to report about it.

    8, 16 and 32-bit integers and float32 stay, in the machine's byte order; bool → uint8 and float16 → float32 lose
    nothing; float64 → float32 loses precision and is reported; 64-bit integers → int32 are checked when they are read.
    """
    match stored.kind, stored.itemsize:
        case "b", _:
            return np.dtype(np.uint8), ""
        case ("i" | "u", 1 | 2 | 4) | ("f", 4):
            return stored.newbyteorder("="), ""
        case "f", 2:
            return np.dtype(np.float32), ""
        case "f", 8:
            return np.dtype(np.float32), "64-bit floats are read as 32-bit floats"
        case (("i" | "u"), 8):
            return np.dtype(np.int32), ""
    raise DataError(
        Problem(f"pixels of type {stored} are not supported", shown(path), "save the image as 32-bit floats")
    )
