"""An exported model on disk: found, checked, and loaded when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tune_smp.choices.views import PRESETS, View
from tune_smp.data.preprocessing import FILE_NAME, Preprocessing, read_preprocessing
from tune_smp.errors import DataError, Problem, listing
from tune_smp.inference.predictor import Predictor
from tune_smp.inference.tiling import Tiling, choose_tiling
from tune_smp.training.pretrained import CONFIG, WEIGHTS, load_exported, read_config

FILES = (CONFIG, WEIGHTS, FILE_NAME)


@dataclass(frozen=True)
class ExportedModel:
    """A complete ``model/`` folder and the record in its ``preprocessing.json``."""

    path: Path
    preprocessing: Preprocessing
    proved: Path | None = None
    """The model that was measured, where this one is a refit beside it."""

    def load(self) -> nn.Module:
        """The network with its weights, on the CPU. Raises DataError where configuration and weights don't fit."""
        return load_exported(self.path)

    def tiling(self, *, tile_size: int | None = None, overlap: int | None = None) -> Tiling:
        """The tiles asked for, or the default. Raises SettingsError where the model cannot take them."""
        return choose_tiling(self.preprocessing, tile_size=tile_size, overlap=overlap)

    def predictor(
        self,
        *,
        device: torch.device | str = "cpu",
        tile_size: int | None = None,
        overlap: int | None = None,
        batch_size: int | None = None,
        views: Sequence[View] = PRESETS["none"],
    ) -> Predictor:
        """The model, loaded, on the device. Raises DataError as ``load`` does, SettingsError as ``tiling`` does."""
        tiling = self.tiling(tile_size=tile_size, overlap=overlap)
        return Predictor(
            self.load(), self.preprocessing, device=device, tiling=tiling, batch_size=batch_size, views=views
        )


def open_model(path: Path) -> ExportedModel:
    """The exported model in an output folder or in its ``model/``; reads no weights.

    Of an output folder with a refit that is the refit, which has seen every labelled image; its own ``model/`` is the
    one that was measured.

    Raises DataError where there is none, where a file of it is missing, or where a newer version wrote it.
    """
    refit, model = path / "refit" / "model", path / "model"
    folder = next((place for place in (refit, model) if place.is_dir()), path)
    if not folder.is_dir():
        raise DataError(Problem("there is no such model folder", f"--model {path}", "pass the folder that a run wrote"))
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        incomplete = f"the model folder lacks {listing(missing)}"
        fix = "pass the output folder of a finished run, or its model/; copy all of it"
        raise DataError(Problem(incomplete, f"--model {folder}", fix))
    preprocessing = read_preprocessing(folder)
    _require_same_network(folder, preprocessing)
    return ExportedModel(folder, preprocessing, proved=model if folder == refit else None)


def _require_same_network(folder: Path, preprocessing: Preprocessing) -> None:
    """config.json must describe the network that preprocessing.json belongs to: files of two models may be mixed up."""
    config = read_config(folder)
    built = (config.get("in_channels"), config.get("classes"))
    described = (preprocessing.channels, preprocessing.class_map.classes)
    if built != described:
        said = "{} has {} channels and {} classes, {} has {} and {}".format(CONFIG, *built, FILE_NAME, *described)
        fix = "these are files of two models: copy the whole model/ folder again"
        raise DataError(Problem(said, f"--model {folder}", fix))
