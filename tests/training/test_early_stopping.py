"""Scripted curves of the validation loss."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_smp.training.early_stopping import EarlyStopping


def epochs_until_stop(losses: list[float], *, patience: int, min_delta: float = 0.0) -> int | None:
    stopping = EarlyStopping(patience, min_delta)
    return next((epoch for epoch, loss in enumerate(losses, start=1) if stopping.update(loss)), None)


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "expected"),
    [
        ([1.0, 0.9, 0.8, 0.7], 1, 0.0, None),  # falls all the time
        ([1.0, 1.0, 1.0], 2, 0.0, 3),  # standing still is no improvement, also without min_delta
        ([1.0, 1.1, 1.2, 0.9, 1.0, 1.0], 3, 0.0, None),  # an improvement in time starts the count anew
        ([1.0, 0.95, 0.92], 2, 0.1, 3),  # falls smaller than min_delta
        ([1.0, 0.95, 0.9, 0.85, 0.8], 2, 0.1, None),  # ... that add up to it in time
        ([0.3, 0.2, 0.1], 1, 0.1, None),  # exactly min_delta counts, though 0.3 - 0.2 < 0.1 in floating point
        ([math.nan, math.nan], 2, 0.0, 2),  # never an improvement
        ([1.0, math.nan, 0.9, math.nan], 2, 0.0, None),
        ([-math.inf], 1, 0.0, 1),  # not a loss
        ([math.inf, 1.0, 0.5], 2, 0.1, None),
        ([5.0], 1, 1e9, None),  # the first loss is an improvement over nothing
    ],
)
def test_curves(losses: list[float], patience: int, min_delta: float, expected: int | None) -> None:
    assert epochs_until_stop(losses, patience=patience, min_delta=min_delta) == expected


@given(
    losses=st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=30),
    patience=st.integers(1, 5),
    cut=st.integers(0, 30),
)
def test_stored_and_loaded_goes_on_the_same(losses: list[float], patience: int, cut: int) -> None:
    straight = EarlyStopping(patience, 0.5)
    verdicts = [straight.update(loss) for loss in losses]
    first, second = EarlyStopping(patience, 0.5), EarlyStopping(patience, 0.5)
    halves = [first.update(loss) for loss in losses[:cut]]
    second.load_state_dict(first.state_dict())
    assert halves + [second.update(loss) for loss in losses[cut:]] == verdicts


@given(losses=st.lists(st.floats(0, 1), min_size=1, max_size=30), patience=st.integers(1, 5))
def test_more_patience_never_stops_earlier(losses: list[float], patience: int) -> None:
    stops = [epochs_until_stop(losses, patience=patience + more) or math.inf for more in range(3)]
    assert all(earlier <= later for earlier, later in pairwise(stops))
