"""The Python API: what the commands do, as functions; arguments are the flags in snake_case, or a settings object.

Nothing is printed unless a ``console`` is passed. Errors are those of `tune_smp.errors`.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tune_smp.errors import Problem, SettingsError
from tune_smp.results.folder import RunFolder
from tune_smp.results.summary import Summary
from tune_smp.settings.base import Settings
from tune_smp.settings.data import DataSettings
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.listeners import Listener
from tune_smp.workflows import inspection, predicting, resuming, road
from tune_smp.workflows.preparation import Findings
from tune_smp.workflows.printing import printing_to

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from tune_smp.inference.array_predictor import ArrayPredictor
    from tune_smp.inference.prediction import PredictionSummary

Kind = TypeVar("Kind", bound=Settings)


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a train or search, in its folder.

    ``metric`` is the name, and ``best_metric`` the validation value, of the epoch whose weights are in ``model``;
    ``summary`` is all that summary.json holds.
    """

    output_dir: Path
    summary: Summary

    @property
    def state(self) -> str:
        """How it ended: completed, early_stopped, out_of_time, interrupted, ..."""
        return self.summary.state

    @property
    def metric(self) -> str:
        """Name of the metric that chose the model."""
        return self.summary.metric

    @property
    def best_metric(self) -> float | None:
        """Validation metric of the best epoch."""
        return self.summary.best_metric

    @property
    def model(self) -> Path | None:
        """Folder of the exported model; None where there is none."""
        return Path(self.summary.model) if self.summary.model else None

    @property
    def report(self) -> Path:
        """The page for people, report.html."""
        return RunFolder(self.output_dir).report

    def trials(self) -> pd.DataFrame:
        """Every trial of a search, best first, with its values and how it ended; empty for a single run."""
        return _frame(RunFolder(self.output_dir).trials_csv)

    def history(self, trial: int | None = None) -> pd.DataFrame:
        """One row per epoch: of a single run, or of a ``trial`` of a search, the best one if none is named."""
        folder = RunFolder(self.output_dir)
        if self.summary.command == "train":
            return _frame(folder.history)
        number = self.summary.best_trial if trial is None else trial
        return _frame(folder.trial_history(number)) if number is not None else _frame(folder.history)

    def load(self, *, device: Literal["auto", "cpu", "gpu"] = "auto") -> ArrayPredictor:
        """The exported model, ready to predict; see ``load``."""
        return load(self.output_dir, device=device)

    def _repr_html_(self) -> str:
        """The result as a notebook shows it."""
        rows = {
            "state": self.state,
            f"best {self.metric}": "none" if self.best_metric is None else f"{self.best_metric:.4f}",
            "best trial": self.summary.best_trial if self.summary.command == "search" else None,
            "best epoch": self.summary.best_epoch,
            "model": self.model,
            "report": self.report if self.report.exists() else None,
        }
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in rows.items()
            if value is not None
        )
        return f"<table>{cells}</table>"


def train(
    settings: RunSettings | None = None,
    *,
    console: Console | None = None,
    listeners: Sequence[Listener] = (),
    **flags: Any,
) -> Result:
    """Train one fixed configuration and export its best epoch; raises as `tune_smp.workflows.train` does."""
    chosen = _settings(RunSettings, settings, flags)
    with printing_to(console):
        return Result(chosen.output_dir, road.train(chosen, listeners=listeners))


def search(
    settings: SearchSettings | None = None,
    *,
    console: Console | None = None,
    listeners: Sequence[Listener] = (),
    **flags: Any,
) -> Result:
    """Search a space and export the best epoch of the best trial; raises as `tune_smp.workflows.search` does."""
    chosen = _settings(SearchSettings, settings, flags)
    with printing_to(console):
        return Result(chosen.output_dir, road.search(chosen, listeners=listeners))


def resume(
    output_dir: Path | str,
    *,
    num_trials: int | None = None,
    time_budget: str | None = None,
    console: Console | None = None,
    listeners: Sequence[Listener] = (),
) -> Result | None:
    """Resume what is in the folder; None where it had come to its end already. Raises as train and search do."""
    with printing_to(console):
        summary = resuming.resume(Path(output_dir), num_trials=num_trials, time_budget=time_budget, listeners=listeners)
    return Result(Path(output_dir), summary) if summary else None


def predict(
    settings: PredictSettings | None = None, *, console: Console | None = None, **flags: Any
) -> PredictionSummary:
    """Write a label image for every image of a folder; raises as `tune_smp.workflows.predict` does."""
    with printing_to(console):
        return predicting.predict(_settings(PredictSettings, settings, flags))


def check(settings: DataSettings | None = None, *, console: Console | None = None, **flags: Any) -> Findings:
    """Read a whole collection, and return what is in it and what is odd about it.

    Raises DataError with everything that is wrong with it.
    """
    with printing_to(console):
        return inspection.check(_settings(DataSettings, settings, flags))


def load(
    output_dir: Path | str,
    *,
    device: Literal["auto", "cpu", "gpu"] = "auto",
    tile_size: int | None = None,
    overlap: int | None = None,
    batch_size: int | None = None,
    test_time_augmentation: bool | str = "none",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> ArrayPredictor:
    """The exported model in an output folder, or in its ``model/``, ready to predict arrays and files.

    ``test_time_augmentation``: none, flips, all (or True) or auto, as ``predict`` takes it. Raises DataError where
    there is no whole model.
    """
    from tune_smp.inference.array_predictor import load_predictor  # noqa: PLC0415  imports torch

    return load_predictor(
        Path(output_dir),
        device=device,
        tile_size=tile_size,
        overlap=overlap,
        batch_size=batch_size,
        test_time_augmentation=test_time_augmentation,
        precision=precision,
    )


def _settings(kind: type[Kind], settings: Kind | None, flags: dict[str, Any]) -> Kind:
    if settings is None:
        return kind(**flags)
    if flags:
        raise SettingsError(
            Problem("settings and flags are given at once", ", ".join(flags), "use settings.with_changes(...)")
        )
    return settings


def _frame(path: Path) -> pd.DataFrame:
    import pandas  # noqa: PLC0415  costs 0.3 s

    return pandas.read_csv(path) if path.exists() else pandas.DataFrame()
