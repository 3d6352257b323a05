"""Checks that images and labels fit together before they become a store, and the problems where they do not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np

from tune_smp.data.label_values import LabelValues
from tune_smp.data.pairing.pairs import Pair, expand_planes, relative_name
from tune_smp.data.reading.image_reader import NAME_AXES, UNNAMED_NOTE, ImageInfo, counted_notes
from tune_smp.data.store.decoding import Fault, FaultKind, Survey
from tune_smp.errors import DataError, Problem, listing
from tune_smp.texts import shown

Surveys = Mapping[Path, Survey | Fault]
Sizes = Mapping[Path, tuple[int, int]]

_UNNAMED = "without axis names"
_LEAVE_OUT = "or pass --skipCorrupt to leave their pairs out"
_RULES: Mapping[FaultKind, tuple[str, str]] = {
    "unreadable": ("{} of {} files cannot be read", f"mend or replace them, {_LEAVE_OUT}"),
    "planes": (
        "image and label need the same number of Z and T planes, {} of {} pairs differ",
        f"give both the same number, or one of the two a single plane, {_LEAVE_OUT}",
    ),
    "channel_sizes": (
        "the files of a pair need the same size, {} of {} pairs differ",
        f"give them the same size, {_LEAVE_OUT}",
    ),
    "sizes": ("image and label need the same size, {} of {} pairs differ", f"give both the same size, {_LEAVE_OUT}"),
    "channels": (
        "all images need the same number of channels, {} of {} differ from the others",
        f"convert them, narrow --imagesPattern, {_LEAVE_OUT}",
    ),
    "not_finite": ("pixels must be finite numbers, {} of {} images hold others", f"replace these pixels, {_LEAVE_OUT}"),
}


@dataclass(frozen=True)
class Plane:
    """A pair of one plane whose files fit together."""

    pair: Pair
    shape: tuple[int, int, int]  # of the image, (C, H, W)
    dtype: np.dtype[Any]


def check_pairs(pairs: Sequence[Pair], images: Surveys, labels: Surveys) -> tuple[list[Plane], list[Fault]]:
    """All planes whose files fit together, in order, and what is wrong with the rest."""
    planes: list[Plane] = []
    faults: list[Fault] = []
    for pair in pairs:
        found = _pair_faults(pair, images, labels)
        faults.extend(found)
        if not found:
            planes.extend(_planes(pair, images, labels))
    strangers = _other_channels(planes)
    left = [plane for plane in planes if plane.pair.name not in {fault.name for fault in strangers}]
    return left, list(dict.fromkeys([*faults, *strangers]))


def pair_label_values(planes: Sequence[Plane], labels: Surveys, levels: int) -> list[LabelValues]:
    """One summary per label; the files of several classes are one label of several channels."""
    merged = []
    for paths in dict.fromkeys(plane.pair.labels for plane in planes):
        names = [shown(relative_name(path, levels)) for path in paths]
        known = [cast(LabelValues, cast(Survey, labels[path]).values) for path in paths]
        files = [replace(one, name=name) for one, name in zip(known, names, strict=True)]
        values = tuple(sorted({value for one in files for value in one.values}))
        channels, truncated = sum(one.channels for one in files), any(one.truncated for one in files)
        if len(files) == 1:
            merged.append(files[0])
        else:
            merged.append(replace(files[0], channels=channels, values=values, truncated=truncated, counts=()))
    return merged


def as_problems(faults: Iterable[Fault], pairs: Sequence[Pair]) -> list[Problem]:
    """One problem per rule, with the files that break it."""
    files = len({path for pair in pairs for path in (*pair.images, *pair.labels)})
    totals = {kind: files if kind == "unreadable" else len(pairs) for kind in _RULES}
    by_kind: dict[FaultKind, list[Fault]] = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    return [
        Problem(_RULES[kind][0].format(len(same), totals[kind]), _listed(same), _way_out(kind, same))
        for kind, same in by_kind.items()
    ]


def _way_out(kind: FaultKind, faults: Sequence[Fault]) -> str:
    has_unnamed = any(_UNNAMED in fault.detail for fault in faults)
    return f"{NAME_AXES}, {_LEAVE_OUT}" if has_unnamed else _RULES[kind][1]


def left_out_note(faults: Sequence[Fault], *, left_out: int, total: int) -> tuple[str, ...]:
    """Report what --skipCorrupt left out, if anything."""
    return (f"{left_out} of {total} pairs are left out (--skipCorrupt): {_listed(faults)}",) if faults else ()


def survey_notes(surveys: Surveys, kind: str, *, untrue: Collection[str] = ()) -> list[str]:
    """List what readers noticed, each once, with the number of files of this ``kind``; ``untrue`` notes do not hold."""
    infos = {path: survey.info for path, survey in surveys.items() if isinstance(survey, Survey)}
    notes = {str(path): [note for note in info.notes if note not in untrue] for path, info in infos.items()}
    return [
        *counted_notes(notes, kind),
        *_pixel_size_note(infos.values(), kind),
    ]


def _pixel_size_note(infos: Iterable[ImageInfo], kind: str) -> Iterable[str]:
    """Reported when pixels differ in their physical size: objects then differ in pixels as well."""
    counts = Counter(str(info.calibration) for info in infos if info.calibration.x or info.calibration.y)
    if len(counts) > 1:
        listed = listing([f"{size} ({count})" for size, count in counts.most_common()])
        yield f"{kind} have different pixel sizes: {listed}"


def wanted_sizes(pairs: Sequence[Pair], images: Surveys, labels: Surveys) -> tuple[Sizes, Sizes]:
    """Choose the image of a file that holds several, of the images' files and of the labels': the other's size.

    Files whose first image fits are left out, and those of which none or several fit.
    """
    of_images: dict[Path, tuple[int, int]] = {}
    of_labels: dict[Path, tuple[int, int]] = {}
    for pair in pairs:
        for path, label in product(pair.images, pair.labels):
            image_info, label_info = _info(images[path]), _info(labels[label])
            if image_info is None or label_info is None or image_info.size == label_info.size:
                continue
            if image_info.sizes.count(label_info.size) == 1:
                of_images[path] = label_info.size
            elif label_info.sizes.count(image_info.size) == 1:
                of_labels[label] = image_info.size
    return of_images, of_labels


def _info(survey: Survey | Fault) -> ImageInfo | None:
    return survey.info if isinstance(survey, Survey) else None


def dtype_note(planes: Sequence[Plane]) -> tuple[str, ...]:
    """Said when images differ in their pixel type: a sign of different acquisitions."""
    counts = Counter(plane.dtype.name for plane in planes)
    listed = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return (f"images have different pixel types: {listed}",) if len(counts) > 1 else ()


def _pair_faults(pair: Pair, images: Surveys, labels: Surveys) -> list[Fault]:
    surveys = [*(images[path] for path in pair.images), *(labels[path] for path in pair.labels)]
    unreadable = [survey for survey in surveys if isinstance(survey, Fault)]
    if unreadable:
        return unreadable
    try:
        expand_planes([pair], _plane_counts(pair, images, labels))
    except DataError as error:
        unnamed = any(note.startswith(UNNAMED_NOTE) for one in surveys for note in cast(Survey, one).info.notes)
        return [Fault("planes", pair.name, error.problems[0].where + (f", {_UNNAMED}" if unnamed else ""))]
    image_sizes = {path: _size(images[path]) for path in pair.images}
    label_sizes = {path: _size(labels[path]) for path in pair.labels}
    for sizes in (image_sizes, label_sizes):
        if len(set(sizes.values())) > 1:
            each = ", ".join(f"{shown(path.name)}: {size}" for path, size in sizes.items())
            return [Fault("channel_sizes", pair.name, each)]
    image, label = image_sizes[pair.images[0]], label_sizes[pair.labels[0]]
    if image == label:
        return []
    image, label = _size_and_notes(images[pair.images[0]]), _size_and_notes(labels[pair.labels[0]])
    return [Fault("sizes", pair.name, f"image {image}, label {label}")]


def _size_and_notes(survey: Survey | Fault) -> str:
    """What the reader noticed about a file may be the reason why it does not fit."""
    notes = cast(Survey, survey).info.notes
    said = [f"{note.partition(': ')[2]} {_UNNAMED}" if note.startswith(UNNAMED_NOTE) else note for note in notes]
    return "; ".join([_size(survey), *said])


def _planes(pair: Pair, images: Surveys, labels: Surveys) -> list[Plane]:
    infos = [cast(Survey, images[path]).info for path in pair.images]
    shape = sum(info.channels for info in infos), infos[0].height, infos[0].width
    dtype = np.result_type(*(info.dtype for info in infos))
    return [Plane(one, shape, dtype) for one in expand_planes([pair], _plane_counts(pair, images, labels))]


def _plane_counts(pair: Pair, images: Surveys, labels: Surveys) -> dict[Path, int]:
    """A file that is image and label at once has the same number in both."""
    counts = {path: cast(Survey, images[path]).info.planes for path in pair.images}
    return counts | {path: cast(Survey, labels[path]).info.planes for path in pair.labels}


def _size(survey: Survey | Fault) -> str:
    info = cast(Survey, survey).info
    return f"{info.height}×{info.width}"


def _other_channels(planes: Sequence[Plane]) -> list[Fault]:
    counts = Counter(plane.shape[0] for plane in planes).most_common()
    usual = counts[0][0] if counts else 0
    return [
        Fault("channels", plane.pair.name, f"{plane.shape[0]}, most have {usual}")
        for plane in planes
        if plane.shape[0] != usual
    ]


def _listed(faults: Sequence[Fault]) -> str:
    return listing([f"{shown(fault.name)} ({fault.detail})" for fault in faults])
