"""How sure one is that a model is better than another on the same images."""

from __future__ import annotations

import numpy as np
import pytest

from tune_smp.choices.metrics import METRICS
from tune_smp.training.paired_gain import ImageCounts, paired_gain

IOU = METRICS["IoU"]


def images(hits: list[int], size: int = 100) -> ImageCounts:
    """Binary images with so many of ``size`` foreground pixels found, and nothing found that is not there."""
    return [[[found, 0, size - found, 900]] for found in hits]


def test_the_mean_is_that_of_whole_validation_sets() -> None:
    """Counts are added up before they are divided: a large image weighs more."""
    ours = [[[[90, 0, 10, 0]], [[0, 0, 900, 0]]]]
    theirs = [[[[50, 0, 50, 0]], [[0, 0, 900, 0]]]]
    assert paired_gain(ours, theirs, IOU, "binary").mean == pytest.approx(0.09 - 0.05)


def test_the_same_gain_everywhere_is_sure_and_chance_is_not() -> None:
    sure = paired_gain([images([60] * 12)], [images([50] * 12)], IOU, "binary")
    assert sure.low == pytest.approx(0.1) == sure.high
    random = np.random.default_rng(3)
    a, b = (random.integers(30, 90, 12).tolist() for _ in range(2))
    chance = paired_gain([images(a)], [images(b)], IOU, "binary")
    assert chance.low is not None
    assert chance.high is not None
    assert chance.low < 0 < chance.high
    assert chance.low < chance.mean < chance.high


def test_seeds_that_disagree_widen_the_interval() -> None:
    agreeing = paired_gain([images([60] * 9)] * 2, [images([50] * 9)] * 2, IOU, "binary")
    disagreeing = paired_gain([images([80] * 9), images([40] * 9)], [images([50] * 9)] * 2, IOU, "binary")
    assert agreeing.mean == pytest.approx(disagreeing.mean) == pytest.approx(0.1)
    assert disagreeing.low is not None
    assert agreeing.low is not None
    assert disagreeing.low < 0 < agreeing.low


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 60 drawings from one distribution, in which ours finds 5 pixels more of each image in the mean."""
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(60):
        base = random.integers(30, 60, 25)
        found = paired_gain(
            [images((base + random.integers(0, 11, 25)).tolist())], [images(base.tolist())], IOU, "binary"
        )
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 0.05 <= found.high
    assert inside >= 52


def test_one_image_and_one_round_leave_no_interval() -> None:
    found = paired_gain([images([60])], [images([50])], IOU, "binary")
    assert found.low is found.high is None
    assert found.mean == pytest.approx(0.1)


def test_other_images_are_no_pair() -> None:
    with pytest.raises(ValueError, match="same images"):
        paired_gain([images([60, 50])], [images([50])], IOU, "binary")
