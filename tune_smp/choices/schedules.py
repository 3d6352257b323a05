"""The courses that the learning rate can take over a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

WARMUP_START = 0.01
"""Share of the full learning rate at the very first step: a step at zero would be wasted."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule: ``factor`` maps the progress after warm-up, in [0, 1], to a multiplier of the learning rate, in
    [0, 1]."""

    name: str
    summary: str
    factor: Callable[[float], float]


def _constant(progress: float) -> float:  # noqa: ARG001 - the signature that all schedules share
    return 1.0


def _cosine(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def _polynomial(progress: float) -> float:
    return float((1.0 - progress) ** 0.9)


def _linear(progress: float) -> float:
    return 1.0 - progress


def _step(progress: float) -> float:
    if progress < 0.5:
        return 1.0
    return 0.1 if progress < 0.75 else 0.01


_ROWS = (
    Schedule("constant", "the same learning rate throughout", _constant),
    Schedule("cosine", "half a cosine from the learning rate down to 0", _cosine),
    Schedule("polynomial", "(1 - progress) to the power 0.9, as in DeepLab", _polynomial),
    Schedule("linear", "a straight line down to 0", _linear),
    Schedule("step", "a tenth after half of the training, a hundredth after three quarters", _step),
)

SCHEDULES: Mapping[str, Schedule] = MappingProxyType({row.name: row for row in _ROWS})


def learning_rate_factor(schedule: Schedule, progress: float, warmup: float) -> float:
    """Multiplier of the learning rate at ``progress`` (steps done / all steps), with a linear warm-up.

    ``warmup`` is the share of all steps, in [0, 1), that climbs from `WARMUP_START` to 1; the schedule runs over the
    rest. Progress outside [0, 1] counts as the nearer end.
    """
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return WARMUP_START + (1.0 - WARMUP_START) * progress / warmup
    return schedule.factor((progress - warmup) / (1.0 - warmup))
