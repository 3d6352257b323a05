"""Findings on a collection and its split, reported before anything is trained on it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.labels import ClassMap
from tune_smp.data.pairing.pairs import relative_name
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore, class_counts
from tune_smp.errors import DataError, Problem, listing
from tune_smp.texts import shown

LABELS_WHERE = "--labelsDir, --labelsPattern"


def inspect_split(store: ImageStore, regions: Sequence[Region]) -> tuple[str, ...]:
    """Report the classes in training and validation.

    Raises DataError when validation holds no foreground at all: no metric would mean anything.
    """
    train = class_counts(store, [region for region in regions if region.subset == "train"])
    validation = class_counts(store, [region for region in regions if region.subset == "validation"])
    foreground = foreground_classes(store.class_map)
    if not validation[foreground].any():
        raise DataError(
            Problem(
                "the labels of all validation images are background only",
                LABELS_WHERE,
                _way_to_foreground(store.class_map),
            )
        )
    if not train[foreground].any():
        return ("the labels of all training images are background only: the model cannot learn the foreground",)
    return (*_missing(store.class_map, train, "training"), *_missing(store.class_map, validation, "validation"))


def _way_to_foreground(class_map: ClassMap) -> str:
    if class_map.ignore_value is not None:
        return f"look whether --ignoreValue {class_map.ignore_value} is meant: it leaves these pixels out"
    return "label some more images, or choose another --seed, --trainFraction or --groupBy"


def describe_collection(store: ImageStore, regions: Sequence[Region]) -> tuple[str, ...]:
    """The collection in three lines: its images, an example of a pair, and what the labels hold of each class."""
    heights, widths = zip(*store.sizes, strict=True)
    smallest, largest = min(store.sizes, key=np.prod), max(store.sizes, key=np.prod)
    size = f"{smallest[0]}×{smallest[1]}"
    if (min(heights), min(widths)) != (max(heights), max(widths)):
        size += f" to {largest[0]}×{largest[1]}"
    counts = {
        name: len({region.pair for region in regions if region.subset == name}) for name in ("train", "validation")
    }
    return (
        f"{len(store)} image{'s' * (len(store) != 1)}, {store.channels} channel{'s' * (store.channels != 1)}, "
        f"{size} px: {counts['train']} for training, {counts['validation']} for validation",
        f"for example: {_example(store)}",
        f"label pixels: {_shares(store, regions)}",
    )


def _example(store: ImageStore) -> str:
    pair, levels = store.pairs[0], store.collection.levels
    images, labels = (
        " + ".join(shown(relative_name(path, above)) for path in paths)
        for paths, above in zip((pair.images, pair.labels), levels, strict=True)
    )
    return f"{images} with {labels}"


def _shares(store: ImageStore, regions: Sequence[Region]) -> str:
    pixels = sum((region.y1 - region.y0) * (region.x1 - region.x0) for region in regions)
    counts = class_counts(store, regions)
    shares = [f"{name} {count / pixels:.1%}" for name, count in zip(store.class_map.names, counts, strict=True)]
    return listing(shares, limit=20)


def foreground_classes(class_map: ClassMap) -> slice:
    """Select the model's classes that are foreground: all but multiclass's first, which is background by convention."""
    return slice(1, None) if class_map.mode == "multiclass" else slice(None)


def _missing(class_map: ClassMap, counts: NDArray[np.int64], subset: str) -> tuple[str, ...]:
    absent = [class_map.names[number] for number in np.flatnonzero(counts == 0)]
    if not absent:
        return ()
    return (f"{'class' if len(absent) == 1 else 'classes'} {listing(absent)} in none of the {subset} images",)
