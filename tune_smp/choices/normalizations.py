"""How raw pixel values become the numbers that a model sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Normalization:
    """One method; every one is a scale and an offset per channel."""

    name: str
    summary: str


_ROWS = (
    Normalization("percentile", "the 1st percentile becomes 0 and the 99.8th becomes 1; sturdy against hot pixels"),
    Normalization("zscore", "mean 0 and standard deviation 1"),
    Normalization("minmax", "the smallest value becomes 0 and the largest becomes 1"),
    Normalization("none", "values as they are in the files"),
)

NORMALIZATIONS: Mapping[str, Normalization] = MappingProxyType({row.name: row for row in _ROWS})
