"""What one epoch brought, as a record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """What one epoch brought.

    ``learning_rate`` is that of the epoch's last step, ``metric`` the one that the settings name; ``best_metric`` and
    ``best_epoch`` look at all epochs so far (NaN and 0: none had finite losses). ``class_iou`` has None for a class
    that occurs neither in labels nor in predictions. ``stop``: None while training goes on, else completed,
    early_stopped or diverged. After a diverged training pass nothing is validated; what was not measured is NaN.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_iou: float
    val_fscore: float
    val_accuracy: float
    val_recall: float
    val_precision: float
    learning_rate: float
    seconds: float
    metric: float
    best_metric: float
    best_epoch: int
    stop: str | None
    class_iou: tuple[float | None, ...]
    batch_size: int
