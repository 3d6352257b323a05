"""How long a refit is, from the runs that it repeats; real states of tiny runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.tuning.records import record
from tune_smp.data.labels import Mode
from tune_smp.data.split import Region, all_for_training
from tune_smp.data.store.image_store import ImageStore
from tune_smp.results.model_card import Proved
from tune_smp.settings.run import RunSettings
from tune_smp.training.run import TrainingRun
from tune_smp.training.run_state import RunState
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.workflows.refit import has_time, refit_settings, refit_thresholds
from tune_smp.workflows.task import Proof

MakeSettings = Callable[..., RunSettings]
MakeStore = Callable[[Mode], ImageStore]
Regions = tuple[Region, ...]
MakeProof = Callable[..., Proof]


@pytest.fixture(scope="module")
def state(make_settings: MakeSettings, make_store: MakeStore) -> RunState:
    """The state of a run of one epoch of three steps."""
    whole = [Region(pair, 0, 80, 0, 100, "train" if pair < 6 else "validation") for pair in range(8)]
    run = TrainingRun(make_settings(max_epochs=1, steps_per_epoch=3), make_store("binary"), whole)
    run.run_epoch()
    return run.state_dict()


@pytest.fixture
def proof(make_settings: MakeSettings, state: RunState) -> MakeProof:
    """What so many runs proved, best at these epochs of ten, which took a second each."""

    def make(*best_epochs: int, left: float | None = None, **flags: Any) -> Proof:
        def ran(number: int, best_epoch: int) -> TrialRecord:
            return record(
                number, "completed", *[0.1 * epoch for epoch in range(10)], best_epoch=best_epoch, seconds=10.0
            )

        records = [ran(number, best) for number, best in enumerate(best_epochs)]
        return Proof(make_settings(**flags), state, records, Proved(0.7, len(records), (0.8,)), seconds=left)

    return make


def test_as_many_steps_as_the_runs_were_best_at_in_the_mean(proof: MakeProof) -> None:
    settings = refit_settings(proof(4, 7, max_epochs=10, patience=3, refit=True))
    assert (settings.max_epochs, settings.steps_per_epoch, settings.batch_size) == (6, 3, 4)
    assert settings.patience == 6, "what it would stop by has been seen in training"
    assert not settings.refit


def test_a_run_with_a_time_gets_the_same_share_of_it(proof: MakeProof) -> None:
    settings = refit_settings(proof(4, 6, time_budget="100s", steps_per_epoch=None))
    assert settings.time_budget_s == pytest.approx(50.0)
    assert settings.resolved_patience >= settings.most_epochs


@pytest.mark.parametrize("left", [1000.0, 70.0])
def test_runs_that_were_still_rising_have_all_the_time_that_is_left(proof: MakeProof, left: float) -> None:
    settings = refit_settings(proof(9, 10, left=left, time_budget="100s"))
    assert settings.time_budget_s == pytest.approx(left)


def test_runs_that_had_enough_do_not(proof: MakeProof) -> None:
    assert refit_settings(proof(5, 5, left=1000.0, time_budget="100s")).time_budget_s == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("best_epochs", "left", "budget", "threshold"),
    [
        pytest.param((9, 10), 1000.0, "100s", 0.4, id="more time than the runs had"),
        pytest.param((9, 10), 70.0, "100s", 0.8, id="less"),
        pytest.param((5, 5), 1000.0, "100s", 0.8, id="the share that they used"),
        pytest.param((9, 10), None, None, 0.8, id="as many epochs"),
    ],
)
def test_its_own_thresholds_are_taken_where_it_trained_for_longer(
    proof: MakeProof, best_epochs: tuple[int, ...], left: float | None, budget: str | None, threshold: float
) -> None:
    proved = proof(*best_epochs, left=left, time_budget=budget)
    assert refit_thresholds(proved, refit_settings(proved), [0.4]) == (threshold,)


def test_where_the_time_is_short_epochs_become_a_time(proof: MakeProof) -> None:
    one = proof(10, max_epochs=10)
    needed = 10 * one.state["history"][0]["seconds"]
    assert refit_settings(proof(10, left=2 * needed, max_epochs=10)).time_budget is None
    short = refit_settings(proof(10, left=0.5 * needed, max_epochs=10))
    assert (short.time_budget_s, short.steps_per_epoch) == (max(1, round(0.5 * needed)), None)


def test_without_half_of_the_time_there_is_none(proof: MakeProof) -> None:
    assert has_time(proof(10)), "no limit"
    assert has_time(proof(10, left=5.0))
    assert not has_time(proof(10, left=4.9))
    assert has_time(proof(4, left=2.0)), "its best epoch came early"


def test_all_images_train_and_those_that_validated_still_do(regions: Regions) -> None:
    together = all_for_training(regions)
    assert {region.pair for region in together if region.subset == "train"} == set(range(8))
    assert [region for region in together if region.subset == "validation"] == [
        region for region in regions if region.subset == "validation"
    ]
