"""Build an image store: look at every file, check what belongs together, decode and copy, write the tables."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.label_fit import FEWEST_PAIRS, edges_of, fit_notes
from tune_smp.data.label_forms import as_numbers, color_classes
from tune_smp.data.label_looks import LabelLook
from tune_smp.data.label_sense import Sense, make_sense
from tune_smp.data.labels import ClassMap, Mode, learn_class_map
from tune_smp.data.pairing.pairs import Collection, Pair
from tune_smp.data.processes import Workers
from tune_smp.data.reading.image_reader import PALETTE_NOTE
from tune_smp.data.split import pair_keys
from tune_smp.data.store import pair_checks
from tune_smp.data.store.decoding import (
    Decoded,
    DecodeTask,
    Fault,
    PlaneTask,
    Survey,
    decode,
    look_at_label,
    survey_image,
    survey_label,
)
from tune_smp.data.store.format import (
    IMAGES,
    MASKS,
    STATISTICS,
    Extent,
    StoreIndex,
    dtypes_of,
    flush_to_disk,
    lay_out,
    map_file,
    places_of,
    write_collection,
    write_tables,
)
from tune_smp.data.store.pair_checks import Plane, Surveys
from tune_smp.data.store.twins import Pixels, Twins, find_twins, twin_notes
from tune_smp.errors import DataError, Problem, ResourceError, listing
from tune_smp.texts import shown

logger = logging.getLogger(__name__)

# What one process decodes in about a second, the time that another one takes to start.
FILES_PER_PROCESS = 400
BYTES_PER_PROCESS = 2**27
LABELS_LOOKED_AT = 16
PAIRS_COMPARED, PIXELS_COMPARED = 64, 2**26  # at most, to see whether labels fit their images: about a second
TABLE_BYTES = 2**15  # of all tables, per pair, about
SPARE_BYTES = 2**24
MORE_SPACE = "free some space, or choose a folder on another disk with --cacheDir"
_NOWHERE = Extent(0, (0, 0, 0), "u1")


@dataclass(frozen=True)
class StoreRequest:
    """The request for a store: what it is built from, and what it depends on besides the files."""

    collection: Collection
    mode: Mode
    ignore_value: int | None = None
    skip_corrupt: bool = False
    label_colors: tuple[tuple[str, int], ...] = ()  # name and 0xRRGGBB of each class of painted labels


@dataclass(frozen=True)
class _Stored:
    """A plane, where it lies, and what is known about it."""

    plane: Plane
    image: Extent
    mask: Extent
    decoded: Decoded


def build_store(folder: Path, request: StoreRequest) -> None:
    """Fill an empty folder with the store of a collection.

    Raises:
        DataError: files or pairs that cannot be used, or labels that do not fit the mode; all of them at once.
        ResourceError: not enough disk space, before or on the way, or a worker process that died.
    """
    pairs = request.collection.pairs
    with Workers(_process_count(pairs)) as workers:
        images = _survey((path for pair in pairs for path in pair.images), workers, survey_image)
        labels = _survey((path for pair in pairs for path in pair.labels), workers, survey_label)
        images, labels = _right_images(pairs, images, labels)
        planes, faults = pair_checks.check_pairs(pairs, images, labels)
        class_map, problems = _class_map(planes, images, labels, request, workers)
        if class_map is None or (faults and not request.skip_corrupt):
            faults.extend(_pixel_faults(planes, folder, workers))
            raise DataError([*pair_checks.as_problems(faults, pairs), *problems])
        stored, pixel_faults = _copied(planes, folder, class_map, workers)
    faults.extend(pixel_faults)
    if not stored or (faults and not request.skip_corrupt):
        raise DataError(pair_checks.as_problems(faults, pairs))
    unusable = len({(pair.images, pair.labels) for pair in pairs} - {_files(plane) for plane in planes})
    left_out, total = unusable + len(planes) - len(stored), unusable + len(planes)
    twins = _twins(folder, stored)
    notes = (
        *pair_checks.left_out_note(faults, left_out=left_out, total=total),
        *pair_checks.survey_notes(images, "images"),
        *pair_checks.survey_notes(labels, "labels", untrue=[PALETTE_NOTE] if request.label_colors else []),
        *pair_checks.dtype_note(planes),
        *_constant_note(stored),
        *class_map.notes,
        *twin_notes([one.plane.pair for one in stored], twins, _pixels(folder / MASKS, [one.mask for one in stored])),
        *_fit_notes(folder, stored),
    )
    _write_records(folder, replace(request.collection, twins=twins), class_map, stored, notes)


def _process_count(pairs: Sequence[Pair]) -> int:
    """As many as there are cores, if there is enough to do for them. Raises DataError where a file is gone."""
    paths = {path for pair in pairs for path in (*pair.images, *pair.labels)}
    # An OME-Zarr image is a folder; nobody uses the format for small ones.
    work = sum(BYTES_PER_PROCESS if path.is_dir() else path.stat().st_size for path in paths if path.exists())
    worthwhile = max(len(paths) // FILES_PER_PROCESS, work // BYTES_PER_PROCESS)
    return max(1, min(worthwhile, len(os.sched_getaffinity(0)), len(pairs)))


def _survey(paths: Iterable[Path], workers: Workers, look: Callable[[Path], Survey | Fault]) -> Surveys:
    distinct = list(dict.fromkeys(paths))
    return dict(zip(distinct, workers.map(look, distinct), strict=True))


def _right_images(pairs: Sequence[Pair], images: Surveys, labels: Surveys) -> tuple[Surveys, Surveys]:
    """The surveys of images and labels again, where another image in their files is the one that is meant."""
    of_images, of_labels = pair_checks.wanted_sizes(pairs, images, labels)
    return (
        {**images, **{path: survey_image(path, size) for path, size in of_images.items()}},
        {**labels, **{path: survey_label(path, size) for path, size in of_labels.items()}},
    )


def _class_map(
    planes: Sequence[Plane], images: Surveys, labels: Surveys, request: StoreRequest, workers: Workers
) -> tuple[ClassMap | None, tuple[Problem, ...]]:
    """Learn what the labels mean, or all that speaks against it."""
    if not planes:
        return None, ()
    values = pair_checks.pair_label_values(planes, labels, request.collection.levels[1])
    colors = dict(request.label_colors)
    numbers, problems, notes = as_numbers(values, request.mode, colors)
    if problems:
        return None, tuple(problems)
    sense = Sense()
    if not colors:
        sense = make_sense(
            request.mode,
            numbers,
            _looks((path for plane in planes for path in plane.pair.labels), labels, workers),
            ignore_value=request.ignore_value,
            look_at_images=lambda: _looks((path for plane in planes for path in plane.pair.images), images, workers),
        )
    if sense.problems:
        return None, sense.problems
    try:
        names = [str(value) for value in request.collection.class_values]
        learned = learn_class_map(request.mode, numbers, ignore_value=request.ignore_value, class_names=names)
    except DataError as error:
        return None, error.problems
    learned = sense.applied_to(learned)
    if colors:
        learned = color_classes(request.mode, colors).applied_to(learned)
    return replace(learned, notes=(*notes, *learned.notes)), ()


def _looks(paths: Iterable[Path], surveys: Surveys, workers: Workers) -> list[LabelLook]:
    """Closer looks at some files, evenly chosen."""
    distinct = list(dict.fromkeys(paths))
    chosen = distinct[:: -(-len(distinct) // LABELS_LOOKED_AT)]
    files = [(path, cast(Survey, surveys[path]).info.size) for path in chosen]
    return [look for looks in workers.map(look_at_label, files) for look in looks]


def _pixel_faults(planes: Sequence[Plane], folder: Path, workers: Workers) -> list[Fault]:
    """Find what else is wrong in images whose headers were right, to report all at once; nothing is written."""
    places = [(_NOWHERE, _NOWHERE)] * len(planes)
    return [result for result in _decode(planes, places, folder, None, workers) if isinstance(result, Fault)]


def _copied(
    planes: Sequence[Plane], folder: Path, class_map: ClassMap, workers: Workers
) -> tuple[list[_Stored], list[Fault]]:
    """The planes that are in the store now, and what is wrong with the others. Raises ResourceError on a full disk."""
    mask_channels = class_map.classes if class_map.mode == "multilabel" else 1
    images = lay_out((plane.shape, plane.dtype) for plane in planes)
    masks = lay_out(((mask_channels, *plane.shape[1:]), np.dtype(np.uint8)) for plane in planes)
    needed = images[-1].end + masks[-1].end + len(planes) * TABLE_BYTES + SPARE_BYTES
    _require_space(folder, needed)
    logger.info("decoding %d images with their labels, %.2f GB", len(planes), needed / 1e9)
    for name, extents in ((IMAGES, images), (MASKS, masks)):
        with (folder / name).open("wb") as file:
            file.truncate(extents[-1].end)  # sparse: a bad pair leaves a hole that costs nothing
    results = _decode(planes, list(zip(images, masks, strict=True)), folder, class_map, workers)
    stored = [
        _Stored(plane, image, mask, result)
        for plane, image, mask, result in zip(planes, images, masks, results, strict=True)
        if isinstance(result, Decoded)
    ]
    return stored, [result for result in results if isinstance(result, Fault)]


def _decode(
    planes: Sequence[Plane],
    places: Sequence[tuple[Extent, Extent]],
    folder: Path,
    class_map: ClassMap | None,
    workers: Workers,
) -> list[Decoded | Fault | None]:
    """Every plane's result, in order; the planes of one file are one task, for it to be opened once."""
    tasks = [
        DecodeTask(
            images=files[0],
            labels=files[1],
            planes=tuple(PlaneTask(plane.pair.name, plane.pair.plane, *place) for plane, place in same),
            folder=folder,
            class_map=class_map,
        )
        for files, same in groupby(zip(planes, places, strict=True), lambda item: _files(item[0]))
    ]
    return [result for results in workers.map(decode, tasks) for result in results]


def _files(plane: Plane) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    return plane.pair.images, plane.pair.labels


def _pixels(file: Path, extents: Sequence[Extent]) -> Pixels:
    """The arrays in a file of the store that has just been written, by index."""
    content = map_file(file)
    return lambda index: extents[index].of(content)


def _twins(folder: Path, stored: Sequence[_Stored]) -> Twins:
    images = _pixels(folder / IMAGES, [one.image for one in stored])
    return find_twins([one.plane.pair for one in stored], [one.decoded.checksum for one in stored], images)


def _fit_notes(folder: Path, stored: Sequence[_Stored]) -> list[str]:
    """Whether labels lie where their images have edges, of some pairs, evenly chosen."""
    pixels = sum(one.image.shape[1] * one.image.shape[2] for one in stored)
    count = max(FEWEST_PAIRS, min(PAIRS_COMPARED, len(stored) * PIXELS_COMPARED // max(1, pixels)))
    chosen = stored[:: -(-len(stored) // count)]
    images = _pixels(folder / IMAGES, [one.image for one in chosen])
    masks = _pixels(folder / MASKS, [one.mask for one in chosen])
    edges = [edges_of(images(index), masks(index)) for index in range(len(chosen))]
    return list(fit_notes([shown(one.plane.pair.name) for one in chosen], edges))


def _constant_note(stored: Sequence[_Stored]) -> tuple[str, ...]:
    """Constant images are no error, but seldom meant."""
    statistics = ((one.plane.pair.name, one.decoded.statistics) for one in stored)
    names = [shown(name) for name, known in statistics if known.minimum == known.maximum]
    return (f"{len(names)} of {len(stored)} images hold one value only: {listing(names)}",) if names else ()


def _write_records(
    folder: Path, collection: Collection, class_map: ClassMap, stored: Sequence[_Stored], notes: Sequence[str]
) -> None:
    kept = replace(collection, pairs=tuple(one.plane.pair for one in stored))
    write_tables(folder, {"pair_keys": pair_keys(kept), **_tables(stored)})
    written = write_collection(folder, kept)
    StoreIndex(class_map, tuple(notes), collection_bytes=written).write(folder)
    flush_to_disk(folder)


def _tables(stored: Sequence[_Stored]) -> dict[str, NDArray[Any]]:
    decoded = [one.decoded for one in stored]
    statistics = [one.statistics for one in decoded]
    lengths = [len(places) for one in decoded for places in one.places]
    return {
        "image_places": places_of([one.image for one in stored]),
        "image_dtypes": dtypes_of([one.image for one in stored]),
        "mask_places": places_of([one.mask for one in stored]),
        "statistics": np.array([[getattr(one, name) for name in STATISTICS] for one in statistics]),  # (n, 6, C)
        "quantiles": np.stack([one.quantiles for one in statistics]),  # (n, C, QUANTILES)
        "class_pixels": np.stack([one.class_pixels for one in decoded]),  # (n, classes)
        "totals": np.array([[one.foreground_pixels, one.ignored_pixels] for one in decoded]),  # (n, 2)
        "foreground": np.concatenate([places for one in decoded for places in one.places]),  # (places, 2)
        "foreground_starts": np.cumsum([0, *lengths]),  # (n * classes + 1,), into the rows of "foreground"
    }


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        problem = f"the decoded images need {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free"
        raise ResourceError(Problem(problem, str(folder.parent), MORE_SPACE))
