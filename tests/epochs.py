"""What a trial reports after an epoch, whole, as listeners hear it."""

from __future__ import annotations

from typing import Any

from tune_smp.tuning.listeners import EpochResult


def epoch_result(trial_epoch: int = 1, metric: float = 0.5, **more: Any) -> EpochResult:
    """The result of an epoch of a run without an earlier one; ``more`` has fields that matter to the test."""
    result: EpochResult = {
        "epoch": trial_epoch,
        "train_loss": 0.4,
        "val_loss": 0.4,
        "val_iou": metric,
        "val_fscore": metric,
        "val_accuracy": metric,
        "val_recall": metric,
        "val_precision": metric,
        "learning_rate": 1e-3,
        "seconds": 2.0,
        "metric": metric,
        "thresholds": (0.5,),
        "best_metric": metric,
        "best_epoch": trial_epoch,
        "stop": None,
        "class_iou": (metric,),
        "batch_size": 8,
        "epochs_before": 0,
        "trial_epoch": trial_epoch,
        "run_seconds": 2.0 * trial_epoch,
        "notes": (),
        "used": {
            "batchSize": 8,
            "stepsPerEpoch": 10,
            "tileSize": 64,
            "learningRate": 1e-3,
            "weightDecay": 0.0,
            "device": "cpu",
            "precision": "float32",
            "threads": 1,
        },
        "done": False,
    }
    return {**result, **more}  # type: ignore[typeddict-item]
