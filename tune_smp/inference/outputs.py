"""What predictions become: a name for every output, and label values from probabilities."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.pairing.collection import ImageGroup
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.formats import image_stem
from tune_smp.errors import DataError, Problem, listing
from tune_smp.texts import shown

Output = Literal["labels", "probabilities"]
LONGEST_NAME = 255  # bytes, on every file system in common use


@dataclass(frozen=True)
class Job:
    """One image to predict and the file to write."""

    name: str
    paths: tuple[Path, ...]
    output: Path


def plan_outputs(images: Sequence[ImageGroup], folder: Path, *, suffix: str, overwrite: bool) -> tuple[Job, ...]:
    """A job per image, named after its first file: ``r01_c0.tif`` → ``folder/r01_c0.ome.tif`` for the suffix "ome.tif".

    Folders that are part of an image's name are kept: ``plate1.ome.zarr/A/1/0`` → ``folder/plate1/A/1/0.ome.tif``.

    Raises DataError where two images would have one output, where its name would be too long, where it is an input, or
    where it exists already and ``overwrite`` is not asked for.
    """
    jobs = tuple(Job(image.name, image.paths, folder / f"{_stem(image)}.{suffix}") for image in images)
    problems = [*_shared_outputs(jobs), *_names_too_long(jobs), *_outputs_that_are_inputs(jobs)]
    existing = [] if overwrite or problems else [shown(job.output.name) for job in jobs if job.output.exists()]
    if existing:
        said = f"{len(existing)} of {len(jobs)} outputs exist already"
        fix = "choose another --outputDir, or pass --overwrite to replace them"
        problems.append(Problem(said, f"{folder}: {listing(existing)}", fix))
    if problems:
        raise DataError(problems)
    return jobs


def _stem(image: ImageGroup) -> str:
    """The name of the first file with its folders, none of which keeps an image's suffix."""
    return "/".join(map(image_stem, image.paths[0].parts[-1 - image.levels :]))


def to_prediction(probabilities: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Probabilities (K, h, W) → (1 or K, h, W): the likeliest class's number, or 1 above the threshold of the class."""
    if preprocessing.segmentation_mode == "multiclass":
        return np.asarray(probabilities.argmax(axis=0, keepdims=True), np.uint8)
    thresholds = np.array(preprocessing.class_thresholds, np.float32)
    return np.asarray(probabilities > thresholds[:, None, None], np.uint8)


def to_labels(probabilities: NDArray[np.float32], preprocessing: Preprocessing) -> NDArray[Any]:
    """Probabilities (K, h, W) → label values (C, h, W)."""
    return preprocessing.class_map.decode(to_prediction(probabilities, preprocessing))


def _shared_outputs(jobs: Iterable[Job]) -> list[Problem]:
    sharing: dict[Path, list[str]] = defaultdict(list)
    for job in jobs:
        sharing[job.output].append(shown(job.paths[0].name))
    fix = "use a narrower --imagesPattern, and another --outputDir for the rest"
    return [
        Problem(f"{len(names)} images would be written to {shown(output.name)}", listing(names), fix)
        for output, names in sharing.items()
        if len(names) > 1
    ]


def _names_too_long(jobs: Iterable[Job]) -> list[Problem]:
    long = [shown(job.paths[0].name) for job in jobs if len(os.fsencode(job.output.name)) > LONGEST_NAME]
    if not long:
        return []
    said = f"{len(long)} predictions would have file names of more than {LONGEST_NAME} bytes"
    return [Problem(said, listing(long), "rename the images, or leave them out with a narrower --imagesPattern")]


def _outputs_that_are_inputs(jobs: Iterable[Job]) -> list[Problem]:
    # Not Path.resolve: it fails on a loop of links, which is named when it is opened.
    inputs = {os.path.realpath(path) for job in jobs for path in job.paths}
    clashing = [shown(job.output.name) for job in jobs if os.path.realpath(job.output) in inputs]
    if not clashing:
        return []
    fix = "choose another --outputDir: images are never overwritten"
    return [Problem("the predictions would replace the images themselves", listing(clashing), fix)]
