"""How raw pixel values become the numbers that a model sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class NormalizationChoice:
    """One method; every one is a scale and an offset per channel."""

    name: str
    summary: str


_ROWS = (
    NormalizationChoice("percentile", "the 1st percentile becomes 0, the 99.8th becomes 1; sturdy against hot pixels"),
    NormalizationChoice("zscore", "mean 0 and standard deviation 1"),
    NormalizationChoice("minmax", "the smallest value becomes 0 and the largest becomes 1"),
    NormalizationChoice("none", "values as they are in the files"),
)

NORMALIZATIONS: Mapping[str, NormalizationChoice] = MappingProxyType({row.name: row for row in _ROWS})
