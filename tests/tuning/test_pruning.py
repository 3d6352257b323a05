"""What ends poor trials: the decisions on given curves, and what a new session's scheduler knows of the old ones."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import TrialScheduler
from typing_extensions import override

from tests.flags import REQUIRED
from tune_smp.tuning.listeners import Listener
from tune_smp.tuning.pruning import (
    EPOCH,
    METRIC,
    SECONDS,
    Resource,
    build_scheduler,
    default_grace_period,
    remember,
    replay,
)
from tune_smp.tuning.sampler import build_sampler
from tune_smp.tuning.space_file import parse_space
from tune_smp.tuning.stopping import LastEpochs
from tune_smp.tuning.study import Study
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.tuning.tuner import _Watcher

NAMES = ("asha", "hyperband", "median", "none")


@dataclass(frozen=True)
class RayTrial:
    """What a scheduler looks at of Ray's trial."""

    trial_id: str
    number: int = 1
    is_spared: bool = False

    @property
    def config(self) -> dict[str, Any]:
        return {"trial": SimpleNamespace(number=self.number, is_spared=self.is_spared)}


def scheduler(name: str = "asha", *, most_epochs: int = 9, grace_period: int = 1) -> Any:
    return build_scheduler(name, most_epochs=most_epochs, grace_period=grace_period, reduction_factor=3.0)


def judged(
    judge: Any,
    name: str,
    curve: Sequence[float],
    *,
    first_epoch: int = 1,
    number: int = 1,
    is_spared: bool = False,
) -> int | None:
    """Show the curve of a trial, epoch by epoch; the epoch after which it is stopped, None if it is not."""
    trial = RayTrial(name, number, is_spared)
    judge.on_trial_add(None, trial)
    for epoch, value in enumerate(curve, start=first_epoch):
        decision = judge.on_trial_result(None, trial, {EPOCH: epoch, METRIC: value})
        if decision == TrialScheduler.STOP:
            return epoch
        assert decision == TrialScheduler.CONTINUE
    return None


def test_asha_stops_at_its_rungs_what_is_not_among_the_best_third() -> None:
    judge = scheduler()
    for number in range(3):
        assert judged(judge, f"of the first three {number}", [0.5] * 9) is None, "too few to compare with"
    assert judged(judge, "poor", [0.4] * 9) == 1
    assert judged(judge, "better", [0.6] * 9) is None
    assert judged(judge, "late to fall behind", [0.9, 0.9, 0.45]) == 3
    assert judged(judge, "as good as the best", [0.9, 0.9, 0.9]) is None


def test_the_brackets_of_hyperband_take_turns_also_after_a_resume() -> None:
    first, resumed = scheduler("hyperband", most_epochs=27), scheduler("hyperband", most_epochs=27)
    good = [[0.9] * 27] * 12
    for number, curve in enumerate(good):
        judged(first, str(number), curve, number=number)
    remember(resumed, records(good))
    for judge in (first, resumed):
        assert [judged(judge, f"poor {n}", [0.1] * 27, number=n) for n in (12, 13, 14)] == [1, 3, 9]


def test_asha_looks_only_at_its_rungs() -> None:
    judge = scheduler()
    for number in range(3):
        judged(judge, f"good {number}", [0.9] * 9)
    assert judged(judge, "poor between the rungs", [0.9, 0.1, 0.95, 0.1, 0.1, 0.1, 0.1, 0.1]) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("grace_period", [2, 4, 9])
def test_nothing_is_stopped_within_its_grace(name: str, grace_period: int) -> None:
    judge = scheduler(name, grace_period=grace_period)
    for number in range(5):
        judged(judge, f"good {number}", [0.9] * 9)
    stopped = judged(judge, "poor", [0.1] * (grace_period - 1))
    assert stopped is None


def test_the_median_rule_stops_what_is_below_the_middle_of_at_least_three() -> None:
    judge = scheduler("median")
    for number, value in enumerate([0.3, 0.5]):
        assert judged(judge, str(number), [value] * 9) is None
    assert judged(judge, "poor, among two others", [0.1] * 9) is None
    assert judged(judge, "below", [0.2] * 9) == 1
    assert judged(judge, "above", [0.6] * 9) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_default_and_the_portfolio_run_to_their_end(name: str) -> None:
    """What a search gained is measured against what the default reaches, not against where it was cut."""
    judge = scheduler(name)
    for number in range(4):
        judged(judge, f"good {number}", [0.9] * 9)
    assert judged(judge, "default", [0.1] * 9, number=0) is None
    assert judged(judge, "of the portfolio", [0.1] * 9, number=4, is_spared=True) is None
    # One in three trials is in the bracket of Hyperband that judges at once.
    ended = [judged(judge, f"another {number}", [0.05] * 9, number=number) is not None for number in range(4, 40)]
    assert any(ended) == (name != "none")


def test_a_trial_that_fails_without_a_metric_is_no_measure_for_others() -> None:
    judge = scheduler()
    for number in range(3):
        failing = RayTrial(f"failing {number}")
        judge.on_trial_add(None, failing)
        judge.on_trial_complete(None, failing, {EPOCH: 1, METRIC: math.nan})
    with warnings.catch_warnings(action="error"):
        assert judged(judge, "first at its rungs", [0.5] * 9) is None


def test_without_a_scheduler_nothing_is_stopped() -> None:
    judge = scheduler("none")
    assert [judged(judge, str(number), [0.9 / (number + 1)] * 9) for number in range(6)] == [None] * 6


CURVES = st.lists(
    st.lists(st.floats(0, 1), min_size=1, max_size=9).map(
        lambda values: tuple(max(values[: i + 1]) for i in range(len(values)))
    ),
    max_size=8,
)


def records(curves: Sequence[Sequence[float]]) -> list[TrialRecord]:
    return [TrialRecord(number, "completed", {}, 9, curve=tuple(curve)) for number, curve in enumerate(curves)]


@settings(deadline=None)
@given(CURVES, st.lists(st.floats(0, 1), min_size=9, max_size=9))
def test_a_new_asha_judges_as_the_old_one_would_have(earlier: list[tuple[float, ...]], later: list[float]) -> None:
    old, new = scheduler(), scheduler()
    for number, curve in enumerate(earlier):
        trial = RayTrial(str(number))
        old.on_trial_add(None, trial)
        for epoch, value in enumerate(curve, start=1):
            old.on_trial_result(None, trial, {EPOCH: epoch, METRIC: value})
    remember(new, records(earlier))
    assert judged(new, "next", later) == judged(old, "next", later)


@pytest.mark.parametrize("name", ["asha", "median"])
def test_what_earlier_trials_reported_is_not_forgotten(name: str) -> None:
    fresh, told = scheduler(name), scheduler(name)
    remember(told, records([[0.8] * 9] * 4))
    assert judged(fresh, "poor", [0.1] * 9) is None
    assert judged(told, "poor", [0.1] * 9) == 1
    assert judged(told, "good", [0.9] * 9) is None


@settings(deadline=None)
@given(st.sampled_from(NAMES), CURVES)
def test_every_history_can_be_remembered(name: str, curves: list[tuple[float, ...]]) -> None:
    """Also of trials that a scheduler which knew all the others would have stopped."""
    remember(scheduler(name), records([*curves, *[(0.9,) * 9] * 4, (0.1,) * 9]))


def test_a_trial_that_goes_on_is_not_judged_again_for_the_rungs_it_has_passed() -> None:
    judge = scheduler()
    replay(judge, "going on", TrialRecord(1, "running", {}, 9, (0.2, 0.2, 0.2)))
    remember(judge, records([[0.9] * 9] * 3))
    assert judged(judge, "going on", [0.2] * 5, first_epoch=4) is None
    assert judged(judge, "new", [0.2]) == 1


def in_seconds() -> Any:
    """A scheduler of trials that last 90 s, in which they have 9 epochs at most; rungs at 5 and 15 s and so on."""
    resource = Resource(SECONDS, per_epoch=10.0)
    return build_scheduler("asha", most_epochs=9, grace_period=1, reduction_factor=3.0, resource=resource)


def stopped_after(judge: Any, name: str, curve: Sequence[float], *, epoch_seconds: float) -> float | None:
    """The seconds after which the trial is stopped, None if it is not."""
    trial = RayTrial(name)
    judge.on_trial_add(None, trial)
    for epoch, value in enumerate(curve, start=1):
        result = {EPOCH: epoch, SECONDS: epoch * epoch_seconds, METRIC: value}
        if judge.on_trial_result(None, trial, result) == TrialScheduler.STOP:
            return epoch * epoch_seconds
    return None


def test_trials_are_compared_after_equal_seconds() -> None:
    """Slow epochs of one trial stand in the rung of many fast ones of another."""
    judge = in_seconds()
    for number in range(4):
        assert stopped_after(judge, f"good {number}", [0.8] * 90, epoch_seconds=1.0) is None
    assert stopped_after(judge, "poor", [0.1] * 90, epoch_seconds=1.0) == 5.0
    assert stopped_after(judge, "poor and slow", [0.1] * 3, epoch_seconds=30.0) == 30.0
    assert stopped_after(judge, "good and slow", [0.9] * 3, epoch_seconds=30.0) is None


def test_a_new_session_remembers_after_how_many_seconds() -> None:
    judge = in_seconds()
    remember(judge, [TrialRecord(number, "completed", {}, 9, (0.8,) * 3, seconds=90.0) for number in range(4)])
    # Their epochs took 30 s each, which puts them into the rung at 15 s.
    assert stopped_after(judge, "poor", [0.1] * 9, epoch_seconds=10.0) == 20.0
    unknown = in_seconds()
    remember(unknown, [TrialRecord(number, "interrupted", {}, 9, (0.8,) * 3) for number in range(4)])
    assert stopped_after(unknown, "poor", [0.1] * 9, epoch_seconds=10.0) is None


def test_the_grace_covers_the_warm_up() -> None:
    lines = "fixed: {{maxEpochs: {epochs}, warmupFraction: {share}}}\nsearch:\n  batchSize: {{low: 4, high: 8}}\n"
    spaces = {
        (epochs, share): parse_space(lines.format(epochs=epochs, share=share), name="mine").with_flags(REQUIRED)
        for epochs, share in [(50, 0.1), (8, 0.0), (2, 0.5)]
    }
    assert {key: default_grace_period(space) for key, space in spaces.items()} == {
        (50, 0.1): 5,
        (8, 0.0): 3,
        (2, 0.5): 2,
    }


@dataclass
class Told(Listener):
    """A listener that keeps the records of trials that ended."""

    ended: list[TrialRecord] = field(default_factory=list)

    @override
    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        self.ended.append(record)


@pytest.mark.parametrize("stop", ["completed", "early_stopped", None])
def test_a_trial_that_ends_by_itself_is_never_pruned(tmp_path: Path, stop: str | None) -> None:
    """The poorest of all, at the last rung: its own word counts, which Ray reads before it asks the scheduler."""
    study = _study(tmp_path)
    told = Told()
    watcher = _Watcher(study, [told], LastEpochs(), storage=tmp_path)
    asked = study.ask()
    trial = SimpleNamespace(
        trial_id="0",
        config={"trial": SimpleNamespace(number=asked.number, is_spared=asked.is_spared)},
        run_metadata=SimpleNamespace(num_failures=0),
        last_result=None,
    )
    watcher.on_trial_start(trial=trial)
    for epoch in (1, 2, 3):
        last = epoch == 3
        result = {EPOCH: epoch, METRIC: 0.1, "run_seconds": 1.0, "stop": stop if last else None, "done": last}
        trial.last_result = result
        watcher.on_trial_result(trial=trial, result=result)
    watcher.on_trial_complete(trial=trial)
    assert [record.state for record in told.ended] == [stop or "pruned"]
    assert told.ended[0].curve == (0.1, 0.1, 0.1)


def test_the_last_epoch_is_no_reason_to_stop_a_trial() -> None:
    """Ray's own ASHA would stop every trial at max_t, so that none ever completed."""
    judge = scheduler(most_epochs=9)
    assert judged(judge, "good", [0.9] * 9) is None


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_not_a_number_neither_stops_nor_blinds_the_others() -> None:
    judge = scheduler()
    for number in range(3):
        judged(judge, f"diverged {number}", [math.nan])
    assert judged(judge, "with nothing to compare with", [0.5]) is None
    for number in range(2):
        judged(judge, f"good {number}", [0.9] * 9)
    assert judged(judge, "poor", [0.1] * 9) == 1


def test_asha_leaves_about_one_in_three_at_each_rung() -> None:
    judge, numbers = scheduler(), random.Random(0)
    stopped = [judged(judge, str(number), [numbers.random()] * 9) for number in range(600)]
    beyond_first = sum(epoch != 1 for epoch in stopped)
    beyond_second = sum(epoch not in (1, 3) for epoch in stopped)
    assert 0.28 < beyond_first / 600 < 0.40
    assert 0.28 < beyond_second / beyond_first < 0.45


def _study(folder: Path) -> Study:
    space = parse_space("search:\n  learningRate: {low: 1e-4, high: 1e-1}\n", name="mine").with_flags(REQUIRED)
    return Study(
        folder / "study.journal",
        space,
        name="mine",
        sampler_after=lambda _: build_sampler("random", seed=0, concurrency=1),
    )
