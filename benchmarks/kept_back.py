"""Five collections with every fourth image kept back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tune_smp.data.split import Region, Subset
from tune_smp.data.store.image_store import ImageStore
from tune_smp.data.tiles import grid_count
from tune_smp.settings.run import RunSettings

COLLECTIONS: Mapping[str, Mapping[str, Any]] = {
    "membrane-binary": {"imagesPattern": "membrane_z{z:dd}.tif", "labelsPattern": "membrane_z{z:dd}.tif"},
    "nuclei-binary": {"imagesPattern": "nuclei_{i:ddd}.tif", "labelsPattern": "nuclei_{i:ddd}_mask.tif"},
    "nuclei-multiclass": {"imagesPattern": "nuclei_{i:ddd}.tif", "labelsPattern": "nuclei_{i:ddd}_mask.tif"},
    "nuclei-multilabel": {"imagesPattern": "nuclei_{i:ddd}.ome.tif", "labelsPattern": "nuclei_{i:ddd}_mask.ome.tif"},
    "camvid-multiclass": {
        "imagesPattern": "camvid_{i:ddd}.tif",
        "labelsPattern": "camvid_{i:ddd}.tif",
        "ignoreValue": 11,
    },
}
TILE_SIZE = 128  # px, in which images are counted
VALIDATION_TILES, KEPT_TILES = 112, 224  # at most, so that most of the time goes into training


def data_flags(folder: Path, collection: str) -> dict[str, Any]:
    """The flags that describe a collection, whose images and labels lie in ``folder``."""
    mode = collection.rpartition("-")[2]
    return {"imagesDir": str(folder), "labelsDir": str(folder), "segmentationMode": mode, **COLLECTIONS[collection]}


def split(store: ImageStore, settings: RunSettings) -> tuple[list[Region], list[Region], list[Region]]:
    """Regions to train on, to validate with, and kept back."""
    order = sorted(range(len(store)), key=lambda pair: store.pairs[pair].name)
    kept = [pair for place, pair in enumerate(order) if place % 4 == 3]
    others = [int(pair) for pair in np.random.default_rng(settings.seed).permutation(sorted(set(order) - set(kept)))]
    train = round(settings.train_fraction * len(others))
    kept = [int(pair) for pair in np.random.default_rng(0).permutation(kept)]
    return (
        regions(store, others[:train], "train"),
        regions(store, limited(store, others[train:], VALIDATION_TILES), "validation"),
        regions(store, limited(store, kept, KEPT_TILES), "validation"),
    )


def regions(store: ImageStore, pairs: Sequence[int], subset: Subset) -> list[Region]:
    return [Region(pair, 0, store.sizes[pair][0], 0, store.sizes[pair][1], subset) for pair in pairs]


def limited(store: ImageStore, pairs: Sequence[int], most: int) -> list[int]:
    """The first pairs, as far as their tiles go."""
    chosen: list[int] = []
    tiles = 0
    for pair in pairs:
        more = grid_count(*store.sizes[pair], tile=TILE_SIZE)
        if not chosen or tiles + more <= most:
            chosen.append(pair)
            tiles += more
    return chosen
