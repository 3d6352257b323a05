"""A run that is given a time: its epochs, its learning rate and its end, also after a stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from tune_smp.data.labels import Mode
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.settings.run import RunSettings
from tune_smp.training import checkpoint
from tune_smp.training.run import TrainingRun
from tune_smp.training.run_state import RunState
from tune_smp.training.validation import Validation

MakeSettings = Callable[..., RunSettings]
MakeStore = Callable[[Mode], ImageStore]
Regions = tuple[Region, ...]

STEP, VALIDATION = 0.5, 2.0  # s
BUDGET = 60.0  # s


class TimedRun(TrainingRun):
    """A run on a machine whose steps and validations take exactly so long, without waiting for them."""

    def __init__(self, *arguments: Any, state: RunState | None = None) -> None:
        self.validated = 0
        self.steps = 0
        super().__init__(*arguments, state=state, clock=lambda: 100.0 + STEP * self.steps + VALIDATION * self.validated)

    @override
    def validate(self, thresholds: Sequence[float] | None = None) -> Validation:
        self.validated += 1
        return super().validate(thresholds)


@pytest.fixture
def timed(make_settings: MakeSettings, make_store: MakeStore, regions: Regions) -> Callable[..., TimedRun]:
    """A run of a minute, in six epochs at most; keywords change its settings."""

    def make(state: RunState | None = None, **changes: Any) -> TimedRun:
        settings = make_settings(**{"time_budget": f"{BUDGET:g}s", "max_epochs": 6, **changes})
        return TimedRun(settings, make_store("binary"), regions, state=state)

    return make


def finished(run: TimedRun) -> TimedRun:
    while run.stop is None:
        run.run_epoch()
        assert len(run.history) < 100
    return run


def seconds(run: TrainingRun) -> float:
    return sum(row["seconds"] for row in run.history)


def test_its_epochs_fill_the_time_and_its_learning_rate_falls_to_the_end(timed: Callable[..., TimedRun]) -> None:
    run = finished(timed())
    assert run.stop == "completed"
    assert seconds(run) == pytest.approx(BUDGET, abs=1.0)
    assert len(run.history) in (5, 6)
    rates = [row["learning_rate"] for row in run.history]
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert rates[-1] < 0.01 * run.settings.resolved_learning_rate
    assert run.used["stepsPerEpoch"] == round(run.steps / len(run.history))


def test_it_is_resumed_with_the_time_that_is_left(timed: Callable[..., TimedRun], tmp_path: Path) -> None:
    run = timed()
    for _ in range(3):
        run.run_epoch()
    checkpoint.save(run.state_dict(), tmp_path / "checkpoint.pth")
    resumed = finished(timed(checkpoint.load(tmp_path / "checkpoint.pth")))
    assert resumed.stop == "completed"
    assert [row["epoch"] for row in resumed.history] == list(range(1, len(resumed.history) + 1))
    assert seconds(resumed) == pytest.approx(BUDGET, abs=1.0)
    assert resumed.steps == finished(timed()).steps
    assert resumed.history[-1]["learning_rate"] < 0.01 * resumed.settings.resolved_learning_rate


def test_it_can_be_given_more_time(timed: Callable[..., TimedRun]) -> None:
    state = finished(timed()).state_dict()
    assert timed(state).stop == "completed"
    longer = timed(state, time_budget="90s")
    assert longer.stop is None
    assert seconds(finished(longer)) == pytest.approx(90.0, abs=1.0)


def test_a_time_too_short_for_anything_still_gives_an_epoch(timed: Callable[..., TimedRun]) -> None:
    run = finished(timed(time_budget="1s"))
    assert (run.stop, run.steps, len(run.history)) == ("completed", 1, 1)


def test_only_a_given_patience_ends_it_early(timed: Callable[..., TimedRun]) -> None:
    assert finished(timed(min_delta=1e6)).stop == "completed"
    early = finished(timed(min_delta=1e6, patience=2))
    assert (early.stop, len(early.history)) == ("early_stopped", 3)


def test_an_earlier_state_without_steps_is_resumed(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    """As 0.1.0 wrote it: epochs of one length."""
    settings, store = make_settings(max_epochs=4, steps_per_epoch=3), make_store("binary")
    run = TrainingRun(settings, store, regions)
    run.run_epoch()
    state = run.state_dict()
    assert state.pop("steps") == 3
    state.pop("budget")
    run.run_epoch()
    resumed = TrainingRun(settings, store, regions, state=state)
    resumed.run_epoch()
    assert resumed.steps == 6
    assert resumed.history[1]["learning_rate"] == run.history[1]["learning_rate"]
