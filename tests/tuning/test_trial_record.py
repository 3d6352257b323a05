"""Which trial is the best."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_smp.tuning.trial_record import TrialRecord, best_of

STATES = ("completed", "early_stopped", "pruned", "interrupted", "running", "diverged", "failed")


def record(number: int, state: str = "completed", *curve: float) -> TrialRecord:
    return TrialRecord(number, state, {}, max_epochs=9, curve=curve)


RECORDS = st.lists(
    st.builds(
        lambda state, curve: record(0, state, *curve),
        st.sampled_from(STATES),
        st.lists(st.sampled_from([0.1, 0.5, 0.5, 0.9, math.nan, math.inf, -math.inf]), max_size=3),
    ),
    max_size=8,
)


@settings(deadline=None)
@given(RECORDS)
def test_the_best_is_the_first_of_the_highest_finite_metric_of_a_trial_without_trouble(
    found: list[TrialRecord],
) -> None:
    records = [record(number, row.state, *row.curve) for number, row in enumerate(found)]
    metrics = [
        row.curve[-1]
        for row in records
        if row.curve and math.isfinite(row.curve[-1]) and row.state not in ("diverged", "failed")
    ]
    best = best_of(list(reversed(records)))
    if not metrics:
        assert best is None
        return
    assert best is not None
    assert best.best_metric == max(metrics)
    assert not any(
        row.best_metric == best.best_metric and row.state not in ("diverged", "failed")
        for row in records[: best.number]
    )


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_a_metric_that_is_no_number_never_wins(order: list[int]) -> None:
    """NaN is neither above nor below anything: where it stands among the others must not matter."""
    records = [record(0, "completed", 0.3), record(1, "pruned", math.nan), record(2, "completed", 0.4)]
    best = best_of([records[number] for number in order])
    assert best is not None
    assert best.number == 2


def test_before_its_first_epoch_a_trial_has_nothing() -> None:
    started = record(4, "running")
    assert (started.epochs, started.best_metric, started.as_row()["best_metric"]) == (0, None, None)
    assert best_of([started]) is None
