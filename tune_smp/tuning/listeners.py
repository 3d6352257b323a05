"""Who wants to know how the trials go: the output folder, the display, gauges, trackers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_smp.training.run_state import EpochReport, Used
from tune_smp.tuning.trial_record import TrialRecord


class EpochResult(EpochReport):
    """The result that a trial sends to the driver after an epoch.

    ``epoch`` counts those of an earlier run (``epochs_before``) too, ``trial_epoch`` does not; ``run_seconds`` is what
    all epochs of the trial took, ``notes`` what the user should read. After a ``done`` one no epoch comes.
    """

    epochs_before: int
    trial_epoch: int
    run_seconds: float
    notes: tuple[str, ...]
    used: Used
    done: bool


class Listener:
    """Hears of everything that happens to trials, in the driver, in the order of the calls below.

    A listener overrides what it wants to hear. What it raises of ours ends the search with that error.
    """

    def started(self, number: int, flags: Mapping[str, Any], max_epochs: int) -> None:
        """A trial begins, or resumes: from an earlier session, or after its worker died."""

    def epoch_ended(self, number: int, result: EpochResult) -> None:
        """A trial ended an epoch."""

    def requeued(self, number: int) -> None:
        """The worker of a trial died; the trial resumes from its last checkpoint."""

    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        """A trial ended; one that failed comes with its traceback, where there is one."""

    def stopping(self) -> None:
        """Everything ends after the epochs under way: Ctrl-C or SIGTERM. Called in a thread of its own."""

    def search_ended(self, ending: str) -> None:
        """No trial runs any more: ``ending`` is completed, out_of_time or interrupted."""
