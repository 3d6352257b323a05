"""Pruning, which ends poor trials early: Ray's schedulers over epochs, on the best metric so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from tune_smp.tuning.ray_private import others_in_rung, put_in_bracket
from tune_smp.tuning.space import SearchSpace
from tune_smp.tuning.trial_record import TrialRecord

METRIC, EPOCH, SECONDS = "best_metric", "trial_epoch", "run_seconds"
"""Keys of a result: the scheduler judges the best metric so far after so many epochs, or seconds, of this trial."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What trials are compared at equal amounts of: the ``key`` in a result, and how much of it an epoch is."""

    key: str = EPOCH
    per_epoch: float = 1.0


EPOCHS = Resource()


FEWEST_IN_RUNG = 3
"""Other trials that a trial is compared with, at least."""

LEAST_GRACE = 3
"""Epochs of grace where nobody says how many."""


@dataclass(frozen=True, slots=True)
class _EarlierTrial:
    """A trial of an earlier session, as far as a scheduler looks at it."""

    trial_id: str
    number: int


class _Asha(ASHAScheduler):
    """ASHA that judges nothing before a rung holds `FEWEST_IN_RUNG` other trials, as Ray's own does from the first.

    The plain default runs to its end: the gain of a search is measured against it. So does the portfolio, which is
    known to be good in the end, not how it begins.
    """

    fewest_in_rung = FEWEST_IN_RUNG
    resource = EPOCHS

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Called by Ray before a trial's first epoch; Ray draws its bracket, from numbers that no seed governs."""
        super().on_trial_add(tune_controller, trial)
        put_in_bracket(self, trial.trial_id, trial_number(trial))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Ray after each epoch."""
        others = others_in_rung(self, trial.trial_id, result[self.resource.key])
        decision = super().on_trial_result(tune_controller, trial, result)
        is_judged = others >= self.fewest_in_rung and not _is_spared(trial)
        return str(decision if is_judged else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Called by Ray at a trial's end; one that gave no metric is no measure for others."""
        if math.isfinite(result.get(METRIC, math.nan)):
            super().on_trial_complete(tune_controller, trial, result)
        else:
            super().on_trial_remove(tune_controller, trial)


class _MedianRule(MedianStoppingRule):
    """The median rule, with the same exception."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called by Ray after each epoch."""
        if _is_spared(trial):
            # Only noted: once it has said stop, it refuses to hear more of a trial.
            super().on_trial_complete(tune_controller, trial, result)
            return str(TrialScheduler.CONTINUE)
        decision = super().on_trial_result(tune_controller, trial, result)
        return str(decision)


def trial_number(trial: Any) -> int:
    """The number of a trial, from 0, from Ray's object for it."""
    return trial.number if isinstance(trial, _EarlierTrial) else int(trial.config["trial"].number)


def _is_spared(trial: Any) -> bool:
    """Whether this is the default, or of the portfolio. Trials of an earlier session have no configuration: what would
    become of them, nobody asks."""
    config = getattr(trial, "config", None)
    return config is not None and bool(config["trial"].number == 0 or config["trial"].is_spared)


def default_grace_period(space: SearchSpace) -> int:
    """Epochs before a trial can be judged: its learning rate must have been at full height, and the first epochs say
    little about the last one."""
    return min(max(LEAST_GRACE, space.longest_warmup()), space.most_epochs())


def build_scheduler(
    name: str, *, most_epochs: int, grace_period: int, reduction_factor: float, resource: Resource = EPOCHS
) -> TrialScheduler:
    """The scheduler of this name, one of `choices.schedulers`. None of them ends trial 0, or the portfolio.

    With a ``resource`` other than epochs, it counts as many of that as the epochs are.
    """
    grace = float(min(grace_period, most_epochs))
    if resource is not EPOCHS:
        grace -= 0.5  # an epoch ends a little before its time, or after it
    return BUILDERS[name](most_epochs * resource.per_epoch, grace * resource.per_epoch, reduction_factor, resource)


def _asha(most: float, grace: float, reduction_factor: float, resource: Resource, *, brackets: int = 1) -> _Asha:
    """ASHA (Li et al. 2020): rungs at grace × reduction_factor^k; at each, a trial is kept if it is among the best
    1/reduction_factor of those that came there before it, of which there must be a few."""
    scheduler = _Asha(
        time_attr=resource.key,
        metric=METRIC,
        mode="max",
        max_t=most,
        grace_period=grace,
        reduction_factor=reduction_factor,
        brackets=brackets,
        # A trial that came to its last epoch says so itself, and is completed, not pruned.
        stop_last_trials=False,
    )
    scheduler.resource = resource
    return scheduler


def _hyperband(most: float, grace: float, reduction_factor: float, resource: Resource) -> TrialScheduler:
    """Asynchronous Hyperband (Li et al. 2018, 2020): trials go in turn into three brackets, whose first rungs stand at
    grace, × reduction_factor and × reduction_factor². A bracket whose first rung lies beyond ``most`` ends nothing."""
    return _asha(most, grace, reduction_factor, resource, brackets=3)


def _median(_most: float, grace: float, _reduction_factor: float, resource: Resource) -> TrialScheduler:
    # Trials are never paused to wait for others: a paused one would have to be stored and loaded.
    rule: TrialScheduler = _MedianRule(
        time_attr=resource.key, metric=METRIC, mode="max", grace_period=grace, min_time_slice=math.inf
    )
    return rule


def no_scheduler() -> TrialScheduler:
    """Every trial runs to its own end."""
    return FIFOScheduler()


BUILDERS: dict[str, Callable[[float, float, float, Resource], TrialScheduler]] = {
    "asha": _asha,
    "hyperband": _hyperband,
    "median": _median,
    "none": lambda *_: no_scheduler(),
}
"""From the most and the grace in units of the resource, the reduction factor, and the resource."""


def remember(scheduler: TrialScheduler, records: Sequence[TrialRecord]) -> None:
    """Let a new scheduler see what an earlier session's trials reported, so that it judges as if it had been there."""
    for record in records:
        replay(scheduler, f"earlier-{record.number}", record)


def replay(scheduler: TrialScheduler, trial_id: str, record: TrialRecord) -> None:
    """Let the scheduler see the best metric after each epoch of a trial, under this name.

    Each epoch counts with the mean of their seconds; where those are not known, nothing is seen by a scheduler that
    counts seconds.
    """
    if type(scheduler) is FIFOScheduler or not record.curve:  # the others are subclasses of it
        return
    trial = _EarlierTrial(trial_id, record.number)
    scheduler.on_trial_add(None, trial)
    for epoch, best_metric in enumerate(record.curve, start=1):
        seconds = record.seconds * epoch / record.epochs
        result: dict[str, Any] = {EPOCH: epoch, SECONDS: seconds, METRIC: best_metric}
        if isinstance(scheduler, MedianStoppingRule):
            # Only noted: asked for a decision, it refuses to hear more of a trial that it would have stopped, and it
            # looks through all trials each time.
            scheduler.on_trial_complete(None, trial, result)
        else:
            scheduler.on_trial_result(None, trial, result)
