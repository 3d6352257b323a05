"""Metrics from sums: counts are added up over the whole validation set and divided once.

How the validation set is cut into batches can therefore not change a score, and pixels that are ignored do not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from tune_smp.data.labels import Mode

COUNTS_PER_CLASS = 4  # tp, fp, fn, tn


@dataclass(frozen=True, slots=True)
class Metrics:
    """Every metric, in [0, 1]; ``class_iou`` has one value per class, None for a class that does not occur."""

    iou: float
    fscore: float
    accuracy: float
    recall: float
    precision: float
    class_iou: tuple[float | None, ...]


def count_pixels(logits: Tensor, masks: Tensor, mode: Mode) -> Tensor:
    """True and false positives and negatives of one batch: (K, 4) int64 of tp, fp, fn, tn, on the device of ``logits``.

    ``logits`` (N, K, H, W); ``masks`` (N, 1 or K, H, W) uint8 with 255 = ignored. Binary and multilabel predict
    foreground above probability 0.5, that is above logit 0; multiclass predicts the class of the highest logit. On a
    GPU, ``bincount`` waits for the device once per call.
    """
    if mode == "multiclass":
        return _one_against_rest(_confusion(logits.argmax(dim=1, keepdim=True), masks, logits.shape[1]))
    foreground = logits > 0
    tables = [_confusion(foreground[:, k : k + 1], masks[:, k : k + 1], 2) for k in range(logits.shape[1])]
    # Of the table [[tn, fp], [fn, tp]].
    return torch.stack([table.flatten()[[3, 1, 2, 0]] for table in tables])


def _confusion(predictions: Tensor, masks: Tensor, classes: int) -> Tensor:
    """(classes, classes) int64: pixels of true class (row) predicted as (column)."""
    # One number per pixel; ignored pixels (255) land in bins behind the table, which are cut off.
    pixels = masks.int().mul_(classes).add_(predictions)
    counts = torch.bincount(pixels.flatten(), minlength=256 * classes)
    return counts[: classes * classes].view(classes, classes)


def _one_against_rest(confusion: Tensor) -> Tensor:
    tp = confusion.diagonal()
    fp = confusion.sum(dim=0) - tp
    fn = confusion.sum(dim=1) - tp
    return torch.stack([tp, fp, fn, confusion.sum() - tp - fp - fn], dim=1)


def metrics_from_counts(counts: Sequence[Sequence[int]], mode: Mode) -> Metrics:
    """Metrics of summed counts, one row (tp, fp, fn, tn) per class; binary has the row of the foreground only.

    Per class: IoU = tp / (tp + fp + fn), Fscore = 2 tp / (2 tp + fp + fn), Recall = tp / (tp + fn),
    Precision = tp / (tp + fp); a quotient 0/0 of a class that occurs is 0. Over classes: their plain mean over those
    that occur in labels or predictions (macro average), and 1 where none does: nothing to find, nothing found.
    Accuracy is the share of pixels (multilabel: of label bits) that are right, and 1 where there are none.
    """
    occurring = [(tp, fp, fn) for tp, fp, fn, _ in counts if tp + fp + fn > 0]
    class_iou = tuple(tp / (tp + fp + fn) if tp + fp + fn > 0 else None for tp, fp, fn, _ in counts)
    return Metrics(
        iou=_mean([value for value in class_iou if value is not None]),
        fscore=_mean([2 * tp / (2 * tp + fp + fn) for tp, fp, fn in occurring]),
        accuracy=_accuracy(counts, mode),
        recall=_mean([tp / (tp + fn) if tp + fn else 0.0 for tp, _, fn in occurring]),
        precision=_mean([tp / (tp + fp) if tp + fp else 0.0 for tp, fp, _ in occurring]),
        class_iou=class_iou,
    )


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 1.0


def _accuracy(counts: Sequence[Sequence[int]], mode: Mode) -> float:
    if mode == "multiclass":
        # Each pixel is in one class, and every class's four counts add up to all pixels.
        right, everything = sum(tp for tp, *_ in counts), sum(counts[0])
    else:
        right, everything = sum(tp + tn for tp, _, _, tn in counts), sum(map(sum, counts))
    return right / everything if everything else 1.0
