"""Train, resume, predict, check, demo: each a table of contents of the rooms below. Also the Python API."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from tune_smp.data.collection import Collection, find_pairs
from tune_smp.data.findings import describe_collection, inspect_split
from tune_smp.data.split import Region, read_split, split_groups, split_regions, write_split
from tune_smp.data.store import ImageStore, open_or_build
from tune_smp.errors import (
    InterruptedRunError,
    NoTrialSucceededError,
    Problem,
    SettingsError,
)
from tune_smp.results.folder import FINISHED_STATES, RunFolder, claimed, read_json, start_afresh
from tune_smp.results.history import History
from tune_smp.results.logs import logged
from tune_smp.results.summary import RunSummary, write_settings
from tune_smp.search.outcome import TrialOutcome
from tune_smp.settings.data import DataSettings
from tune_smp.settings.run import RunSettings

if TYPE_CHECKING:
    from tune_smp.settings.predict import PredictSettings

logger = logging.getLogger(__name__)
# Plain text: file names may hold anything, square brackets too.
console = Console(highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The image store of a collection, and which regions of it train and which validate."""

    store: ImageStore
    regions: tuple[Region, ...]


def train(settings: RunSettings) -> RunSummary:
    """Train one fixed configuration and export its best epoch.

    Raises SettingsError, DataError, ResourceError; NoTrialSucceededError when training failed; InterruptedRunError
    after Ctrl-C or SIGTERM, with the best epoch so far exported.
    """
    with claimed(settings.output_dir) as folder:
        start_afresh(folder, overwrite=settings.overwrite)
        with logged(folder.logs, "train"):
            settings = _adopt_pretrained(settings)
            data = _prepare(settings, folder)
            _check_pretrained(settings, data)
            _fetch_encoder_weights(settings)
            write_settings(folder, "train", settings.to_json())
            return _run(settings, folder, data)


def resume(output_dir: Path) -> RunSummary | None:
    """Go on with an interrupted run, in place; None when it had already come to its end.

    The settings, the split and the newest whole checkpoint are those in the folder. Raises what ``train`` raises.
    """
    if not RunFolder(output_dir).is_started():
        raise SettingsError(
            Problem("there is no run in this folder to go on with", str(output_dir), "name the --outputDir of a train")
        )
    with claimed(output_dir) as folder, logged(folder.logs, "resume"):
        if folder.is_finished():
            _tell([f"the run in {output_dir} is finished ({folder.state()}): nothing to resume"])
            return None
        settings = RunSettings.from_json(read_json(folder.settings)["settings"])
        return _run(settings, folder, _reopen(settings, folder))


def predict(settings: PredictSettings) -> None:
    """Write a label image for every image of a folder. Raises SettingsError, DataError, ResourceError."""
    from tune_smp.inference.predictor import predict_folder  # noqa: PLC0415  imports torch

    started = time.monotonic()
    summary = predict_folder(settings, on_image=console.print)
    _tell(summary.notes)
    console.print(
        f"{len(summary.outputs)} label images in {settings.output_dir} after {time.monotonic() - started:.1f} s"
    )


def check(settings: DataSettings) -> None:
    """Read a whole collection and say what is in it. Raises DataError with everything that is wrong with it."""
    collection = _find(settings)
    store = _open_store(settings, collection)
    regions = _split(settings, store)
    for line in describe_collection(store, regions):
        console.print(line)
    _tell(inspect_split(store, regions))
    console.print("no problems found")


def _adopt_pretrained(settings: RunSettings) -> RunSettings:
    """Take architecture and encoder from the earlier run where the command line does not name them."""
    if settings.pretrained_model is None:
        return settings
    from tune_smp.training.pretrained import describe_pretrained  # noqa: PLC0415  imports torch

    earlier = describe_pretrained(settings.pretrained_model)
    adopted = {
        name: value
        for name, value in (
            ("model_name", earlier.model_name),
            ("encoder_base_variant_weights", earlier.encoder_base_variant_weights),
        )
        if name not in settings.model_fields_set and getattr(settings, name) != value
    }
    _tell(f"{value} is taken from --pretrainedModel" for value in adopted.values())
    return settings.with_changes(**adopted)


def _fetch_encoder_weights(settings: RunSettings) -> None:
    """Bring the weights into the cache, or say that they cannot be had, before Ray starts."""
    if settings.encoder_weights is None or settings.pretrained_model is not None:
        return
    from tune_smp.training.weights import fetch_weights  # noqa: PLC0415  imports torch

    fetch_weights(settings.encoder, settings.encoder_weights)


def _check_pretrained(settings: RunSettings, data: PreparedData) -> None:
    """Refuse an earlier run that does not fit before anything is started."""
    if settings.pretrained_model is None:
        return
    from tune_smp.training.builders import ModelShape  # noqa: PLC0415  imports torch
    from tune_smp.training.pretrained import check_fits, load_earlier_run  # noqa: PLC0415

    shape = ModelShape.of(settings, channels=data.store.channels, classes=data.store.class_map.classes)
    check_fits(shape, load_earlier_run(settings.pretrained_model), replace_head=settings.replace_head)


def _prepare(settings: RunSettings, folder: RunFolder) -> PreparedData:
    collection = _find(settings)
    store = _open_store(settings, collection)
    regions = _split(settings, store)
    _tell(inspect_split(store, regions))
    write_split(folder.split, regions, store.collection, split_groups(store.collection, settings.group_by))
    for line in describe_collection(store, regions):
        console.print(line)
    return PreparedData(store, regions)


def _reopen(settings: RunSettings, folder: RunFolder) -> PreparedData:
    store = _open_store(settings, _find(settings))
    return PreparedData(store, read_split(folder.split, store.collection))


def _find(settings: DataSettings) -> Collection:
    collection = find_pairs(
        settings.images_folder,
        settings.labels_folder,
        images_pattern=settings.images_pattern,
        labels_pattern=settings.labels_pattern,
        allow_unpaired=settings.allow_unpaired,
    )
    _tell(collection.notes)
    return collection


def _open_store(settings: DataSettings, collection: Collection) -> ImageStore:
    store = open_or_build(
        collection,
        mode=settings.segmentation_mode,
        ignore_value=settings.ignore_value,
        cache_dir=settings.cache_dir,
        skip_corrupt=settings.skip_corrupt,
    )
    _tell(store.notes)
    return store


def _split(settings: DataSettings, store: ImageStore) -> tuple[Region, ...]:
    return split_regions(
        store.sizes,
        split_groups(store.collection, settings.group_by),
        names=[pair.name for pair in store.pairs],
        train_fraction=settings.train_fraction,
        seed=settings.seed,
    )


def _run(settings: RunSettings, folder: RunFolder, data: PreparedData) -> RunSummary:
    """Train to the end, or to where it is interrupted, and leave everything that is worth keeping in the folder."""
    from tune_smp.search.checkpoints import keep_newest, newest_whole  # noqa: PLC0415  imports torch

    started = time.monotonic()
    saved = newest_whole(folder.trials, folder.checkpoint)
    if saved is None or saved.state["stop"] is None:
        outcome = _train(settings, folder, data, start_from=saved.path if saved else None)
        saved = newest_whole(folder.trials, folder.checkpoint)
    else:
        # Everything was trained, and the program died before it could export.
        outcome = TrialOutcome(saved.state["stop"])
    if saved is not None:
        keep_newest(saved, folder.checkpoint, trials=folder.trials)
    # A run that diverged in its first epoch has a state, but nothing in it is worth exporting.
    best = saved.state if saved and saved.state["best_epoch"] else None
    if best is not None:
        _export(settings, folder, data, best)
    names = data.store.class_map.names
    summary = _summarise(settings, folder, outcome, best, class_names=names, seconds=time.monotonic() - started)
    summary.write(folder)
    _conclude(summary, folder, outcome, images_pattern=settings.images_pattern)
    return summary


def _train(settings: RunSettings, folder: RunFolder, data: PreparedData, *, start_from: Path | None) -> TrialOutcome:
    from tune_smp.search.cluster import Dashboard, local_ray  # noqa: PLC0415  ray takes half a second to import
    from tune_smp.search.progress import EpochProgress  # noqa: PLC0415
    from tune_smp.search.trainable import TrialConfig  # noqa: PLC0415
    from tune_smp.search.tuner import run_single  # noqa: PLC0415

    dashboard = Dashboard(settings.dashboard_host, settings.dashboard_port) if settings.dashboard else None
    history = History(folder.history)
    told: set[str] = set()
    with local_ray(device=settings.device, dashboard=dashboard) as resources:
        if resources.dashboard_url:
            console.print(f"dashboard: {resources.dashboard_url} (its token is in ~/.ray/auth_token)")
        with EpochProgress(console, metric_name=settings.metric_name, max_epochs=settings.max_epochs) as progress:

            def on_epoch(result: Mapping[str, Any]) -> None:
                _tell(note for note in result["notes"] if note not in told)
                told.update(result["notes"])
                history.add(result)
                progress.show(result)

            config = TrialConfig(
                settings.to_json(),
                store=data.store.path,
                split=folder.split,
                start_from=start_from,
                cpus=resources.cpus,
                gpus=min(1.0, resources.gpus),
            )
            return run_single(config, storage=folder.path, name=folder.trials.name, on_epoch=on_epoch)


def _export(settings: RunSettings, folder: RunFolder, data: PreparedData, state: Mapping[str, Any]) -> None:
    from tune_smp.results.export import export_best  # noqa: PLC0415  imports torch

    export_best(folder, state, settings, data.store, data.regions)


def _summarise(
    settings: RunSettings,
    folder: RunFolder,
    outcome: TrialOutcome,
    best: Mapping[str, Any] | None,
    *,
    class_names: Sequence[str],
    seconds: float,
) -> RunSummary:
    return RunSummary(
        command="train",
        state=outcome.state,
        metric=settings.metric_name,
        best_metric=best["best_metric"] if best else None,
        best_epoch=best["best_epoch"] if best else None,
        epochs=len(best["history"]) if best else 0,
        model=str(folder.model) if best else None,
        seconds=round(seconds, 1),
        class_iou=_class_iou(best, class_names) if best else {},
        trials={outcome.state: 1},
        reason=outcome.reason or (outcome.refusal.problems[0].problem if outcome.refusal else None),
    )


def _class_iou(best: Mapping[str, Any], class_names: Sequence[str]) -> dict[str, float | None]:
    """IoU of each class at the best epoch; None for a class that occurs neither in labels nor in predictions."""
    (row,) = (row for row in best["history"] if row["epoch"] == best["best_epoch"])
    return dict(zip(class_names, row["class_iou"], strict=True))


def _conclude(summary: RunSummary, folder: RunFolder, outcome: TrialOutcome, *, images_pattern: str) -> None:
    """Say how it ended and what to type next; an end without success is raised."""
    where = shlex.quote(str(folder.path))
    if summary.model is not None:
        console.print(
            f"best {summary.metric} {summary.best_metric:.4f} at epoch {summary.best_epoch} ({summary.state})"
        )
        console.print(f"model: {summary.model}")
    if outcome.refusal is not None:
        raise outcome.refusal
    if summary.state == "interrupted":
        raise InterruptedRunError(Problem("interrupted", str(folder.path), f"go on with: tune-smp resume {where}"))
    if summary.state not in FINISHED_STATES:
        raise NoTrialSucceededError(
            Problem(f"training ended as {summary.state}: {summary.reason}", str(folder.logs), _way_out(summary))
        )
    pattern = shlex.quote(images_pattern)
    console.print(
        f"next: tune-smp predict --model {where} --imagesDir IMAGES --imagesPattern {pattern} --outputDir MASKS"
    )


def _way_out(summary: RunSummary) -> str:
    if summary.state == "diverged":
        return "try a smaller --learningRate, another --normalization, or --gradientClip 1"
    return "see the log; --debug shows the traceback"


def _tell(notes: Iterable[str]) -> None:
    for note in notes:
        console.print(f"note: {note}")
        logger.info("told: %s", note)
