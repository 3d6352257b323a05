"""A sampler around the default and the best so far: what it draws, on real studies."""

from __future__ import annotations

import functools
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.flags import REQUIRED
from tune_smp.tuning.first_points import default_values
from tune_smp.tuning.prior_sampler import FEWEST_WITH_A_METRIC
from tune_smp.tuning.sampler import build_sampler
from tune_smp.tuning.space import SearchSpace
from tune_smp.tuning.space_file import named_spaces, read_space
from tune_smp.tuning.study import quiet, suggest_from

TRIALS = 90


def drawn(space: SearchSpace, *, seed: int, trials: int = TRIALS, best: int | None = None) -> list[dict[str, Any]]:
    """The parameters of trials of a study, the default first; ``best`` is the number of the best."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with quiet():
        study = optuna.create_study(direction="maximize", sampler=build_sampler("prior", seed=seed, concurrency=2))
        study.enqueue_trial(dict(default_values(space)))
        for number in range(trials):
            trial = study.ask()
            space.walk(functools.partial(suggest_from, trial))
            metric = 0.9 if number == best else 0.5
            trial.report(metric, 1)
            study.tell(trial, metric)
    return [trial.params for trial in study.get_trials()]


def differing(one: dict[str, Any], other: dict[str, Any]) -> int:
    return sum(one.get(name) != other.get(name) for name in {*one, *other})


@pytest.fixture
def quick() -> SearchSpace:
    return read_space("quick").with_flags(REQUIRED)


def test_the_first_trial_is_the_default(quick: SearchSpace) -> None:
    assert drawn(quick, seed=0, trials=1) == [default_values(quick)]


def test_a_third_lies_anywhere_and_the_rest_around_the_default(quick: SearchSpace) -> None:
    default, *others = drawn(quick, seed=0, trials=FEWEST_WITH_A_METRIC)
    changes = [
        differing(default, point)
        for seed in range(40)
        for point in drawn(quick, seed=seed, trials=FEWEST_WITH_A_METRIC)[1:]
    ]
    assert len(others) == 3
    near = sum(count <= len(default) // 2 + 2 for count in changes) / len(changes)
    assert 0.55 < near < 0.95
    assert all(count >= 1 for count in changes), "the default itself is not drawn again"


def test_later_points_are_neighbours_of_the_best_too(quick: SearchSpace) -> None:
    """A value that is rare elsewhere is met often around the trial that has it and is the best."""

    def share_near(best: int | None) -> float:
        points = drawn(quick, seed=3, best=best)
        rate = points[20]["learningRate"]
        return float(sum(point["learningRate"] == rate for point in points[21:]) / len(points[21:]))

    assert share_near(best=None) < 0.05
    assert share_near(best=20) > 0.1


def test_the_same_seed_draws_the_same(quick: SearchSpace) -> None:
    assert drawn(quick, seed=1, trials=12) == drawn(quick, seed=1, trials=12)
    assert drawn(quick, seed=1, trials=12) != drawn(quick, seed=2, trials=12)


@settings(deadline=None, max_examples=12)
@given(st.sampled_from(sorted(named_spaces())), st.integers(0, 10**6))
def test_every_point_is_a_legal_configuration(name: str, seed: int) -> None:
    space = read_space(name).with_flags(REQUIRED)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with quiet():
        study = optuna.create_study(sampler=build_sampler("prior", seed=seed, concurrency=2))
        study.enqueue_trial(dict(default_values(space)))
        for _ in range(15):
            trial = study.ask()
            space.settings(space.walk(functools.partial(suggest_from, trial)))
            trial.report(0.5, 1)
            study.tell(trial, 0.5)
