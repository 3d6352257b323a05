"""Metrics against brute force over single pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tune_smp.choices.metrics import METRICS
from tune_smp.data.labels import IGNORE, Mode
from tune_smp.training.metrics import BINS, PixelCounts, metrics_from_counts

MODES: tuple[Mode, ...] = ("binary", "multilabel", "multiclass")


def brute_force(logits: NDArray[Any], masks: NDArray[Any], mode: Mode) -> list[tuple[int, int, int, int]]:
    """Pixel by pixel."""
    classes = logits.shape[1]
    counts = np.zeros((classes, 4), dtype=int)
    for n, y, x in np.ndindex(logits.shape[0], *logits.shape[2:]):
        for k in range(classes):
            mask = masks[n, k if mode == "multilabel" else 0, y, x]
            if mask == IGNORE:
                continue
            is_class = mask == k if mode == "multiclass" else mask == 1
            predicted = logits[n, :, y, x].argmax() == k if mode == "multiclass" else logits[n, k, y, x] > 0
            counts[
                k, {(True, True): 0, (False, True): 1, (True, False): 2, (False, False): 3}[is_class, predicted]
            ] += 1
    return [(int(tp), int(fp), int(fn), int(tn)) for tp, fp, fn, tn in counts]


def example(mode: Mode, seed: int, *, classes: int = 3, tiles: int = 4) -> tuple[NDArray[Any], NDArray[Any]]:
    """Random logits and masks, a fifth of the pixels ignored."""
    rng = np.random.default_rng(seed)
    outputs = 1 if mode == "binary" else classes
    logits = rng.normal(size=(tiles, outputs, 5, 7)).astype(np.float32)
    channels = classes if mode == "multilabel" else 1
    masks = rng.integers(0, classes if mode == "multiclass" else 2, (tiles, channels, 5, 7)).astype(np.uint8)
    masks[rng.random(masks.shape) < 0.2] = IGNORE
    return logits, masks


def counted(logits: NDArray[Any], masks: NDArray[Any], mode: Mode) -> torch.Tensor:
    return torch.tensor(counts_of(logits, masks, mode).at())


def counts_of(logits: NDArray[Any], masks: NDArray[Any], mode: Mode) -> PixelCounts:
    counts = PixelCounts(mode, logits.shape[1])
    counts.add_logits(torch.from_numpy(logits), torch.from_numpy(masks))
    return counts


@given(mode=st.sampled_from(MODES), seed=st.integers(0, 10_000), classes=st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_counts_are_those_of_single_pixels(mode: Mode, seed: int, classes: int) -> None:
    logits, masks = example(mode, seed, classes=classes)
    assert counted(logits, masks, mode).tolist() == [list(row) for row in brute_force(logits, masks, mode)]


@pytest.mark.parametrize("mode", MODES)
def test_many_classes(mode: Mode) -> None:
    logits, masks = example(mode, 0, classes=100, tiles=1)
    assert counted(logits, masks, mode).tolist() == [list(row) for row in brute_force(logits, masks, mode)]


@given(mode=st.sampled_from(MODES), seed=st.integers(0, 10_000), cuts=st.sets(st.integers(1, 5), max_size=4))
@settings(max_examples=30, deadline=None)
def test_cutting_into_batches_changes_nothing(mode: Mode, seed: int, cuts: set[int]) -> None:
    logits, masks = example(mode, seed, tiles=6)
    borders = [0, *sorted(cuts), 6]
    parts = [counted(logits[a:b], masks[a:b], mode) for a, b in pairwise(borders)]
    assert torch.equal(torch.stack(parts).sum(dim=0), counted(logits, masks, mode))


@given(mode=st.sampled_from(MODES), seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_ignored_pixels_do_not_count(mode: Mode, seed: int) -> None:
    logits, masks = example(mode, seed)
    changed = np.where(np.broadcast_to(masks == IGNORE, logits.shape), -logits, logits)
    assert torch.equal(counted(logits, masks, mode), counted(changed, masks, mode))
    everything = np.full_like(masks, IGNORE)
    assert counted(logits, everything, mode).sum() == 0


def reference(counts: Sequence[Sequence[int]], mode: Mode) -> dict[str, float]:
    """The definitions, written another way: arrays, and NaN for what does not occur."""
    tp, fp, fn, tn = np.array(counts, dtype=float).T
    occurs = tp + fp + fn > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {
            "iou": tp / (tp + fp + fn),
            "fscore": tp / (tp + (fp + fn) / 2),
            "recall": np.nan_to_num(tp / (tp + fn)),
            "precision": np.nan_to_num(tp / (tp + fp)),
        }
    means = {name: float(value[occurs].mean()) if occurs.any() else 1.0 for name, value in values.items()}
    pixels = tp + fp + fn + tn
    right = tp.sum() / pixels[0] if mode == "multiclass" else (tp + tn).sum() / pixels.sum()
    return {**means, "accuracy": float(right)}


@given(mode=st.sampled_from(MODES), seed=st.integers(0, 10_000), classes=st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_metrics_are_as_defined(mode: Mode, seed: int, classes: int) -> None:
    counts = brute_force(*example(mode, seed, classes=classes, tiles=1), mode)
    metrics = metrics_from_counts(counts, mode)
    for name, value in reference(counts, mode).items():
        assert getattr(metrics, name) == pytest.approx(value), name


def test_against_smp() -> None:
    from segmentation_models_pytorch.metrics import fbeta_score, get_stats, iou_score

    logits, masks = example("multilabel", 1)
    masks[masks == IGNORE] = 0
    stats = get_stats(torch.from_numpy(logits > 0), torch.from_numpy(masks).long(), mode="multilabel")
    summed = [part.sum(dim=0, keepdim=True) for part in stats]
    metrics = metrics_from_counts(counted(logits, masks, "multilabel").tolist(), "multilabel")
    assert metrics.iou == pytest.approx(iou_score(*summed, reduction="macro").item())
    assert metrics.fscore == pytest.approx(fbeta_score(*summed, reduction="macro").item())


def test_a_class_that_does_not_occur_is_left_out() -> None:
    # Classes 0 and 1 perfect, class 2 neither in labels nor in predictions.
    metrics = metrics_from_counts([(6, 0, 0, 4), (4, 0, 0, 6), (0, 0, 0, 10)], "multiclass")
    assert (metrics.iou, metrics.recall, metrics.precision, metrics.accuracy) == (1.0, 1.0, 1.0, 1.0)
    assert metrics.class_iou == (1.0, 1.0, None)


def test_a_class_that_is_only_predicted_counts_as_wrong() -> None:
    metrics = metrics_from_counts([(6, 0, 2, 2), (2, 0, 0, 8), (0, 2, 0, 8)], "multiclass")
    assert metrics.class_iou == (0.75, 1.0, 0.0)
    assert metrics.recall == pytest.approx((0.75 + 1.0 + 0.0) / 3)


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_find_and_nothing_found(mode: Mode) -> None:
    metrics = (
        metrics_from_counts([(0, 0, 0, 9)], mode) if mode != "multiclass" else metrics_from_counts([(0,) * 4], mode)
    )
    assert (metrics.iou, metrics.fscore, metrics.recall, metrics.precision, metrics.accuracy) == (1.0,) * 5
    assert metrics.class_iou == (None,)


@pytest.mark.parametrize("mode", MODES)
def test_images_without_an_object(mode: Mode) -> None:
    logits, masks = example(mode, 0)
    logits[:] = -1.0
    if mode == "multiclass":
        logits[:, 0] = 1.0
    masks[masks != IGNORE] = 0
    nothing_found = metrics_from_counts(counted(logits, masks, mode).tolist(), mode)
    assert nothing_found.iou == nothing_found.fscore == nothing_found.recall == nothing_found.precision == 1.0
    assert nothing_found.accuracy == 1.0
    # One pixel made up: the class that it is of now occurs, and is all wrong.
    valid = np.argwhere(masks[:, 0] != IGNORE)[0]
    logits[valid[0], -1, valid[1], valid[2]] = 2.0
    masks[valid[0], :, valid[1], valid[2]] = 0
    made_up = metrics_from_counts(counted(logits, masks, mode).tolist(), mode)
    assert made_up.class_iou[-1] == 0.0
    assert made_up.iou < 0.51
    assert made_up.accuracy < 1.0


@given(
    mode=st.sampled_from(["binary", "multilabel"]),
    seed=st.integers(0, 10_000),
    metric=st.sampled_from(["IoU", "Fscore", "Accuracy"]),
)
@settings(max_examples=40, deadline=None)
def test_no_threshold_is_better_than_the_best(mode: Mode, seed: int, metric: str) -> None:
    logits, masks = example(mode, seed)
    counts = counts_of(logits, masks, mode)
    best = counts.best_thresholds(METRICS[metric])
    key = METRICS[metric].key
    for k, threshold in enumerate(best):
        assert 0 < threshold < 1
        probabilities = 1 / (1 + np.exp(-logits[:, k : k + 1].astype(np.float64)))
        rows = {
            t: brute_force(probabilities - t, masks[:, k : k + 1], "binary")
            for t in (threshold, *np.arange(1, BINS, 16) / BINS)
        }
        found = {t: getattr(metrics_from_counts(row, "binary"), key) for t, row in rows.items()}
        assert found[threshold] >= max(found.values()) - 1e-9
        assert counts.at(best)[k] == list(rows[threshold][0])


def test_the_threshold_of_a_model_that_says_too_little() -> None:
    logits = torch.tensor([-3.0, -2.0, -1.0, -0.5]).view(1, 1, 2, 2)
    masks = torch.tensor([0, 0, 1, 1], dtype=torch.uint8).view(1, 1, 2, 2)
    counts = PixelCounts("binary", 1)
    counts.add_logits(logits, masks)
    (threshold,) = counts.best_thresholds(METRICS["IoU"])
    assert 1 / (1 + math.exp(2)) < threshold < 1 / (1 + math.exp(1))
    assert counts.metrics().iou == 0.0
    assert counts.metrics((threshold,)).iou == 1.0


@pytest.mark.parametrize(
    ("metric", "mode", "expected"),
    [
        ("Recall", "binary", (0.5,)),
        ("Precision", "multilabel", (0.5, 0.5, 0.5)),
        ("IoU", "multiclass", ()),
    ],
)
def test_where_there_is_no_best_threshold(metric: str, mode: Mode, expected: tuple[float, ...]) -> None:
    assert counts_of(*example(mode, 0), mode).best_thresholds(METRICS[metric]) == expected


def test_of_thresholds_that_do_as_well_the_nearest_to_a_half() -> None:
    logits = np.array([-9.0, 9.0], np.float32).reshape(1, 1, 1, 2)
    for labels in ([0, 1], [0, 0]):  # all right; nothing to find
        masks = np.array(labels, np.uint8).reshape(1, 1, 1, 2)
        assert counts_of(logits, masks, "binary").best_thresholds(METRICS["IoU"]) == (0.5,)


@pytest.mark.parametrize("mode", MODES)
def test_what_is_no_number_is_background(mode: Mode) -> None:
    logits, masks = example(mode, 0)
    as_background = logits.copy()
    logits[:, :, 0], as_background[:, :, 0] = np.nan, -9.0
    as_background[:, 0, 0] = 9.0 if mode == "multiclass" else -9.0
    assert counted(logits, masks, mode).tolist() == counted(as_background, masks, mode).tolist()


def test_of_a_threshold_between_the_bins_the_nearest_is_taken() -> None:
    counts = counts_of(*example("binary", 0), "binary")
    for threshold, nearest in ((0.3, 38), (0.001, 1), (0.999, BINS - 1)):
        assert counts.at((threshold,)) == counts.at((nearest / BINS,))


def test_everything_missed_and_everything_made_up() -> None:
    missed = metrics_from_counts([(0, 0, 5, 5)], "binary")
    made_up = metrics_from_counts([(0, 5, 0, 5)], "binary")
    for metrics in (missed, made_up):
        assert (metrics.iou, metrics.fscore, metrics.recall, metrics.precision, metrics.accuracy) == (0, 0, 0, 0, 0.5)
        assert not math.isnan(metrics.iou)
