"""``tune-smp predict``: every image of a folder through an exported model."""

from __future__ import annotations

import itertools
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path

from tune_smp.choices.views import PRESETS
from tune_smp.data.pairing.collection import find_images
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.image_reader import counted_notes
from tune_smp.data.view_gains import WORTH_A_NOTE, ViewGains
from tune_smp.errors import DataError, Problem, SettingsError, listing
from tune_smp.inference.cuts import Failed, check_channels
from tune_smp.inference.ensemble import EnsemblePredictor
from tune_smp.inference.model_folder import ExportedModel, open_model
from tune_smp.inference.outputs import Job, plan_outputs
from tune_smp.inference.predictor import Predictor, Strip
from tune_smp.inference.sources import StackedReader
from tune_smp.inference.tiling import Tiling
from tune_smp.inference.views import taken_preset
from tune_smp.inference.writing import PredictionWriter
from tune_smp.settings.predict import PredictSettings
from tune_smp.texts import shown
from tune_smp.training.precision import choose_device, use_fast_kernels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictionSummary:
    """The result. ``skipped`` names the images left out by ``--skipCorrupt``, ``notes`` are for the user."""

    outputs: tuple[Path, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    tiling: Tiling
    device: str
    seconds: float


def predict_folder(settings: PredictSettings, *, on_image: Callable[[str], None] | None = None) -> PredictionSummary:
    """Predict every image that the pattern finds; ``on_image`` gets a line to print for each that is written.

    It is called in the thread that writes.

    All that can be known without predicting is checked first: the model, the tiles, the names of the outputs, and the
    header of every image. Pixels that turn out to be unreadable later don't keep the other images from being predicted.

    Raises SettingsError for tiles that the model cannot take, ResourceError without the GPU asked for, and DataError
    with every image that cannot be predicted, unless ``skip_corrupt`` leaves those out.
    """
    started = time.perf_counter()
    exported = open_model(settings.model)
    preprocessing = _with_threshold(exported.preprocessing, settings.threshold)
    tiling = exported.tiling(tile_size=settings.tile_size, overlap=settings.overlap)
    preset = taken_preset(settings.test_time_augmentation, preprocessing.views)
    device = choose_device(settings.device)
    use_fast_kernels(device)
    headers = _check_headers(_plan(settings, preprocessing), preprocessing, skip_corrupt=settings.skip_corrupt)

    predictor = replace(exported, preprocessing=preprocessing).predictor(
        device=device,
        tile_size=settings.tile_size,
        overlap=settings.overlap,
        batch_size=settings.batch_size,
        views=PRESETS[preset],
        precision=settings.precision,
    )
    pixels = _predict_all(headers.usable, predictor, settings, on_image or _unheard)
    _require_usable(pixels, skip_corrupt=settings.skip_corrupt)

    skipped = {**headers.failed, **pixels.failed}
    return PredictionSummary(
        outputs=tuple(job.output for job in pixels.usable),
        skipped=tuple(job.name for job in skipped),
        notes=(
            *headers.notes,
            *_refit_note(exported),
            *(f"left out: {bad.where}: {bad.problem}" for bad in _grouped(skipped)),
            *_views_note(settings, preprocessing.views),
        ),
        tiling=tiling,
        device=device.type,
        seconds=time.perf_counter() - started,
    )


def _with_threshold(preprocessing: Preprocessing, threshold: float | None) -> Preprocessing:
    """The record with this threshold for every class. Raises SettingsError for a model that has no use for one."""
    if threshold is None:
        return preprocessing
    if preprocessing.segmentation_mode == "multiclass":
        said = "a multiclass model takes the likeliest class, whatever its probability"
        raise SettingsError(Problem(said, f"--threshold {threshold:g}", "leave --threshold out"))
    return replace(preprocessing, thresholds=(threshold,) * preprocessing.class_map.classes)


def _refit_note(exported: ExportedModel) -> list[str]:
    if exported.proved is None:
        return []
    return [f"by the refit, which was trained on all labelled images; the model that was measured: {exported.proved}"]


def _views_note(settings: PredictSettings, gains: ViewGains | None) -> list[str]:
    """What is left on the table, where nobody decided, or where nobody knows."""
    if gains is None:
        unknown = "--testTimeAugmentation auto: the model does not say what pays, so nothing was augmented"
        return [unknown] if settings.test_time_augmentation == "auto" else []
    best = gains.recommended
    if "test_time_augmentation" in settings.model_fields_set or gains.gain(best) <= WORTH_A_NOTE:
        return []
    return [
        f"--testTimeAugmentation {best} had {gains.gain(best):+.4f} {gains.metric} on validation images, in "
        f"{gains.factor(best):.1f} times the time; auto takes it"
    ]


@dataclass(frozen=True)
class _Sorted:
    """Jobs for which a stage went well, and what kept the others from it."""

    usable: tuple[Job, ...]
    failed: Mapping[Job, tuple[Problem, ...]]
    notes: tuple[str, ...] = ()


def _plan(settings: PredictSettings, preprocessing: Preprocessing) -> tuple[Job, ...]:
    images = find_images(
        settings.images_dir,
        images_pattern=settings.images_pattern,
        channel_variable=preprocessing.channel_variable,
        channel_values=preprocessing.channel_values,
    )
    try:
        settings.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cannot = f"the output folder cannot be made: {error.strerror}"
        raise SettingsError(
            Problem(cannot, f"--outputDir {settings.output_dir}", "choose a folder you may write to")
        ) from error
    return plan_outputs(images, settings.output_dir, suffix=settings.format, overwrite=settings.overwrite)


def _check_headers(jobs: Sequence[Job], preprocessing: Preprocessing, *, skip_corrupt: bool) -> _Sorted:
    """Open every image and look at its size and channels: cheap, so that a wrong one is found before hours of work."""

    notes: dict[str, tuple[str, ...]] = {}

    def check(job: Job) -> None:
        with StackedReader(job.paths) as reader:
            check_channels(reader, preprocessing)
            notes[shown(job.name)] = tuple(dict.fromkeys(reader.info.notes))

    checked = _each(jobs, check)
    _require_usable(checked, skip_corrupt=skip_corrupt)
    return replace(checked, notes=tuple(counted_notes(notes, "images")))


def _predict_all(
    jobs: Sequence[Job],
    predictor: Predictor | EnsemblePredictor,
    settings: PredictSettings,
    on_image: Callable[[str], None],
) -> _Sorted:
    predicted = predictor.predict_images(partial(StackedReader, job.paths) for job in jobs)
    numbers = itertools.count(1)

    def predict(job: Job) -> None:
        line = f"{next(numbers)} of {len(jobs)}: {shown(job.name)}"
        image, strips = next(by_image)
        assert jobs[image] is job  # noqa: S101 - no image is without strips
        first = _strip(next(strips))
        rows = itertools.chain([first.rows], (_strip(strip).rows for strip in strips))
        writer.write(rows, job.output, info=first.info, on_written=lambda: on_image(line))

    with closing(predicted), PredictionWriter(predictor.preprocessing, settings.output) as writer:
        by_image = itertools.groupby(predicted, key=attrgetter("image"))
        return _each(jobs, predict)


def _strip(found: Strip | Failed) -> Strip:
    """The strip. Raises what is wrong with its image."""
    if isinstance(found, Failed):
        raise found.error
    return found


def _each(jobs: Sequence[Job], work: Callable[[Job], None]) -> _Sorted:
    """Do the work for every job, also after one whose data is bad."""
    usable, failed = [], {}
    for job in jobs:
        try:
            work(job)
        except DataError as error:
            logger.info("%s cannot be predicted", job.name, exc_info=True)
            failed[job] = tuple(
                replace(problem, where=problem.where or str(job.paths[0])) for problem in error.problems
            )
        else:
            usable.append(job)
    return _Sorted(tuple(usable), failed)


def _require_usable(stage: _Sorted, *, skip_corrupt: bool) -> None:
    """Raise DataError where an image failed that may not be skipped, or where none is left."""
    if stage.failed and not (skip_corrupt and stage.usable):
        raise DataError(_grouped(stage.failed))


def _grouped(failed: Mapping[Job, tuple[Problem, ...]]) -> list[Problem]:
    """One problem per reason, naming the files that share it."""
    places: dict[Problem, list[str]] = defaultdict(list)
    for problem in itertools.chain.from_iterable(failed.values()):
        places[replace(problem, where="")].append(problem.where)
    return [replace(reason, where=listing(where)) for reason, where in places.items()]


def _unheard(_: str) -> None:
    """Nobody listens."""
