"""Scores on images kept back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from tune_smp.training.metrics import PixelCounts
from tune_smp.training.run import TrainingRun
from tune_smp.training.validation import validate


def scores(unseen: TrainingRun, state: Mapping[str, Tensor], thresholds: Sequence[float]) -> tuple[float, ...]:
    """The metric of these weights on the images kept back, above 0.5 and above these thresholds.

    ``unseen`` is a run that validates with the images kept back.
    """
    unseen.model.load_state_dict(dict(state))
    unseen.model.eval()
    metric = unseen.settings.metric
    counts = PixelCounts(unseen.settings.segmentation_mode, unseen.shape.classes)
    tiles = unseen.feed.validation()
    validate(unseen.step, tiles, counts, metric, batch_size=unseen.batch_size)
    return rounded(*(getattr(counts.metrics(at), metric.key) for at in ((), thresholds)))


def rounded(*values: float) -> tuple[float, ...]:
    return tuple(round(value, 5) for value in values)
