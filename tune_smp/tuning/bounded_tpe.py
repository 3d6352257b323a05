"""TPE that learns from failed trials too, and whose time for a suggestion does not grow with the search."""

from __future__ import annotations

import copy
import heapq
import math
from collections import deque
from collections.abc import Container, Sequence
from datetime import datetime
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

BEST_TRIALS = 25
"""Trials that TPE stays near: its best tenth, never more (``optuna.samplers.TPESampler``, gamma)."""
OTHER_TRIALS = 375
"""Trials that it compares them with."""
MOST_TRIALS = BEST_TRIALS + OTHER_TRIALS


class BoundedTPESampler(optuna.samplers.TPESampler):
    """TPE that learns from the best trials, from those that ended last, and from those that run. For one study.

    TPE compares its best trials with all others, one by one: a suggestion takes 0.1 s of CPU time with 1,000 trials and
    1 s with 10,000. Up to `MOST_TRIALS` ended trials this is TPE itself; from there on the best are the same, and of
    the others the last `OTHER_TRIALS` to end count.

    A failed trial counts as one that runs: as poor, never as good, and not as one of the random start. TPE leaves
    failed trials out: where they were it then knows of no poor one, and goes there again and again.
    """

    def __init__(self, **options: Any) -> None:
        """``options`` are those of TPESampler; without ``constant_liar`` failed trials are left out as by Optuna."""
        super().__init__(**options)
        self._ended = _EndedTrials()

    @override
    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return super().infer_relative_search_space(self._seen(study), trial)

    @override
    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return super().sample_relative(self._seen(study), trial, search_space)

    @override
    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return super().sample_independent(self._seen(study), trial, param_name, param_distribution)

    def _seen(self, study: optuna.Study) -> optuna.Study:
        return _SeenStudy(study, self._ended.seen(study.get_trials(deepcopy=False)))  # type: ignore[return-value]


class _SeenStudy:
    """A study that shows a sampler some of its trials, and is itself in all else."""

    def __init__(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        self._study = study
        self._trials = trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self,
        deepcopy: bool = True,  # noqa: ARG002 - Optuna's signature; TPE changes none of them
        states: Container[TrialState] | None = None,
        use_cache: bool = False,  # noqa: ARG002
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]


class _EndedTrials:
    """The best and the latest of the trials that ended, kept up to date: a trial that ended is looked at once."""

    def __init__(self) -> None:
        self._best: list[tuple[tuple[bool, int, float], int]] = []  # a heap of worth and -number, the worst first
        self._latest: deque[int] = deque(maxlen=MOST_TRIALS)
        self._open: list[int] = []  # numbers of those that have not ended
        self._known = 0  # trials so far

    def seen(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Those that have not ended, the best, and the latest `OTHER_TRIALS` of the others, by number."""
        self._update(trials)
        best = {-number for _, number in self._best}
        others = [number for number in self._latest if number not in best]
        return [_shown(trials[number]) for number in sorted({*best, *others[-OTHER_TRIALS:], *self._open})]

    def _update(self, trials: Sequence[FrozenTrial]) -> None:
        candidates = [trials[number] for number in (*self._open, *range(self._known, len(trials)))]
        self._known = len(trials)
        self._open = [trial.number for trial in candidates if not trial.state.is_finished()]
        ended = (trial for trial in candidates if trial.state.is_finished() and trial.params)
        for trial in sorted(ended, key=lambda trial: trial.datetime_complete or datetime.min):
            self._latest.append(trial.number)
            if trial.state is TrialState.FAIL:
                continue
            add = heapq.heappush if len(self._best) < BEST_TRIALS else heapq.heappushpop
            add(self._best, (_worth(trial), -trial.number))  # of equals, TPE takes the first


def _shown(trial: FrozenTrial) -> FrozenTrial:
    """As TPE is to see it: a failed one as running, which with ``constant_liar`` counts as poor."""
    if trial.state is not TrialState.FAIL:
        return trial
    shown = copy.copy(trial)
    shown.state = TrialState.RUNNING
    return shown


def _worth(trial: FrozenTrial) -> tuple[bool, int, float]:
    """TPE's order of a study that maximises: who came to the end by the value, then others by how far they came."""
    if trial.state is TrialState.COMPLETE:
        return True, 0, -math.inf if trial.value is None else trial.value
    last = trial.last_step
    return (False, -1, -math.inf) if last is None else (False, last, trial.intermediate_values[last])
