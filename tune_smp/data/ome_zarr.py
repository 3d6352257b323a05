"""OME-Zarr through zarr, for the images that bfio cannot read, or would read at the wrong resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.image_reader import ImageInfo, ImageReader, region_by_axes

BFIO_TILE = 1024  # px
_OME_TYPES = frozenset({"uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"})


@dataclass(frozen=True)
class FullResolution:
    """The first data set of the first multiscale image: its zarr array, where it is and what its axes mean."""

    array: Any  # zarr.Array
    path: str
    axes: str  # letters of TCZYX

    def is_read_by_bfio(self, folder: Path) -> bool:
        """Whether bfio reads this array, and all of it right.

        bfio knows OME's pixel types only, fails on tiles that are one pixel wide or high (the last one of 1025), takes
        the first array by name, whatever the metadata say, and axes in the order TCZYX.
        """
        height, width = self.array.shape[-2:]
        markers = (*folder.glob("*/.zarray"), *folder.glob("*/zarr.json"))
        return (
            self.array.dtype.name in _OME_TYPES
            and 1 not in (height % BFIO_TILE, width % BFIO_TILE)
            and self.path == min(marker.parent.name for marker in markers)
            and self.axes == "".join(axis for axis in "TCZYX" if axis in self.axes)
        )


def find_full_resolution(folder: Path) -> FullResolution | None:
    """What the multiscale metadata of an OME-Zarr folder say; None where it has none."""
    import zarr  # noqa: PLC0415  costs 0.4 s

    group = zarr.open(folder, mode="r")
    if not isinstance(group, zarr.Group):
        return None
    metadata: Any = group.attrs.asdict()
    multiscales: Sequence[Any] = metadata.get("ome", metadata).get("multiscales", [])
    if not multiscales:
        return None
    path = multiscales[0]["datasets"][0]["path"]
    array: Any = group[path]
    named = multiscales[0].get("axes", "tczyx"[-array.ndim :])
    axes = "".join(axis["name"] if isinstance(axis, dict) else axis for axis in named).upper()
    return FullResolution(array, path, axes)


class ZarrReader(ImageReader):
    """The full resolution of an OME-Zarr folder. A missing chunk reads as zeros: writers leave out chunks of zeros."""

    def __init__(self, path: Path, found: FullResolution) -> None:
        self._found = found
        sizes = dict(zip(found.axes, found.array.shape, strict=True))
        planes = math.prod(size for axis, size in sizes.items() if axis not in "CYX")
        info = ImageInfo(sizes.get("C", 1), sizes["Y"], sizes["X"], planes, np.dtype(found.array.dtype))
        super().__init__(path, info)

    def close(self) -> None:
        """Nothing is held open."""

    def _region(self, plane: int, y: slice, x: slice) -> NDArray[Any]:
        return region_by_axes(self._found.array, self._found.axes, plane=plane, y=y, x=x)[:, 0]
