"""Schedulers, which end poor trials of a search early. `tuning.pruning` builds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class SchedulerChoice:
    """One scheduler; ``pruned_by`` names it where a report says what ended a trial."""

    name: str
    summary: str
    pruned_by: str = ""


_ROWS = (
    SchedulerChoice("asha", "successive halving: the best third is kept at 3, 9, 27, ... epochs", "ASHA"),
    SchedulerChoice("hyperband", "ASHA in three brackets, of which two wait longer before they judge", "Hyperband"),
    SchedulerChoice("median", "a trial below the median of the others at its epoch ends", "the median rule"),
    SchedulerChoice("none", "every trial runs to its own end"),
)

SCHEDULERS: Mapping[str, SchedulerChoice] = MappingProxyType({row.name: row for row in _ROWS})
