"""Output folders as a search and a train leave them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tune_smp.results.folder import RunFolder, write_csv, write_json
from tune_smp.results.history import COLUMNS
from tune_smp.results.leaderboard import write_trials
from tune_smp.tuning.space_file import read_space
from tune_smp.tuning.space_records import as_json

MakeFolder = Callable[..., RunFolder]

STATES = ("completed", "completed", "pruned", "failed", "early_stopped", "pruned", "diverged", "completed")


def history(epochs: int, height: float) -> list[dict[str, Any]]:
    values = [height * (1 - math.exp(-epoch / 3)) for epoch in range(1, epochs + 1)]
    return [
        {**dict.fromkeys(COLUMNS, value), "epoch": epoch, "train_loss": 1 - value}
        for epoch, value in enumerate(values, start=1)
    ]


def settings(command: str, **more: Any) -> dict[str, Any]:
    values = {"imagesDir": "/data/my images", "imagesPattern": "r{r:d+}.tif", "metricName": "IoU", "seed": 3}
    given = ["imagesDir", "imagesPattern"]
    ran = {"versions": {"torch": "2.9"}, "used": {"batchSize": 8, "device": "cpu", "learningRate": 0.001}}
    return {"command": command, "settings": {"values": values, "given": given}, **ran, **more}


def trial(number: int) -> dict[str, Any]:
    state = STATES[number % len(STATES)]
    epochs = {"failed": 0, "pruned": 2, "diverged": 3}.get(state, 8)
    best = max((row["val_iou"] for row in history(epochs, 0.4 + 0.5 * (number * 7 % 10) / 10)), default=None)
    reason = {"failed": "out of memory", "diverged": "the loss was nan"}.get(state, "")
    chosen = {"learningRate": 10.0 ** -(number % 5), "modelName": "Unet", "momentum": None if number % 2 else 0.9}
    rest = {"epochs": epochs, "best_metric": best, "best_epoch": epochs or None, "seconds": 3.5, "reason": reason}
    return {"trial": number, "state": state, **chosen, **rest}


@pytest.fixture
def make_search(tmp_path: Path) -> MakeFolder:
    """The folder of a search of so many trials; keywords go into its summary."""

    def make(count: int = 16, *, name: str = "search", **summary: Any) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.histories.mkdir(parents=True)
        folder.model.mkdir()
        trials = [trial(number) for number in range(count)]
        for row in trials:
            if row["epochs"]:
                write_csv(folder.trial_history(row["trial"]), history(row["epochs"], row["best_metric"]))
        write_trials(folder, trials, searched=["learningRate", "modelName", "momentum"])
        write_json(folder.settings, settings("search", space=as_json(read_space("quick"))))
        best = max(trials, key=lambda row: row["best_metric"] or 0)
        write_json(
            folder.summary,
            {
                **{"command": "search", "state": "completed", "metric": "IoU", "best_metric": best["best_metric"]},
                **{"best_epoch": best["best_epoch"], "best_trial": best["trial"], "model": str(folder.model)},
                **{"default_metric": trials[0]["best_metric"], "seconds": 99.0, "epochs": 80, "epochs_saved": 48},
                **{"trials": {"completed": count}, "class_iou": {"cell": 0.5, "void": None}},
                **{"importances": {"learningRate": 0.8, "momentum": 0.2}, "reproduce": "tune-smp train --seed 3"},
                **summary,
            },
        )
        folder.split.write_text("image,subset,plane\na.tif,train,0\nb.tif,validation,0\nc.tif,validation,0\n")
        return folder

    return make


@pytest.fixture
def make_train(tmp_path: Path) -> MakeFolder:
    """The folder of a train; keywords go into its summary."""

    def make(epochs: int = 6, *, name: str = "train", **summary: Any) -> RunFolder:
        folder = RunFolder(tmp_path / name)
        folder.model.mkdir(parents=True)
        write_csv(folder.history, history(epochs, 0.9))
        write_json(folder.settings, settings("train"))
        write_json(
            folder.summary,
            {
                **{"command": "train", "state": "early_stopped", "metric": "IoU", "best_metric": 0.8123},
                **{"best_epoch": min(4, epochs), "epochs": epochs, "seconds": 61.0, "class_iou": {"cell": 0.8}},
                **summary,
            },
        )
        return folder

    return make
