"""Validation: loss and metrics of a model on the whole validation set, in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tune_smp.choices.metrics import Metric
from tune_smp.data.labels import IGNORE
from tune_smp.training.losses import SegmentationLoss
from tune_smp.training.memory import is_out_of_memory
from tune_smp.training.metrics import Metrics, PixelCounts
from tune_smp.training.step import Tiles

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
    forward: Callable[[Tensor], Tensor],
    loss: SegmentationLoss,
    tiles_at_once: Iterable[Tiles],
    counts: PixelCounts,
    metric: Metric,
    thresholds: Sequence[float] | None = None,
    *,
    batch_size: int,
) -> Validation:
    """Validate what ``forward`` makes of images (N, C, T, T): logits (N, K, T, T). ``counts`` are filled.

    ``thresholds``: those of each class, where they are not to be the best ones.
    The loss is that of batches of ``batch_size`` tiles, in the mean over the pixels (see ``losses`` about batches),
    however many tiles there are at once; the metrics are those of all pixels together.
    """
    device = counts.counts.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    pixels = torch.zeros((), dtype=torch.int64, device=device)
    for tiles in tiles_at_once:
        logits = forward_in_memory(forward, tiles.images, batch_size).float()
        for batch, batch_logits in zip(tiles.pieces(batch_size), torch.split(logits, batch_size), strict=True):
            batch_pixels = _valid_pixels(batch)
            total += loss(batch_logits, batch.masks, has_ignored=batch.has_ignored) * batch_pixels
            pixels += batch_pixels
        counts.add_logits(logits, tiles.masks)
    chosen = counts.best_thresholds(metric) if thresholds is None else tuple(thresholds)
    best = counts.metrics(chosen)
    mean_loss = (total / pixels.clamp_min(1)).item()
    return Validation(mean_loss, counts.metrics(), chosen, best, getattr(best, metric.key))


def forward_in_memory(forward: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    """The logits of all images at once; where memory runs out, of a batch at a time."""
    try:
        return forward(images)
    except (MemoryError, RuntimeError) as error:
        if len(images) <= batch_size or not is_out_of_memory(error):
            raise
    return torch.cat([forward(part) for part in torch.split(images, batch_size)])


def _valid_pixels(tiles: Tiles) -> Tensor | int:
    """Mask pixels that are not ignored."""
    return (tiles.masks != IGNORE).sum() if tiles.has_ignored else tiles.masks.numel()
