"""The time of a run: divided into epochs, never overdrawn, and taken up again after a stop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_smp.training.time_budget import ENOUGH_EPOCHS, TRAINING_TO_VALIDATION, TimeBudget


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def epoch(budget: TimeBudget, clock: Clock, *, step: float, validation: float) -> int:
    """Run an epoch of steps and a validation that take so long; the number of its steps."""
    budget.begin_epoch()
    steps = 0
    while True:
        clock.now += step
        steps += 1
        if budget.has_trained_enough():
            break
    clock.now += validation
    budget.validated()
    return steps


def run(budget: TimeBudget, clock: Clock, *, step: float, validation: float, most: int = 10_000) -> list[int]:
    """Run to the end, or so many epochs; the steps of each epoch."""
    steps: list[int] = []
    while not (steps and budget.is_over) and len(steps) < most:
        steps.append(epoch(budget, clock, step=step, validation=validation))
    return steps


def test_epochs_have_the_same_length_and_end_with_the_time() -> None:
    clock = Clock()
    budget = TimeBudget(100.0, epochs=10, clock=clock)
    assert run(budget, clock, step=0.5, validation=1.0) == [20, *[18] * 8, 16]
    assert budget.spent == pytest.approx(100.0, abs=0.5)
    assert budget.is_over


def test_a_slow_validation_makes_epochs_longer() -> None:
    clock = Clock()
    budget = TimeBudget(100.0, epochs=40, clock=clock)
    steps = run(budget, clock, step=0.1, validation=2.0)
    assert 10 <= len(steps) <= 12
    assert all(0.1 * count >= 0.9 * TRAINING_TO_VALIDATION * 2.0 for count in steps[1:])
    assert budget.spent == pytest.approx(100.0, abs=0.2)


def test_where_there_are_epochs_enough_nine_tenths_of_the_time_are_for_training() -> None:
    clock = Clock()
    budget = TimeBudget(100.0, epochs=40, clock=clock)
    steps = run(budget, clock, step=0.1, validation=0.6)
    assert len(steps) > ENOUGH_EPOCHS
    assert 0.1 * sum(steps) == pytest.approx(90.0, abs=1.0)


@given(
    seconds=st.floats(1.0, 1e4),
    epochs=st.integers(1, 100),
    step=st.floats(1e-2, 10.0),
    validation=st.floats(0.0, 50.0),
)
def test_never_over_time_by_more_than_a_step_and_the_first_validation(
    seconds: float, epochs: int, step: float, validation: float
) -> None:
    clock = Clock()
    budget = TimeBudget(seconds, epochs=epochs, clock=clock)
    steps = run(budget, clock, step=max(step, seconds / 1e4), validation=validation)
    assert len(steps) <= epochs + 1
    over = budget.spent - seconds
    # What validation takes is not known before the first one.
    assert over <= (validation if len(steps) == 1 else 0.0) + 2 * max(step, seconds / 1e4) + 1e-6
    assert over >= -(validation + 2 * max(step, seconds / 1e4) + 1e-6)


def test_progress_reaches_the_end_with_the_last_step() -> None:
    clock = Clock()
    budget = TimeBudget(60.0, epochs=6, clock=clock)
    assert budget.progress == 0.0
    run(budget, clock, step=0.1, validation=1.0, most=5)
    budget.begin_epoch()
    seen = []
    while not budget.has_trained_enough():
        seen.append(budget.progress)
        clock.now += 0.1
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0, abs=0.005)


def test_resumed_it_has_what_was_left_and_time_between_does_not_count() -> None:
    clock = Clock()
    first = TimeBudget(100.0, epochs=10, clock=clock)
    run(first, clock, step=0.5, validation=1.0, most=4)
    state = first.state_dict()
    clock.now += 10_000.0
    second = TimeBudget(100.0, epochs=10, clock=clock)
    second.load_state_dict(state)
    assert second.spent == state["spent"] == pytest.approx(41.0, abs=0.5)
    assert not second.is_over
    assert len(run(second, clock, step=0.5, validation=1.0)) == 6
    assert second.spent == pytest.approx(100.0, abs=0.5)
    third = TimeBudget(100.0, epochs=10, clock=clock)
    third.load_state_dict(second.state_dict())
    assert third.is_over
