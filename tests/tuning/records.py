"""Trials as a ledger records them, and an epoch as it is reported."""

from __future__ import annotations

from typing import Any

from tests.epochs import epoch_result
from tune_smp.tuning.trial_record import TrialRecord

FLAGS = {
    "modelName": "FPN",
    "encoderBaseVariantWeights": "ResNet,resnet18,random",
    "optimizerName": "Adam",
    "learningRate": 0.0031,
    "lossName": "DiceLoss",
    "batchSize": 8,
}

EPOCH = epoch_result(
    3,
    0.7126,
    epoch=7,
    epochs_before=4,
    train_loss=0.41234,
    val_loss=0.39,
    best_metric=0.72,
    best_epoch=6,
    learning_rate=9.1e-4,
    seconds=12.34,
)


def record(number: int, state: str = "completed", *curve: float, **more: Any) -> TrialRecord:
    return TrialRecord(number, state, more.pop("flags", FLAGS), more.pop("max_epochs", 10), curve=curve, **more)
