"""model/: the best epoch of a run as a folder that loads anywhere."""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from tune_smp import __version__
from tune_smp.data.normalization import Normalizer
from tune_smp.data.preprocessing import FILE_NAME as PREPROCESSING
from tune_smp.data.preprocessing import Preprocessing, read_preprocessing
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.data.view_gains import ViewGains
from tune_smp.results.folder import RunFolder, whole_folder, write_json, write_text
from tune_smp.results.model_card import CardFacts, Proved, model_card, views_section
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import build_model
from tune_smp.training.run_state import RunState, best_report, metric_at_half

CARD = "README.md"


def export_best(
    folder: RunFolder,
    state: RunState,
    settings: RunSettings,
    store: ImageStore,
    regions: Sequence[Region],
    *,
    proved: Proved | None = None,
) -> None:
    """Write ``model/`` from a run's state: weights of its best epoch, preprocessing, and model card.

    ``proved``: for a run on all images, whose own metric and thresholds say nothing.

    Raises ResourceError when the disk is full; the model that was there before is then still there.
    """
    model = _best_model(state, settings, store)
    preprocessing = _preprocessing(state, settings, store, proved)
    with whole_folder(folder.model) as target:
        _save(model, target)
        _forget_encoder_weights(target / "config.json")
        write_json(target / PREPROCESSING, preprocessing.to_json())
        write_text(target / CARD, model_card(preprocessing, _facts(state, settings, model, regions, proved)))


def write_views(model: Path, gains: ViewGains) -> None:
    """Add what test-time augmentation gains to preprocessing.json and the model card of an exported model."""
    write_json(model / PREPROCESSING, replace(read_preprocessing(model), views=gains).to_json())
    card = model / CARD
    write_text(card, card.read_text(encoding="utf-8") + views_section(gains))


def _best_model(state: RunState, settings: RunSettings, store: ImageStore) -> Any:
    model = build_model(settings, channels=store.channels, classes=store.class_map.classes, load_weights=False)
    model.load_state_dict(state["best_model"] or state["model"])
    return model.eval()


def _save(model: Any, target: Path) -> None:
    try:
        model.save_pretrained(target)
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OSError(errno.EIO, str(error)) from error


def _preprocessing(state: RunState, settings: RunSettings, store: ImageStore, proved: Proved | None) -> Preprocessing:
    metric = {"value": state["best_metric"], "epoch": state["best_epoch"]}
    return Preprocessing(
        class_map=store.class_map,
        normalization=Normalizer(store, settings.normalization, settings.normalization_scope).normalization,
        channels=store.channels,
        tile_size=settings.resolved_tile_size,
        divisor=settings.architecture.divisor,
        fixed_tile_size=settings.encoder.tile_size,
        architecture=settings.architecture.name,
        encoder=settings.encoder.name,
        encoder_weights=settings.encoder_weights,
        tune_smp_version=__version__,
        channel_variable=store.collection.channel_variable,
        channel_values=store.collection.channel_values,
        metric={"name": settings.metric_name, **(metric if proved is None else {"proved": proved.metric})},
        thresholds=best_report(state).get("thresholds", ()) if proved is None else proved.thresholds,
    )


def _facts(
    state: RunState,
    settings: RunSettings,
    model: nn.Module,
    regions: Sequence[Region],
    proved: Proved | None,
) -> CardFacts:
    images = {
        subset: {region.pair for region in regions if region.subset == subset} for subset in ("train", "validation")
    }
    return CardFacts(
        loss=settings.loss_name,
        optimizer=settings.optimizer_name,
        best_epoch=state["best_epoch"],
        best_metric=state["best_metric"],
        metric=settings.metric_name,
        metric_at_half=metric_at_half(best_report(state), settings.metric),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        training_images=len(images["train"]),
        validation_images=len(images["validation"]),
        images_pattern=settings.images_pattern,
        proved=proved,
    )


def _forget_encoder_weights(config: Path) -> None:
    """smp's loader runs the constructor with this file: with weights named in it, it would fetch them again."""
    content = json.loads(config.read_text(encoding="utf-8"))
    write_json(config, {**content, "encoder_weights": None})
