"""Intensity normalisation: statistics of an image, and the scale and offset per channel that each method makes of them.

Training and inference call the same functions. They take an image in chunks of any height and give the same answer
for every cutting, so that an image larger than memory is treated as the small ones of the training were.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, Protocol, Self, cast, get_args

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.channel_statistics import ChannelStatistics, Floats, pool_statistics
from tune_smp.errors import DataError, Problem

Method = Literal["percentile", "zscore", "minmax", "none"]
Scope = Literal["image", "collection"]
Affine = tuple[NDArray[np.float32], NDArray[np.float32]]  # scale (C,), offset (C,)

IMAGES_REMEMBERED = 1024
"""Images whose small facts a worker keeps, so that its memory does not grow with the collection; 0.02 ms each anew."""


def affine(statistics: ChannelStatistics, method: Method) -> Affine:
    """Scale and offset per channel, float32: normalised = pixel * scale + offset.

    percentile: LOW_PERCENTILE becomes 0 and HIGH_PERCENTILE becomes 1, nothing is cut off; where both are equal (a few
    bright pixels on black) minimum and maximum take their place. minmax: 0 and 1. zscore: mean 0, standard deviation 1.
    none: pixels as they are. A constant channel becomes 0.
    """
    zero, one = _zero_and_one(statistics, method)
    spread = one - zero
    scale = 1.0 / np.where(_is_spread(zero, one), spread, 1.0)
    return scale.astype(np.float32), (-zero * scale).astype(np.float32)


@dataclass(frozen=True)
class Normalization:
    """The normalisation as a model keeps it: the constants, or, where each image has its own, only the method."""

    method: Method
    scope: Scope
    scale: tuple[float, ...] = ()  # per channel; empty: from each image's statistics
    offset: tuple[float, ...] = ()

    @property
    def needs_statistics(self) -> bool:
        """Whether ``affine`` wants the image's statistics."""
        return not self.scale

    def affine(self, statistics: ChannelStatistics | None = None) -> Affine:
        """Scale (C,) and offset (C,) for an image; ``statistics`` of that image where ``needs_statistics``."""
        if self.scale:
            return np.array(self.scale, dtype=np.float32), np.array(self.offset, dtype=np.float32)
        if statistics is None:
            raise ValueError(f"{self.method} normalisation of each image needs the image's statistics")
        return affine(statistics, self.method)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        constants = {"scale": list(self.scale), "offset": list(self.offset)} if self.scale else {}
        return {"method": self.method, "scope": self.scope, **constants}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``. Raises DataError where the document holds anything else."""
        method, scope = document.get("method"), document.get("scope")
        scale, offset = document.get("scale", []), document.get("offset", [])
        has_constants = scope == "collection" or method == "none"
        known = method in get_args(Method) and scope in get_args(Scope)
        if not (known and _are_constants(scale, offset, wanted=has_constants)):
            raise DataError(
                Problem(
                    f"the model's normalisation is none of this program's: {dict(document)!r}",
                    where="preprocessing.json",
                    fix="export the model again, or use the version of tune-smp that wrote it",
                )
            )
        return cls(cast(Method, method), cast(Scope, scope), tuple(map(float, scale)), tuple(map(float, offset)))


class StatisticsSource(Protocol):
    """An image store as a Normalizer needs it."""

    def __len__(self) -> int: ...

    def statistics(self, index: int) -> ChannelStatistics:
        """Statistics of one image."""


class Normalizer:
    """Scale and offset of every image of a store, worked out when they are asked for; the latest are remembered."""

    def __init__(self, store: StatisticsSource, method: Method, scope: Scope) -> None:
        if scope == "collection" or method == "none":
            needed = 1 if method == "none" else len(store)  # of the one, its number of channels
            statistics = pool_statistics([store.statistics(index) for index in range(needed)])
            scale, offset = affine(statistics, method)
            self.normalization = Normalization(method, scope, tuple(scale.tolist()), tuple(offset.tolist()))
        else:
            self.normalization = Normalization(method, scope)
        of_image = partial(_affine_of_image, store, self.normalization)
        self._affine = lru_cache(IMAGES_REMEMBERED)(of_image)

    def affine(self, index: int) -> Affine:
        """Scale (C,) and offset (C,) of image ``index``."""
        return self._affine(index)

    def to_json(self) -> dict[str, Any]:
        """Return what a model keeps, as plain JSON values."""
        return self.normalization.to_json()


def _affine_of_image(store: StatisticsSource, normalization: Normalization, index: int) -> Affine:
    return normalization.affine(store.statistics(index) if normalization.needs_statistics else None)


def _zero_and_one(statistics: ChannelStatistics, method: Method) -> tuple[Floats, Floats]:
    """The pixel values that become 0 and 1, (C,) each."""
    minimum, maximum = np.array(statistics.minimum), np.array(statistics.maximum)
    if method == "none":
        return np.zeros_like(minimum), np.ones_like(minimum)
    if method == "minmax":
        return minimum, maximum
    if method == "zscore":
        mean = np.array(statistics.mean)
        return mean, mean + np.array(statistics.std)
    low, high = np.array(statistics.low), np.array(statistics.high)
    usable = _is_spread(low, high)
    return np.where(usable, low, minimum), np.where(usable, high, maximum)


def _is_spread(low: Floats, high: Floats) -> NDArray[np.bool_]:
    """Whether float32 can distinguish the two and divide by their difference."""
    float32 = np.finfo(np.float32)
    resolution = float32.eps * np.maximum(np.abs(low), np.abs(high))
    return (high - low) > np.maximum(resolution, float(float32.tiny))


def _are_constants(scale: Any, offset: Any, *, wanted: bool) -> bool:
    """Whether both are lists of the same number of finite numbers, empty unless wanted."""
    if not (isinstance(scale, list | tuple) and isinstance(offset, list | tuple) and len(scale) == len(offset)):
        return False
    numbers = all(isinstance(value, int | float) and math.isfinite(value) for value in (*scale, *offset))
    return numbers and bool(scale) == wanted
