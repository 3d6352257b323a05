"""Trials as records of our own: nothing of Ray or Optuna leaves ``tuning/``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_smp.choices.states import may_be_best, trial_state
from tune_smp.errors import TuneSmpError
from tune_smp.settings.run import RunSettings
from tune_smp.tuning.space import Point


@dataclass(frozen=True, slots=True)
class Finalist:
    """What makes a trial a run of the final: the trial ``of`` the search that it repeats, and its ``round``, from 1.

    All runs of one round have the same seed, which no other round has, and the same split.
    """

    of: int
    round: int


@dataclass(frozen=True, slots=True)
class AskedTrial:
    """A trial to be run: a new one, or one that an earlier session began; ``curve`` is what that one reported.

    One that ``is_spared`` is not pruned.
    """

    number: int
    settings: RunSettings
    flags: Point
    curve: tuple[float, ...]
    finalist: Finalist | None = None
    is_spared: bool = False


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial: of a search as trials.csv has it, or the only one of fixed settings.

    ``number`` counts from 0, the plain default. ``state`` is completed, early_stopped, pruned, diverged, failed,
    interrupted or running. ``flags`` are the searched flags' values. ``curve`` is the best metric so far after each
    epoch, from epoch 1; ``max_epochs`` what the trial might have run; ``seconds`` what its epochs took. ``finalist`` is
    set for a run of the final. ``error`` is the error of ours that ended it in this session.
    """

    number: int
    state: str
    flags: Mapping[str, Any]
    max_epochs: int
    curve: tuple[float, ...] = ()
    best_epoch: int | None = None
    seconds: float = 0.0
    reason: str = ""
    finalist: Finalist | None = None
    error: TuneSmpError | None = None

    @property
    def epochs(self) -> int:
        """Epochs that were run."""
        return len(self.curve)

    @property
    def epochs_saved(self) -> int:
        """Epochs that were not run, since the trial was stopped early or pruned."""
        return max(self.max_epochs - self.epochs, 0) if trial_state(self.state).saves_epochs else 0

    @property
    def best_metric(self) -> float | None:
        """Metric of the best epoch; None before the first."""
        return self.curve[-1] if self.curve else None

    def as_row(self) -> dict[str, Any]:
        """The record as a row of trials.csv."""
        return {
            "trial": self.number,
            "state": self.state,
            **self.flags,
            "epochs": self.epochs,
            "best_metric": self.best_metric,
            "best_epoch": self.best_epoch,
            "seconds": round(self.seconds, 1),
            "reason": self.reason,
            "finalist_of": self.finalist.of if self.finalist else None,
        }


def diverged_reason(epoch: int) -> str:
    """Say why a trial diverged."""
    return f"the loss was not finite in epoch {epoch}"


def of_the_search(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials of the search itself, without the runs of the final."""
    return [record for record in records if record.finalist is None]


def best_of(records: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial with the best metric, the earlier of equals; of those that ran into no trouble, or may be resumed."""
    eligible = [record for record in records if may_be_best(record.state, record.best_metric)]
    return max(eligible, key=lambda record: (record.best_metric, -record.number), default=None)
