"""What every image reader gives: the pixels of one plane, or of a region of it, as an array (C, H, W)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.formats import shown
from tune_smp.errors import DataError, Problem

IMAGE_AXES = "CSYX"  # channels, samples, height, width; every other axis counts planes
INT32 = np.iinfo(np.int32)
ALPHA_NOTE = "the alpha channel is left out"
PALETTE_NOTE = "the image has a palette: its indices are read as values, not its colours"


@dataclass(frozen=True)
class ImageInfo:
    """What an image file holds; ``planes`` counts Z and T together, ``dtype`` is the one that ``read`` returns."""

    channels: int
    height: int
    width: int
    planes: int
    dtype: np.dtype[Any]
    notes: tuple[str, ...] = ()


class ImageReader(ABC):
    """An open image file; a context manager."""

    def __init__(self, path: Path, stored: ImageInfo) -> None:
        """``stored`` describes the file as it is; ``self.info`` has the dtype that is served instead.

        Raises:
            DataError: pixels of a kind that has no place here (complex, say), or no pixels at all.
        """
        if 0 in (stored.channels, stored.height, stored.width, stored.planes):
            raise DataError(Problem("the image has no pixels", shown(path)))
        dtype, note = _served_dtype(path, stored.dtype)
        notes = (*stored.notes, note) if note else stored.notes
        self.path = path
        self.info = ImageInfo(stored.channels, stored.height, stored.width, stored.planes, dtype, notes)

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
            raise undecodable(self.path, error) from error
        return self._serve(region)

    @abstractmethod
    def _region(self, plane: int, y: slice, x: slice) -> NDArray[Any]:
        """The region (C, h, w) as it is stored; slices have bounds within the image and no step."""

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
    planes, the last one fastest. ``pixels`` is anything that is indexed like an array; only the region is read.
    """
    sizes = dict(zip(axes, pixels.shape, strict=True))
    plane_sizes = [size for axis, size in sizes.items() if axis not in IMAGE_AXES]
    position = iter(np.unravel_index(plane, plane_sizes) if plane_sizes else ())
    whole = {"C": slice(None), "S": slice(None), "Y": y, "X": x}
    region = np.asarray(pixels[tuple(whole[axis] if axis in whole else int(next(position)) for axis in axes)])
    kept = [axis for axis in axes if axis in IMAGE_AXES]
    region = region.transpose([kept.index(axis) for axis in IMAGE_AXES if axis in kept])
    return region.reshape(sizes.get("C", 1), sizes.get("S", 1), *region.shape[-2:])


def undecodable(path: Path, error: Exception) -> DataError:
    """What a decoder's exception means to the user."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return DataError(Problem(f"the image cannot be decoded: {reason}", shown(path), "copy or export the file again"))


def _served_dtype(path: Path, stored: np.dtype[Any]) -> tuple[np.dtype[Any], str]:
    """The dtype that stands for the stored one, and what is to be told about it.

    8, 16 and 32-bit integers and float32 stay, in the machine's byte order; bool → uint8 and float16 → float32 lose
    nothing; float64 → float32 loses precision and is told; 64-bit integers → int32 are checked when they are read.
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
