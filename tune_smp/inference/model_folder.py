"""An exported model on disk, or an ensemble of them: found, checked, and loaded when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from tune_smp.choices.views import PRESETS, View
from tune_smp.data.ensemble_record import FILE_NAME as ENSEMBLE
from tune_smp.data.ensemble_record import read_ensemble
from tune_smp.data.preprocessing import FILE_NAME, Preprocessing, read_preprocessing
from tune_smp.errors import DataError, Problem, listing
from tune_smp.inference.ensemble import EnsemblePredictor
from tune_smp.inference.predictor import Predictor
from tune_smp.inference.tiling import Tiling, choose_tiling
from tune_smp.training.precision import choose_precision
from tune_smp.training.pretrained import CONFIG, WEIGHTS, load_exported, read_config

FILES = (CONFIG, WEIGHTS, FILE_NAME)


@dataclass(frozen=True)
class ExportedModel:
    """A complete ``model/`` folder and the record in its ``preprocessing.json``.

    Of an ensemble the ``members`` predict, each with its own record, in the shares of ``weights``; the thresholds are
    then those of the ensemble.
    """

    path: Path
    preprocessing: Preprocessing
    proved: Path | None = None
    """The model that was measured, where this one is a refit beside it."""
    members: tuple[ExportedModel, ...] = ()
    weights: tuple[float, ...] = ()

    def load(self) -> nn.Module:
        """The network with its weights, on the CPU; of an ensemble that of the best trial.

        Raises DataError where configuration and weights don't fit.
        """
        return load_exported(self.path)

    def tiling(self, *, tile_size: int | None = None, overlap: int | None = None) -> Tiling:
        """The tiles asked for, or the default; each member of an ensemble has its own default.

        Raises SettingsError where a model cannot take them.
        """
        for member in self.members:
            member.tiling(tile_size=tile_size, overlap=overlap)
        return choose_tiling(self.preprocessing, tile_size=tile_size, overlap=overlap)

    def predictor(
        self,
        *,
        device: torch.device | str = "cpu",
        tile_size: int | None = None,
        overlap: int | None = None,
        batch_size: int | None = None,
        views: Sequence[View] = PRESETS["none"],
        precision: str = "auto",
    ) -> Predictor | EnsemblePredictor:
        """The model, loaded, on the device. Raises DataError as ``load`` does, SettingsError as ``tiling`` does."""
        computed_in = choose_precision(precision, torch.device(device))

        def alone(model: ExportedModel) -> Predictor:
            return Predictor(
                model.load(),
                model.preprocessing,
                device=device,
                tiling=model.tiling(tile_size=tile_size, overlap=overlap),
                batch_size=batch_size,
                views=views,
                precision=computed_in,
            )

        if self.members:
            return EnsemblePredictor([alone(member) for member in self.members], self.weights, self.preprocessing)
        return alone(self)


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
    alone = replace(_open_alone(folder), proved=model if folder == refit else None)
    ensemble = read_ensemble(folder)
    if ensemble is None:
        return alone
    members = tuple(_open_alone(folder / member.folder) for member in ensemble.members)
    _require_one_kind(folder, alone, members, thresholds=len(ensemble.thresholds))
    return ExportedModel(
        folder,
        replace(alone.preprocessing, thresholds=ensemble.thresholds),
        members=members,
        weights=tuple(member.weight for member in ensemble.members),
    )


def _open_alone(folder: Path) -> ExportedModel:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        incomplete = f"the model folder lacks {listing(missing)}"
        fix = "pass the output folder of a finished run, or its model/; copy all of it"
        raise DataError(Problem(incomplete, f"--model {folder}", fix))
    preprocessing = read_preprocessing(folder)
    _require_same_network(folder, preprocessing)
    return ExportedModel(folder, preprocessing)


def _require_one_kind(folder: Path, alone: ExportedModel, members: Sequence[ExportedModel], *, thresholds: int) -> None:
    """The members must say the same classes of the same channels, and the thresholds be theirs."""
    own = alone.preprocessing
    fits = thresholds == (0 if own.segmentation_mode == "multiclass" else own.class_map.classes)
    for record in (member.preprocessing for member in members):
        fits &= (record.channels, record.class_map) == (own.channels, own.class_map)
    if not fits:
        said = f"{ENSEMBLE} names members that have other channels or classes than the model"
        fix = "these are files of two searches: copy the whole model/ folder again"
        raise DataError(Problem(said, f"--model {folder}", fix))


def _require_same_network(folder: Path, preprocessing: Preprocessing) -> None:
    """config.json must describe the network that preprocessing.json belongs to: files of two models may be mixed up."""
    config = read_config(folder)
    built = (config.get("in_channels"), config.get("classes"))
    described = (preprocessing.channels, preprocessing.class_map.classes)
    if built != described:
        said = "{} has {} channels and {} classes, {} has {} and {}".format(CONFIG, *built, FILE_NAME, *described)
        fix = "these are files of two models: copy the whole model/ folder again"
        raise DataError(Problem(said, f"--model {folder}", fix))
