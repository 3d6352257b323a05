"""The physical size of pixels, as image files carry it and as masks get it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

# How ImageJ, OME-Zarr and people spell what OME's schema calls so.
_UNITS = {
    "micron": "µm",
    "microns": "µm",
    "micrometer": "µm",
    "micrometre": "µm",
    "um": "µm",
    "\\u00b5m": "µm",
    "μm": "µm",  # the Greek letter; OME has the micro sign
    "nanometer": "nm",
    "nanometre": "nm",
    "millimeter": "mm",
    "millimetre": "mm",
    "centimeter": "cm",
    "centimetre": "cm",
    "meter": "m",
    "metre": "m",
    "inch": "in",
    "angstrom": "Å",
    "picometer": "pm",
    "picometre": "pm",
    "sec": "s",
    "second": "s",
    "seconds": "s",
    "millisecond": "ms",
    "microsecond": "µs",
    "minute": "min",
    "hour": "h",
    "day": "d",
}
_KNOWN = frozenset({"m", "cm", "mm", "µm", "nm", "pm", "Å", "in", "s", "ms", "µs", "ns", "min", "h", "d"})


@dataclass(frozen=True)
class Length:
    """A physical size (or a time step) and its unit, in the spelling of OME's schema."""

    value: float
    unit: str

    @classmethod
    def of(cls, value: float, unit: str) -> Self | None:
        """None where the value is no size, or the unit none that OME has: pixels, say."""
        spelled = _UNITS.get(unit.strip().lower(), unit.strip())
        return cls(value, spelled) if math.isfinite(value) and value > 0 and spelled in _KNOWN else None

    def __str__(self) -> str:
        return f"{self.value:.4g} {self.unit}"


@dataclass(frozen=True)
class Calibration:
    """The size of a pixel along X, Y and Z, and the time between two frames; None where a file does not say."""

    x: Length | None = None
    y: Length | None = None
    z: Length | None = None
    t: Length | None = None

    def __str__(self) -> str:
        """The size of a pixel in its plane, for messages."""
        sizes = [str(length) if length else "unknown" for length in (self.x, self.y)]
        return sizes[0] if sizes[0] == sizes[1] else " × ".join(sizes)


UNKNOWN = Calibration()
