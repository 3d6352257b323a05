"""Greedy selection with repetition, and the noise of its gain, on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tune_smp.choices.metrics import METRICS
from tune_smp.inference.ensemble_selection import FEWEST_IMAGES, Selection, gain_at_least, greedy_selection
from tune_smp.training.paired_gain import ImageCounts

TRUTH = np.random.default_rng(0).random((1, 400)) > 0.5


def agreement(mean: NDArray[np.float32]) -> float:
    return float(((mean > 0.5) == TRUTH).mean())


def noisy(seed: int, noise: float) -> NDArray[np.float32]:
    """The truth, and noise of its own."""
    random = np.random.default_rng(seed)
    return (TRUTH * 0.6 + 0.2 + random.normal(0, noise, TRUTH.shape)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.05, 2.0), min_size=1, max_size=5), st.integers(1, 6), st.integers(0, 99))
def test_never_worse_than_the_best_alone_and_never_larger_than_asked(noises: list[float], most: int, seed: int) -> None:
    members = [noisy(seed * 10 + place, noise) for place, noise in enumerate(noises)]
    chosen = greedy_selection(members, agreement, most=most)
    assert 1 <= len(chosen) <= most
    together = agreement(np.mean([members[place] for place in chosen], axis=0))
    assert together >= max(map(agreement, members))


def test_members_with_errors_of_their_own_are_better_together() -> None:
    members = [noisy(seed, 0.5) for seed in range(4)]
    chosen = greedy_selection(members, agreement, most=8)
    assert len(set(chosen)) > 1
    assert agreement(np.mean([members[place] for place in chosen], axis=0)) > max(map(agreement, members)) + 0.05


def test_a_member_may_come_twice() -> None:
    """The sure one is right but for the first place, where it needs more than a third of the doubter's doubt."""
    truth = np.array([[1, 0, 1, 0]], bool)
    sure = np.array([[0.4, 0.1, 0.6, 0.1]], np.float32)
    doubter = np.array([[0.75, 0.1, 0.35, 0.1]], np.float32)

    def right(mean: NDArray[Any]) -> float:
        return float(((mean > 0.5) == truth).mean())

    assert right((sure + doubter) / 2) == 0.75
    assert right((2 * sure + doubter) / 3) == 1.0
    assert greedy_selection([sure, doubter], right, most=2) == (0,)
    assert sorted(greedy_selection([sure, doubter], right, most=3)) == [0, 0, 1]


def test_of_equals_the_first_and_the_fewest() -> None:
    member = noisy(0, 0.3)
    assert greedy_selection([member, member.copy()], agreement, most=5) == (0,)


def images(found: Sequence[int]) -> ImageCounts:
    """Images of 1000 px of foreground, so many of which were found."""
    return [[[right, 0, 1000 - right, 0]] for right in found]


@pytest.mark.parametrize(("gains", "is_certain"), [([30] * 12, True), ([5, -4] * 6, False), ([60] + [-4] * 11, False)])
def test_a_gain_counts_when_most_resamplings_have_it(gains: list[int], is_certain: bool) -> None:
    """The last one gains in sum, but through a single image."""
    assert sum(gains) > 0
    low = gain_at_least(images([700] * 12), images([700 + gain for gain in gains]), METRICS["IoU"], "binary")
    assert (low > 0) == is_certain
    assert low <= sum(gains) / 12_000 + 1e-12


def test_images_are_resampled_in_pairs() -> None:
    """What both find hard is hard in both: it is no noise of the difference."""
    right = np.random.default_rng(1).integers(0, 990, 12)
    gain = gain_at_least(images(right.tolist()), images((right + 10).tolist()), METRICS["IoU"], "binary")
    assert gain == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("change", "wins"),
    [({}, True), ({"low": 0.0}, False), ({"images": FEWEST_IMAGES - 1}, False), ({"weights": {1: 1.0}}, False)],
)
def test_what_wins_is_an_ensemble_that_is_better_beyond_the_noise(change: dict[str, Any], wins: bool) -> None:
    found = Selection({0: 0.5, 2: 0.5}, (0.5,), metric=0.81, single=0.8, low=0.004, images=FEWEST_IMAGES, cost=2.0)
    assert replace(found, **change).wins == wins
