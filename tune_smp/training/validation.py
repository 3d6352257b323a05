"""Validation: loss and metrics of a model on the whole validation set, in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tune_smp.choices.metrics import Metric
from tune_smp.data.labels import IGNORE
from tune_smp.training.metrics import Metrics, PixelCounts
from tune_smp.training.step import Tiles, TrainingStep

_NO_METRICS = Metrics(math.nan, math.nan, math.nan, math.nan, math.nan, class_iou=())


@dataclass(frozen=True, slots=True)
class Validation:
    """The result of one pass: ``metrics`` where a class is predicted above probability 0.5; ``thresholds``, one per
    class (none in multiclass mode), and ``best_metrics`` where it is predicted above these.

    ``metric`` is the one that the run is judged by, at the thresholds.
    """

    loss: float
    metrics: Metrics
    thresholds: tuple[float, ...]
    best_metrics: Metrics
    metric: float


NOT_VALIDATED = Validation(math.nan, _NO_METRICS, (), _NO_METRICS, math.nan)
"""The result where there was nothing to validate: the training pass diverged."""


def better(running: Validation, anew: Validation) -> Validation:
    """The one that counts, of the same weights with running statistics and with those of now: the better metric.

    Its loss, by which patience judges, is that of the running statistics throughout, as far as both are finite.
    """
    if not math.isfinite(anew.loss):
        return running
    if not math.isfinite(running.loss):
        return anew
    return replace(anew, loss=running.loss) if anew.metric > running.metric else running


@torch.inference_mode()
def validate(
    step: TrainingStep,
    tiles_at_once: Iterable[Tiles],
    counts: PixelCounts,
    metric: Metric,
    thresholds: Sequence[float] | None = None,
    *,
    batch_size: int,
) -> Validation:
    """Validate the model of a step, by its loss. ``counts`` are filled.

    ``thresholds``: those of each class, where they are not to be the best ones.
    The loss is that of batches of ``batch_size`` tiles, in the mean over the pixels (see ``losses`` about batches),
    however many tiles there are at once; the metrics are those of all pixels together.
    """
    device = counts.counts.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    pixels = torch.zeros((), dtype=torch.int64, device=device)
    for tiles in tiles_at_once:
        for batch, logits in with_logits(step, tiles, batch_size):
            batch_pixels = _valid_pixels(batch)
            total += step.loss(logits, batch.masks, has_ignored=batch.has_ignored) * batch_pixels
            pixels += batch_pixels
            counts.add_logits(logits, batch.masks)
    chosen = counts.best_thresholds(metric) if thresholds is None else tuple(thresholds)
    best = counts.metrics(chosen)
    mean_loss = (total / pixels.clamp_min(1)).item()
    return Validation(mean_loss, counts.metrics(), chosen, best, getattr(best, metric.key))


def with_logits(step: TrainingStep, tiles: Tiles, batch_size: int) -> Iterator[tuple[Tiles, Tensor]]:
    """The tiles in batches of this size, each with its logits (N, K, T, T), float32."""
    for batch, logits in zip(tiles.pieces(batch_size), step.forward_batches(tiles.images, batch_size), strict=True):
        yield batch, logits.float()


def _valid_pixels(tiles: Tiles) -> Tensor | int:
    """Mask pixels that are not ignored."""
    return (tiles.masks != IGNORE).sum() if tiles.has_ignored else tiles.masks.numel()
