"""Predict: a label image for every image of a folder."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tune_smp.workflows.printing import note, output

if TYPE_CHECKING:
    from tune_smp.inference.prediction import PredictionSummary
    from tune_smp.settings.predict import PredictSettings


def predict(settings: PredictSettings) -> PredictionSummary:
    """Write a label image for every image of a folder. Raises SettingsError, DataError, ResourceError."""
    from tune_smp.inference.prediction import predict_folder  # noqa: PLC0415  imports torch

    started = time.monotonic()
    summary = predict_folder(settings, on_image=output.print)
    note(summary.notes)
    output.print(
        f"{len(summary.outputs)} label images in {settings.output_dir} after {time.monotonic() - started:.1f} s"
    )
    return summary
