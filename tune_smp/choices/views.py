"""The views of a tile that test-time augmentation averages over: quarter turns, each plain or mirrored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

View = tuple[int, bool]  # quarter turns, mirrored first

Preset = Literal["none", "flips", "all"]

PRESETS: Mapping[Preset, tuple[View, ...]] = {
    "none": ((0, False),),
    "flips": ((0, False), (0, True), (2, True), (2, False)),  # as it is, mirrored either way, and both ways
    "all": tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
"""The presets, the cheapest first; the first view of each is the tile as it is."""
