"""Ledgers of trials, which a tuner asks for the next trial and tells how each ended: a study, or one fixed trial."""

from __future__ import annotations

import math
from typing import Protocol

from typing_extensions import override

from tune_smp.choices.states import trial_state
from tune_smp.settings.run import RunSettings
from tune_smp.training.run_state import RunState
from tune_smp.tuning.trial_record import AskedTrial, TrialRecord, diverged_reason


class Ledger(Protocol):
    """The trials, from the moment they are asked for. A trial in it is known by its number, from 0."""

    def requeue(self) -> None:
        """Let trials that were running when their program ended be asked for again, before any new one."""

    def ask(self) -> AskedTrial:
        """Return the next trial. Raises SettingsError where it is no legal configuration; it has then failed."""

    def report(self, number: int, epoch: int, best_metric: float) -> bool:
        """Note the best metric so far after an epoch, from 1; return whether that is news."""

    def tell(self, number: int, state: str, *, seconds: float = 0.0, reason: str = "") -> TrialRecord:
        """Note how a trial ended."""

    def interrupted(self, number: int, *, seconds: float) -> None:
        """Note that a trial waits for a later session, after this many seconds so far."""

    def records(self) -> list[TrialRecord]:
        """Return every trial that was ever started, by number."""

    def record(self, number: int) -> TrialRecord:
        """Return one trial."""

    def running(self) -> int:
        """Return the number of trials that were asked for, and have not ended."""

    def ended(self) -> int:
        """Return the number of trials that ended, well or not."""


class SingleTrial(Ledger):
    """The ledger of fixed settings: one trial, whose memory is its checkpoint."""

    def __init__(self, settings: RunSettings, state: RunState | None = None) -> None:
        """Begin the trial, or resume the one whose checkpoint has this ``state`` (TrainingRun.state_dict)."""
        self._settings = settings
        self._curve = _best_so_far(state) if state else {}
        self._state = state["stop"] if state and state["stop"] else "interrupted"
        self._seconds = 0.0
        diverged = state is not None and state["stop"] == "diverged"
        self._reason = diverged_reason(state["epoch"] - state["epochs_before"]) if state and diverged else ""
        self._asked = False

    @override
    def requeue(self) -> None:
        self._asked = False

    @override
    def ask(self) -> AskedTrial:
        self._asked = True
        return AskedTrial(0, self._settings, {}, tuple(self._curve.values()))

    @override
    def report(self, number: int, epoch: int, best_metric: float) -> bool:
        if not math.isfinite(best_metric) or epoch in self._curve:
            return False
        self._curve[epoch] = best_metric
        return True

    @override
    def tell(self, number: int, state: str, *, seconds: float = 0.0, reason: str = "") -> TrialRecord:
        self._asked = False
        self._state, self._seconds, self._reason = state, seconds, reason
        return self.record(number)

    @override
    def interrupted(self, number: int, *, seconds: float) -> None:
        self.tell(number, "interrupted", seconds=seconds)

    @override
    def records(self) -> list[TrialRecord]:
        return [self.record(0)]

    @override
    def record(self, number: int) -> TrialRecord:
        curve = tuple(self._curve.values())
        best_epoch = curve.index(curve[-1]) + 1 if curve else None
        state = "running" if self._asked else self._state
        most = self._settings.most_epochs
        return TrialRecord(number, state, {}, most, curve, best_epoch, self._seconds, self._reason)

    @override
    def running(self) -> int:
        return int(self._asked)

    @override
    def ended(self) -> int:
        return int(trial_state(self._state).has_ended)


def _best_so_far(state: RunState) -> dict[int, float]:
    """The best metric so far after each epoch of this run, from 1, where it is a finite number."""
    curve: dict[int, float] = {}
    best = -math.inf
    for row in state["history"]:
        metric = row["metric"]
        best = max(best, metric) if math.isfinite(metric) else best
        if math.isfinite(best):
            curve[row["epoch"] - state["epochs_before"]] = best
    return curve
