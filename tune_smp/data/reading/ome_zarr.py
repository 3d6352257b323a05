"""OME-Zarr through zarr, for the images that bfio cannot read, or would read at the wrong resolution."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.reading.calibration import UNKNOWN, Calibration, Length
from tune_smp.data.reading.image_reader import SEVERAL_NOTE, ImageInfo, ImageReader, plane_counts, region_by_axes
from tune_smp.errors import DataError, Problem
from tune_smp.texts import shown

BFIO_TILE = 1024  # px
_OME_TYPES = frozenset({"uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64"})
# OME-Zarr writes the names of units out.
_ZARR_UNITS = {
    "m": "meter",
    "cm": "centimeter",
    "mm": "millimeter",
    "µm": "micrometer",
    "nm": "nanometer",
    "pm": "picometer",
    "Å": "angstrom",
    "in": "inch",
    "d": "day",
    "h": "hour",
    "min": "minute",
    "s": "second",
    "ms": "millisecond",
    "µs": "microsecond",
    "ns": "nanosecond",
}


@dataclass(frozen=True)
class FullResolution:
    """The first data set of the first multiscale image: its zarr array, where it is and what its axes mean."""

    array: Any  # zarr.Array
    path: str
    axes: str  # letters of TCZYX
    calibration: Calibration = UNKNOWN
    notes: tuple[str, ...] = ()

    @property
    def info(self) -> ImageInfo:
        """The content of the array."""
        sizes = dict(zip(self.axes, self.array.shape, strict=True))
        planes, times = plane_counts(self.axes, self.array.shape)
        return ImageInfo(
            sizes.get("C", 1),
            sizes["Y"],
            sizes["X"],
            planes,
            np.dtype(self.array.dtype),
            self.notes,
            times=times,
            calibration=self.calibration,
        )

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
    """Read the multiscale metadata of an OME-Zarr folder; None where it has none."""
    import zarr  # noqa: PLC0415  costs 0.4 s

    group = zarr.open(folder, mode="r")
    if not isinstance(group, zarr.Group):
        return None
    metadata: Any = group.attrs.asdict()
    ome = metadata.get("ome", metadata)
    multiscales: Sequence[Any] = ome.get("multiscales", [])
    if not multiscales:
        _refuse_collection(folder, ome)
        return None
    path = multiscales[0]["datasets"][0]["path"]
    array: Any = group[path]
    named = multiscales[0].get("axes", "tczyx"[-array.ndim :])
    axes = "".join(axis["name"] if isinstance(axis, dict) else axis for axis in named).upper()
    notes = (f"{SEVERAL_NOTE}, of which number 1 is read: {len(multiscales)}",) if len(multiscales) > 1 else ()
    return FullResolution(array, path, axes, _calibration(multiscales[0], axes), notes)


def _refuse_collection(folder: Path, ome: Any) -> None:
    """Raise DataError where the folder holds images that have to be named one by one, with an example."""
    if "plate" in ome:
        kind, levels, pattern = "an OME-Zarr plate: its fields are images", 3, "{row:c+}/{column:d+}/{field:d+}"
    elif "well" in ome:
        kind, levels, pattern = "a well of an OME-Zarr plate: its fields are images", 1, "{field:d+}"
    elif "bioformats2raw.layout" in ome or (folder / "OME").is_dir():
        kind, levels, pattern = "an OME-Zarr of several images", 1, "{image:d+}"
    else:
        return
    inside = sorted(path for path in folder.glob("/".join("*" * levels)) if path.is_dir() and path.name != "OME")
    example = f", such as {'/'.join(inside[0].parts[-levels - 1 :])}" if inside else ""
    problem = f'this is {kind}{example}; a pattern finds them, such as "{folder.name}/{pattern}"'
    raise DataError(Problem(problem, shown(folder), f'use the pattern "{folder.name}/{pattern}"'))


def _calibration(multiscale: Any, axes: str) -> Calibration:
    """Unit of each axis, and its step: the scale of the first data set times that of the whole image."""
    steps = [1.0] * len(axes)
    for level in (multiscale["datasets"][0], multiscale):
        for transformation in level.get("coordinateTransformations", ()):
            if transformation.get("type") == "scale" and len(transformation.get("scale", ())) == len(axes):
                steps = [step * float(factor) for step, factor in zip(steps, transformation["scale"], strict=True)]
    units = [axis.get("unit", "") if isinstance(axis, dict) else "" for axis in multiscale.get("axes", ())]
    found = {
        letter.lower(): Length.of(step, unit)
        for letter, step, unit in zip(axes, steps, units or [""] * len(axes), strict=True)
        if letter in "XYZT" and unit
    }
    return Calibration(**found)


def calibrate_zarr(folder: Path, calibration: Calibration) -> None:
    """Write axes, units and scale into the metadata of an OME-Zarr image that bfio wrote as version 0.1, TCZYX."""
    lengths = {axis: length for axis in "tzyx" if (length := getattr(calibration, axis))}
    if not lengths:
        return
    kinds = {"t": "time", "c": "channel"}
    axes = [
        {"name": axis, "type": kinds.get(axis, "space")}
        | ({"unit": _ZARR_UNITS[lengths[axis].unit]} if axis in lengths else {})
        for axis in "tczyx"
    ]
    scale = [lengths[axis].value if axis in lengths else 1.0 for axis in "tczyx"]
    # Both files: attributes are read from the consolidated one where it is there.
    for name in (".zattrs", ".zmetadata"):
        file = folder / name
        if file.exists():
            document = json.loads(file.read_text(encoding="utf-8"))
            attributes = document["metadata"].get(".zattrs", {}) if name == ".zmetadata" else document
            for image in attributes.get("multiscales", ()):
                image |= {"version": "0.4", "axes": axes}
                for dataset in image["datasets"]:
                    dataset["coordinateTransformations"] = [{"type": "scale", "scale": scale}]
            file.write_text(json.dumps(document), encoding="utf-8")


class ZarrReader(ImageReader):
    """The full resolution of an OME-Zarr folder. A missing chunk reads as zeros: writers leave out chunks of zeros."""

    def __init__(self, path: Path, found: FullResolution) -> None:
        self._found = found
        super().__init__(path, found.info)

    def close(self) -> None:
        """Nothing is held open."""

    def _region(self, plane: int, y: slice, x: slice) -> NDArray[Any]:
        return region_by_axes(self._found.array, self._found.axes, plane=plane, y=y, x=x)[:, 0]
