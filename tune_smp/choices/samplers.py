"""How the next point of a search space can be chosen. `tuning.sampler` builds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class SamplerChoice:
    """One sampler."""

    name: str
    summary: str


_ROWS = (
    SamplerChoice("tpe", "tree-structured Parzen estimator: learns from the trials that ended"),
    SamplerChoice("prior", "around the default, around the best so far, and a third anywhere; for a few trials"),
    SamplerChoice("random", "independent draws; learns nothing"),
    SamplerChoice("quasirandom", "a scrambled Sobol sequence, which covers the space evenly; learns nothing"),
)

SAMPLERS: Mapping[str, SamplerChoice] = MappingProxyType({row.name: row for row in _ROWS})
