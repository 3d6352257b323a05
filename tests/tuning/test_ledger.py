"""The ledger of a single run: what it answers, anew and from a checkpoint."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.epochs import epoch_result
from tune_smp.settings.run import RunSettings
from tune_smp.tuning.ledger import SingleTrial


def settings(**flags: str) -> RunSettings:
    folders = dict.fromkeys(("imagesDir", "labelsDir", "outputDir"), "/data")
    patterns = dict.fromkeys(("imagesPattern", "labelsPattern"), ".*")
    return RunSettings.from_flags({**folders, **patterns, "segmentationMode": "binary", "maxEpochs": 5, **flags})


def state(*metrics: float, stop: str | None = None, epochs_before: int = 0) -> Any:
    history = [
        epoch_result(number, metric, epoch=epochs_before + number) for number, metric in enumerate(metrics, start=1)
    ]
    return {"history": history, "stop": stop, "epochs_before": epochs_before, "epoch": epochs_before + len(metrics)}


def test_a_new_run_is_one_trial_that_ends_once() -> None:
    ledger = SingleTrial(settings())
    assert (ledger.ended(), ledger.running(), ledger.record(0).state) == (0, 0, "interrupted")
    asked = ledger.ask()
    assert (asked.number, asked.flags, asked.curve, asked.settings) == (0, {}, (), settings())
    assert (ledger.ended(), ledger.running(), ledger.record(0).state) == (0, 1, "running")
    assert [ledger.report(0, epoch, best) for epoch, best in [(1, 0.2), (2, 0.5), (2, 0.5)]] == [True, True, False]
    assert not ledger.report(0, 3, math.nan)
    told = ledger.tell(0, "early_stopped", seconds=3.0)
    assert (told.state, told.curve, told.best_epoch, told.epochs_saved) == ("early_stopped", (0.2, 0.5), 2, 3)
    assert (ledger.ended(), ledger.running(), ledger.records()) == (1, 0, [told])


def test_an_interrupted_run_waits_for_a_later_session() -> None:
    ledger = SingleTrial(settings())
    ledger.ask()
    ledger.interrupted(0, seconds=1.5)
    ledger.requeue()
    record = ledger.record(0)
    assert (record.state, record.seconds, ledger.ended(), ledger.running()) == ("interrupted", 1.5, 0, 0)


@pytest.mark.parametrize("epochs_before", [0, 7])
def test_a_checkpoint_is_its_memory(epochs_before: int) -> None:
    stored = state(0.3, 0.1, math.nan, 0.4, epochs_before=epochs_before)
    ledger = SingleTrial(settings(), stored)
    assert ledger.ask().curve == (0.3, 0.3, 0.3, 0.4)
    assert not ledger.report(0, 4, 0.4), "no news"
    assert ledger.report(0, 5, 0.4)


@pytest.mark.parametrize(
    ("stop", "reason"), [("completed", ""), ("early_stopped", ""), ("diverged", "the loss was not finite in epoch 2")]
)
def test_what_has_ended_is_not_asked_for_again(stop: str, reason: str) -> None:
    ledger = SingleTrial(settings(), state(0.3, math.nan, stop=stop, epochs_before=4))
    assert (ledger.ended(), ledger.record(0).state, ledger.record(0).reason) == (1, stop, reason)
