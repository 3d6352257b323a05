"""A sampler that trusts the default: most points lie around it, or around the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from typing_extensions import override

FREE = 1 / 3
"""Share of points drawn from the whole space: what nobody expects must have its chance."""
AROUND_THE_BEST = 1 / 2
"""Share of the others that are neighbours of the best so far, once `FEWEST_WITH_A_METRIC` trials have a metric."""
FEWEST_WITH_A_METRIC = 4
NEIGHBOUR_CHANGES = 2
"""Parameters in which a neighbour of the best differs from it, at most."""
SPREAD = 0.15
"""Standard deviation of a number around the one it replaces, as a share of its range (of its logarithm where the range
is one of logarithms)."""


@dataclass(frozen=True, slots=True)
class _Centre:
    """The values that a point is drawn around, and the names of those that change."""

    values: Mapping[str, Any]
    changing: frozenset[str]


class PriorSampler(optuna.samplers.BaseSampler):
    """Draws points around the default, around the best so far, and from the whole space, as PriorBand does.

    The default is trial 0. A point around the default differs from it in up to half of its parameters, a neighbour of
    the best in one or two. (Mallik et al. 2023, "PriorBand: Practical Hyperparameter Optimization in the Age of Deep
    Learning", whose shares follow the evidence for the prior; here they are fixed.)
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._free = optuna.samplers.RandomSampler(seed=seed)
        self._centres: dict[int, _Centre | None] = {}

    @override
    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._centres[trial.number] = self._centre(study, self._random(trial))

    @override
    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    @override
    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    @override
    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        centre = self._centres.get(trial.number)
        value = None if centre is None else centre.values.get(param_name)
        if centre is None or value is None or not _holds(param_distribution, value):
            return self._free.sample_independent(study, trial, param_name, param_distribution)
        if param_name not in centre.changing:
            return value
        return _changed(self._random(trial, param_name), param_distribution, value)

    def _random(self, trial: FrozenTrial, name: str = "") -> np.random.Generator:
        """Numbers of this trial and parameter, whatever was drawn before."""
        return np.random.default_rng((self._seed, trial.number, *name.encode()))

    def _centre(self, study: optuna.Study, random: np.random.Generator) -> _Centre | None:
        """What this point is drawn around; None for the whole space."""
        trials = [trial for trial in study.get_trials(deepcopy=False) if trial.params]
        if not trials or random.random() < FREE:
            return None
        tried = [trial for trial in trials if math.isfinite(_metric(trial))]
        if len(tried) >= FEWEST_WITH_A_METRIC and random.random() < AROUND_THE_BEST:
            best = max(tried, key=_metric)
            return _around(best, random, most=NEIGHBOUR_CHANGES)
        return _around(trials[0], random, most=math.ceil(len(trials[0].params) / 2))


def _around(trial: FrozenTrial, random: np.random.Generator, *, most: int) -> _Centre:
    names = [name for name in trial.params if not trial.distributions[name].single()]
    count = min(int(random.integers(1, most, endpoint=True)), len(names))
    return _Centre(trial.params, frozenset(random.permutation(names)[:count].tolist()))


def _metric(trial: FrozenTrial) -> float:
    """The best metric so far, minus infinity before the first."""
    return max(trial.intermediate_values.values(), default=-math.inf)


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return bool(value in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # noqa: S101 - Optuna has no others
    return bool(distribution.low <= value <= distribution.high)


def _changed(random: np.random.Generator, distribution: BaseDistribution, value: Any) -> Any:
    """Another option; or a number nearby, on the step of its range."""
    if isinstance(distribution, CategoricalDistribution):
        others = [choice for choice in distribution.choices if choice != value]
        return others[int(random.integers(len(others)))] if others else value
    assert isinstance(distribution, FloatDistribution | IntDistribution)  # noqa: S101
    into, back = (math.log, math.exp) if distribution.log else (float, float)
    low, high, here = into(distribution.low), into(distribution.high), into(value)
    move = random.normal(0.0, SPREAD * (high - low))
    # Where it would leave the range, it goes the other way.
    near = back(min(max(here + move if low <= here + move <= high else here - move, low), high))
    if distribution.step is None:
        return near
    steps = round((near - value) / distribution.step) or (1 if near > value else -1)
    moved = value + steps * distribution.step
    moved = moved if distribution.low <= moved <= distribution.high else value - steps * distribution.step
    return min(max(moved, distribution.low), distribution.high)
