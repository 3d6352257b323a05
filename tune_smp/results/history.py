"""history.csv: one row per epoch, written as each epoch ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tune_smp.results.folder import read_csv, write_csv
from tune_smp.training.run_state import EpochReport

COLUMNS = (
    "epoch",
    "train_loss",
    "val_loss",
    "val_iou",
    "val_fscore",
    "val_accuracy",
    "val_recall",
    "val_precision",
    "learning_rate",
    "seconds",
    "val_metric",
    "thresholds",
)


class History:
    """The rows of one run, in the order of their epochs, on disk after every ``add``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = [dict(row) for row in read_csv(path)]

    def add(self, report: EpochReport) -> None:
        """Append what an epoch reported.

        An epoch that is run again after a crash takes the place of the lost one, and of all that came after it.
        """
        epoch = report["epoch"]
        self.rows = [earlier for earlier in self.rows if int(earlier["epoch"]) < epoch]
        self.rows.append(row_of(report))
        write_csv(self.path, self.rows, columns=COLUMNS)  # earlier versions had fewer


def row_of(report: EpochReport) -> dict[str, Any]:
    """The values of an epoch by column."""
    thresholds = " ".join(f"{threshold:g}" for threshold in report["thresholds"])
    values = {**report, "val_metric": report["metric"], "thresholds": thresholds}
    return {column: values[column] for column in COLUMNS}
