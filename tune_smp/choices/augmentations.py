"""How strongly training tiles are varied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One strength. Geometry acts on image and mask alike, intensity on normalised images only; 0 and (1, 1) mean:
    never.

    ``flip``, ``quarter_turns``: mirror, and turn by multiples of 90°, each with even chances. ``rotate_degrees``:
    turn by up to this much either way. ``scale``: enlarge by a ratio in this range. ``shear_degrees``: slant by up to
    this much. ``brightness``: add up to this much, in standard deviations of the tile. ``contrast``: stretch about
    the mean by a factor in 1 ± this. ``gamma``: raise to a power in [1 / (1 + this), 1 + this]. ``noise``: Gaussian
    noise of up to this many standard deviations.
    """

    name: str
    summary: str
    flip: bool = False
    quarter_turns: bool = False
    rotate_degrees: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shear_degrees: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0


_ROWS = (
    Augmentation("none", "tiles as they are"),
    Augmentation(
        "light", "flips and quarter turns; for images where intensities mean something", flip=True, quarter_turns=True
    ),
    Augmentation(
        "medium",
        "flips, quarter turns, small rotations and scalings, mild brightness, contrast and noise",
        flip=True,
        quarter_turns=True,
        rotate_degrees=15.0,
        scale=(0.85, 1.2),
        brightness=0.15,
        contrast=0.15,
        gamma=0.15,
        noise=0.05,
    ),
    Augmentation(
        "strong",
        "any rotation, wide scalings, shear, strong brightness, contrast and noise; for few images",
        flip=True,
        quarter_turns=True,
        rotate_degrees=45.0,
        scale=(0.65, 1.5),
        shear_degrees=8.0,
        brightness=0.3,
        contrast=0.3,
        gamma=0.35,
        noise=0.15,
    ),
)

AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType({row.name: row for row in _ROWS})
