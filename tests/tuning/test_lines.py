"""The lines that a person reads while trials run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning.records import EPOCH, FLAGS, record
from tune_smp.tuning.lines import (
    best_text,
    counts_line,
    epoch_line,
    epochs_line,
    flags_text,
    left_text,
    seconds_left,
    spark,
    trial_line,
)
from tune_smp.tuning.trial_record import TrialRecord

NAN = float("nan")
SECONDS = st.floats(0, 1e6)


def test_a_trial_is_one_line() -> None:
    line = trial_line(record(7, "pruned", 0.5, 0.6, 0.7012), metric_name="IoU", standing="best 0.8123 (trial 4)")
    assert line == (
        "trial 7 pruned after 3 epochs  IoU 0.7012  best 0.8123 (trial 4)  FPN ResNet,resnet18,random Adam lr 3.1e-03"
    )


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        (record(1, "early_stopped", 0.5, flags={}), "trial 1 stopped early after 1 epoch  IoU 0.5000"),
        (record(2, "diverged", NAN, flags={}), "trial 2 diverged after 1 epoch  IoU nan"),
        (record(3, "interrupted", flags={}), "trial 3 interrupted before its first epoch ended"),
        (
            record(4, "failed", flags={}, reason="no memory\n  on the GPU"),
            "trial 4 failed before its first epoch ended: no memory on the GPU",
        ),
    ],
)
def test_the_state_says_how_a_trial_ended(ended: TrialRecord, line: str) -> None:
    assert trial_line(ended, metric_name="IoU") == line


def test_a_long_reason_is_cut() -> None:
    line = trial_line(record(4, "failed", flags={}, reason="x" * 1000), metric_name="IoU")
    assert line.endswith("xxx...")
    assert len(line) < 220


@pytest.mark.parametrize(
    ("flags", "short", "text"),
    [
        (FLAGS, False, "FPN ResNet,resnet18,random Adam lr 3.1e-03"),
        (FLAGS, True, "FPN resnet18,random Adam lr 3.1e-03"),
        ({"momentum": 0.912345, "batchSize": 8}, False, "batchSize 8 momentum 0.912"),
        ({"tileSize": 64, "lossName": "DiceLoss", "learningRate": 0.1}, False, "lr 1.0e-01 DiceLoss tileSize 64"),
        ({"encoderBaseVariantWeights": "odd", "learningRate": "odd"}, True, "odd odd"),
        ({}, False, ""),
    ],
)
def test_flags_are_few_and_short(flags: dict[str, Any], short: bool, text: str) -> None:
    assert flags_text(flags, short=short) == text


@pytest.mark.parametrize(
    ("found", "default", "text"),
    [
        (record(4, "completed", 0.8123), 0.7812, "best 0.8123 (trial 4, +0.0311 over the default)"),
        (record(0, "completed", 0.8123), 0.8123, "best 0.8123 (trial 0, the default)"),
        (record(4, "completed", 0.8123), None, "best 0.8123 (trial 4)"),
        (record(4, "completed", 0.8123), NAN, "best 0.8123 (trial 4)"),
        (None, 0.5, ""),
    ],
)
def test_the_best_says_by_how_much_it_beats_the_default(
    found: TrialRecord | None, default: float | None, text: str
) -> None:
    assert best_text(found, default=default) == text


def test_trials_are_counted_by_state() -> None:
    ended = [record(0), record(1, "pruned"), record(2), record(3, "early_stopped"), record(4, "failed")]
    assert counts_line(ended, running=2, num_trials=10) == (
        "5 of 10 trials ended (2 completed, 1 stopped early, 1 pruned, 1 failed), 2 running, 3 to go"
    )
    assert counts_line([], running=0, num_trials=1) == "0 of 1 trial ended, 1 to go"
    assert counts_line([record(0)], running=0, num_trials=1) == "1 of 1 trial ended (1 completed)"


def test_only_stopping_saves_epochs() -> None:
    records = [
        record(0, "pruned", 0.1, max_epochs=8),
        record(1, "early_stopped", 0.1, 0.2, max_epochs=8),
        record(2, "failed", 0.1, max_epochs=8),
        record(3, "running", 0.1, max_epochs=8),
    ]
    assert epochs_line(records) == "5 epochs, 13 saved by pruning and early stopping"
    assert epochs_line(records[2:3]) == "1 epoch"


@pytest.mark.parametrize(
    ("took", "ages", "to_go", "mean_running", "seconds"),
    [
        ([10.0], [], 5, 1.0, None),
        ([10.0, NAN], [], 5, 1.0, None),
        ([10.0, 30.0], [], 4, 2.0, 40.0),
        ([10.0, 30.0], [5.0, 15.0], 4, 2.0, 50.0),
        ([10.0, 30.0], [], 1, 8.0, 20.0),
        ([10.0, 30.0], [5.0], 0, 8.0, 15.0),
        ([10.0, 30.0], [25.0], 0, 1.0, None),
        ([10.0, 30.0], [], 2, 0.0, 40.0),
        ([10.0, 30.0], [], 0, 1.0, None),
    ],
)
def test_the_time_left(
    took: list[float], ages: list[float], to_go: int, mean_running: float, seconds: float | None
) -> None:
    assert seconds_left(took, ages, to_go=to_go, mean_running=mean_running) == seconds


@given(st.lists(SECONDS, min_size=2, max_size=9), st.lists(SECONDS, max_size=9), st.integers(0, 50), st.floats(1, 64))
def test_the_time_left_is_between_one_after_the_other_and_all_at_once(
    took: list[float], ages: list[float], to_go: int, mean_running: float
) -> None:
    left = seconds_left(took, ages, to_go=to_go, mean_running=mean_running)
    mean = math.fsum(took) / len(took)
    one_by_one = mean * (to_go + len(ages))
    if left is None:
        assert mean == 0 or to_go == 0
    else:
        assert left <= one_by_one * (1 + 1e-9)
        assert left >= (mean * (1 - 1e-9) if to_go else 0)


def test_the_time_left_is_no_more_than_the_budget() -> None:
    assert left_text(1500, budget=None) == "about 25 min left"
    assert left_text(1500, budget=2000) == "about 25 min left"
    assert left_text(1500, budget=300) == "about 5 min left of the time budget"
    assert left_text(1500, budget=-3) == "about 0 s left of the time budget"
    assert left_text(None, budget=300) == ""


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([], ""),
        ([0.5], "▁"),
        ([0.5, 0.5], "▁▁"),
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([NAN, 0.0, 1.0], " ▁█"),
        ([NAN, math.inf], "  "),
        (list(range(16)), "▁▂▃▄▅▆▇█"),
        ([0.0, 2.2250738585072014e-308], "▁█"),
    ],
)
def test_a_curve_is_a_few_letters(values: Sequence[float], text: str) -> None:
    assert spark(values) == text


@given(st.lists(st.floats(-1, 2) | st.just(NAN), max_size=300), st.integers(1, 20))
def test_a_curve_ends_with_the_newest_value(values: list[float], width: int) -> None:
    text = spark(values, width=width)
    assert len(text) == min(width, len(values))
    if values:
        assert (text[-1] == " ") == math.isnan(values[-1])


def test_an_epoch_is_one_line() -> None:
    line = epoch_line(EPOCH, metric_name="IoU", last_epoch=14)
    assert line == ("epoch 7/14  train_loss 0.4123  val_loss 0.3900  IoU 0.7126  best 0.7200 @ 6  lr 9.1e-04  12.3 s")
