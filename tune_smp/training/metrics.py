"""Metrics from sums: counts are added up over the whole validation set and divided once.

How the validation set is cut into batches can therefore not change a score, and pixels that are ignored do not count.
In binary and multilabel mode the pixels are counted by their probability, so that the metrics at every threshold come
from one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tune_smp.choices.metrics import DEFAULT_THRESHOLD, Metric
from tune_smp.data.labels import Mode

# A power of two: every threshold, and the product of a probability with it, is exact in float32.
BINS = 128
_IGNORED = 256  # a mask of IGNORE = 255 is counted behind the others, and cut off


@dataclass(frozen=True, slots=True)
class Metrics:
    """Every metric, in [0, 1]; ``class_iou`` has one value per class, None for a class that does not occur."""

    iou: float
    fscore: float
    accuracy: float
    recall: float
    precision: float
    class_iou: tuple[float | None, ...]


class PixelCounts:
    """Pixels of labels and predictions, added up batch by batch.

    Multiclass predicts the class of the highest logit: the counts are a table (K, K) of true and predicted class.
    Binary and multilabel predict what is likelier than a threshold: the counts are (K, 2, BINS), the pixels of
    background and of foreground whose probability lies in (b / BINS, (b + 1) / BINS].
    """

    def __init__(self, mode: Mode, classes: int, device: torch.device | None = None) -> None:
        self.mode = mode
        shape = (classes, classes) if mode == "multiclass" else (classes, 2, BINS)
        self.counts = torch.zeros(shape, dtype=torch.int64, device=device)

    def add_logits(self, logits: Tensor, masks: Tensor) -> None:
        """Count a batch: ``logits`` (N, K, H, W); ``masks`` (N, 1 or K, H, W) uint8 with 255 = ignored.

        On a GPU, ``bincount`` waits for the device once per class.
        """
        # The likeliest class has the highest of logits and of probabilities.
        self.add_probabilities(logits if self.mode == "multiclass" else logits.float().sigmoid(), masks)

    def add_probabilities(self, probabilities: Tensor, masks: Tensor) -> None:
        """The same for ``probabilities`` (N, K, H, W)."""
        if self.mode == "multiclass":
            predicted, classes = probabilities.argmax(dim=1, keepdim=True), len(self.counts)
            self.counts += _table(masks, predicted, classes)[:classes]
            return
        # What is no number, in a run that diverges, counts as background.
        bins = (probabilities * BINS).ceil_().nan_to_num_(nan=0.0).clamp_(1, BINS).int().sub_(1)
        for k in range(len(self.counts)):
            self.counts[k] += _table(masks[:, k : k + 1], bins[:, k : k + 1], BINS)[:2]

    def metrics(self, thresholds: Sequence[float] = ()) -> Metrics:
        """The metrics where class k is predicted above ``thresholds[k]``, by default 0.5.

        Of the thresholds 1 / BINS, 2 / BINS, … the nearest is taken.
        """
        return metrics_from_counts(self.at(thresholds), self.mode)

    def at(self, thresholds: Sequence[float] = ()) -> list[list[int]]:
        """True and false positives and negatives, one row (tp, fp, fn, tn) per class."""
        counts = self.counts.cpu().numpy()
        if self.mode == "multiclass":
            tp = counts.diagonal()
            fp, fn = counts.sum(axis=0) - tp, counts.sum(axis=1) - tp
            rows: list[list[int]] = np.stack([tp, fp, fn, counts.sum() - tp - fp - fn], axis=1).tolist()
            return rows
        chosen = thresholds or [DEFAULT_THRESHOLD] * len(counts)
        places = [min(max(round(threshold * BINS), 1), BINS - 1) for threshold in chosen]
        return [_at_every_threshold(row)[:, place].tolist() for row, place in zip(counts, places, strict=True)]

    def best_thresholds(self, metric: Metric) -> tuple[float, ...]:
        """For each class the threshold at which the metric of this class is highest, of several the nearest to 0.5.

        0.5 for metrics that are highest where everything or nothing is predicted, and for classes that do not occur;
        none in multiclass mode, which has no thresholds.
        """
        if self.mode == "multiclass":
            return ()
        return tuple(_best_threshold(row, metric) for row in self.counts.cpu().numpy())


def _table(masks: Tensor, predictions: Tensor, width: int) -> Tensor:
    """(256, width) int64: valid pixels by the value of their mask (row) and their prediction (column)."""
    pixels = masks.int().mul_(width).add_(predictions)
    return torch.bincount(pixels.flatten(), minlength=_IGNORED * width).view(_IGNORED, width)


def _at_every_threshold(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(2, BINS) pixels of background and foreground by probability → (4, BINS) of tp, fp, fn, tn per threshold."""
    fp, tp = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    negatives, positives = counts.sum(axis=1)
    return np.stack([tp, fp, positives - tp, negatives - fp])


def _best_threshold(counts: NDArray[np.int64], metric: Metric) -> float:
    if not metric.has_best_threshold or not counts[1].any():
        return DEFAULT_THRESHOLD
    tp, fp, fn, tn = _at_every_threshold(counts).astype(np.float64)
    right, wrong = (tp + tn, fp + fn) if metric.key == "accuracy" else (tp, fp + fn)
    # IoU and F-score of one class rise and fall together. Not 0: there everything is predicted.
    scores = (right / (right + wrong))[1:]
    thresholds = np.arange(1, BINS) / BINS
    best = thresholds[scores >= scores.max() - 1e-12]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()])


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
