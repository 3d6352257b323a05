"""How a trial ended, in our own words: nothing of Ray leaves ``search/``."""

from __future__ import annotations

from dataclasses import dataclass

from tune_smp.errors import TuneSmpError


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How a trial ended.

    ``state`` is completed, early_stopped, diverged, failed or interrupted. A trial that failed has a ``reason``; one
    that ended by an error of ours has that error as its ``refusal``.
    """

    state: str
    reason: str | None = None
    refusal: TuneSmpError | None = None
