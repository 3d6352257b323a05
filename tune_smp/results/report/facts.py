"""What an output folder says about its run, read so that nothing missing, half written or damaged stands in the way."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from tune_smp.choices.metrics import METRICS
from tune_smp.choices.states import may_be_best
from tune_smp.data.preprocessing import FILE_NAME as PREPROCESSING
from tune_smp.errors import DataError
from tune_smp.results.folder import RunFolder, read_csv, read_json
from tune_smp.results.leaderboard import TrialRow, number, read_trials, whole_number

Content = TypeVar("Content")

METRIC_COLUMN = "val_metric"
"""The column of histories with the metric that decides."""


@dataclass(frozen=True)
class Curve:
    """The history of one run: columns of equal length, NaN where a cell is empty or no number."""

    columns: Mapping[str, tuple[float, ...]]

    def __getitem__(self, column: str) -> tuple[float, ...]:
        """The values of one column; NaN for every epoch where there is none such."""
        return self.columns.get(column, (math.nan,) * len(self))

    def __len__(self) -> int:
        return len(self.columns["epoch"])


@dataclass(frozen=True)
class Facts:
    """Everything that the page is made of; ``unreadable`` names the files that are there and cannot be read."""

    folder: RunFolder
    settings: Mapping[str, Any]
    summary: Mapping[str, Any]
    trials: tuple[TrialRow, ...]
    curves: Mapping[int, Curve]  # of a search, by trial
    history: Curve | None  # of a train
    validation_images: int | None
    preprocessing: Mapping[str, Any]  # of the exported model
    unreadable: tuple[str, ...]

    @cached_property
    def is_search(self) -> bool:
        """Whether many runs were made here, or one."""
        command = self.settings.get("command") or self.summary.get("command")
        return command == "search" or (command != "train" and bool(self.trials))

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """Every setting, by flag."""
        return mapping(mapping(self.settings.get("settings")).get("values"))

    @cached_property
    def given(self) -> tuple[str, ...]:
        """The flags that the user set."""
        given = mapping(self.settings.get("settings")).get("given")
        return tuple(flag for flag in given if isinstance(flag, str)) if isinstance(given, list) else ()

    @cached_property
    def metric(self) -> str:
        """The metric that decided, by its user-facing name."""
        return text(self.summary.get("metric")) or text(self.values.get("metricName")) or "IoU"

    @cached_property
    def metric_column(self) -> str:
        """The column of that metric in histories: at the best thresholds, which earlier versions did not have."""
        known = [curve for curve in (self.history, *self.curves.values()) if curve is not None]
        at_half = METRICS.get(self.metric, METRICS["IoU"]).column
        return METRIC_COLUMN if any(METRIC_COLUMN in curve.columns for curve in known) else at_half

    @cached_property
    def state(self) -> str:
        """How it ended; ``unfinished`` where nothing says that it did."""
        return text(self.summary.get("state")) or "unfinished"

    @cached_property
    def best_row(self) -> TrialRow | None:
        """The trial that won a search, or is ahead in one that has not ended."""
        named = whole_number(self.summary.get("best_trial"))
        scored = [row for row in self.trials if may_be_best(row.state, row.best_metric)]
        first = max(scored, key=lambda row: (row.best_metric or 0.0, -row.number), default=None)
        return next((row for row in self.trials if row.number == named), first)

    @cached_property
    def default_row(self) -> TrialRow | None:
        """Trial 0, the default configuration."""
        return next((row for row in self.trials if row.number == 0), None)

    @cached_property
    def best(self) -> float | None:
        """The best value of the metric."""
        if (stated := number(self.summary.get("best_metric"))) is not None:
            return stated
        if self.is_search:
            return self.best_row.best_metric if self.best_row else None
        values = [value for value in self.history[self.metric_column] if not math.isnan(value)] if self.history else []
        return max(values, default=None)

    @cached_property
    def best_epoch(self) -> int | None:
        """The epoch of that value."""
        if (stated := whole_number(self.summary.get("best_epoch"))) is not None:
            return stated
        if self.is_search:
            return self.best_row.best_epoch if self.best_row else None
        if self.history is None or self.best is None:
            return None
        found = zip(self.history["epoch"], self.history[self.metric_column], strict=True)
        return next((whole_number(epoch) for epoch, value in found if value == self.best), None)

    @cached_property
    def default(self) -> float | None:
        """The best value that the default configuration reached."""
        stated = number(self.summary.get("default_metric"))
        if stated is not None or self.default_row is None:
            return stated
        return self.default_row.best_metric


def gather(folder: RunFolder) -> Facts:
    """Read what there is."""
    folder = RunFolder(folder.path.absolute())
    unreadable: list[str] = []

    def read(path: Path, reader: Callable[[Path], Content], otherwise: Content) -> Content:
        try:
            return reader(path) if path.exists() else otherwise
        except (OSError, ValueError, RecursionError, csv.Error, DataError):  # ValueError: text that is no UTF-8
            unreadable.append(str(path.relative_to(folder.path)))
            return otherwise

    nothing: tuple[TrialRow, ...] = ()
    trials = read(folder.trials_csv, lambda _: read_trials(folder), nothing)
    curves = {row.number: read(folder.trial_history(row.number), _read_curve, None) for row in trials}
    return Facts(
        folder=folder,
        settings=read(folder.settings, read_json, {}),
        summary=read(folder.summary, read_json, {}),
        trials=trials,
        curves={trial: curve for trial, curve in curves.items() if curve is not None},
        history=read(folder.history, _read_curve, None),
        validation_images=read(folder.split, _count_validation, None),
        preprocessing=read(folder.model / PREPROCESSING, read_json, {}),
        unreadable=tuple(unreadable),
    )


def mapping(value: Any) -> Mapping[str, Any]:
    """The JSON object, or an empty one where there is something else."""
    return value if isinstance(value, Mapping) else {}


def text(value: Any) -> str:
    """The JSON string, or an empty one where there is something else."""
    return value if isinstance(value, str) else ""


def _read_curve(path: Path) -> Curve | None:
    rows = [row for row in read_csv(path) if whole_number(row.get("epoch")) is not None]
    if not rows:
        return None
    cells = {column: [number(row.get(column)) for row in rows] for column in rows[0] if isinstance(column, str)}
    return Curve({column: tuple(math.nan if cell is None else cell for cell in row) for column, row in cells.items()})


def _count_validation(path: Path) -> int | None:
    images = {(row.get("image"), row.get("plane")) for row in read_csv(path) if row.get("subset") == "validation"}
    return len(images) or None
