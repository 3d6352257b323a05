"""Small folders of images and labels, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import Region, split_regions
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.settings.run import RunSettings

Pixels = NDArray[Any]

TINY = ("--encoderBaseVariantWeights", "Test,tu-test_efficientnet,random", "--tileSize", "64", "--device", "cpu")
NAMED = "i{i:d+}.tif"  # pattern of most images and labels here


def flags(data: Path, *extra: str, pattern: str = NAMED, mode: str = "binary") -> list[str]:
    """Flags of ``check`` for a folder with ``images/`` and ``labels/``."""
    patterns = [f"--imagesPattern={pattern}", f"--labelsPattern={pattern}"]
    return [f"--imagesDir={data}", f"--labelsDir={data}", *patterns, f"--segmentationMode={mode}", *extra]


def write(path: Path, pixels: Pixels, **layout: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, **layout)


def square(side: int = 40) -> NDArray[np.uint8]:
    """A label, 0 and 1: a square in the middle."""
    label = np.zeros((side, side), np.uint8)
    label[side // 4 : side // 2, side // 4 : side // 2] = 1
    return label


def noise(side: int = 40, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng([side, seed]).integers(0, 255, (side, side), np.uint8)


def colours(channels: int) -> NDArray[np.uint8]:
    return np.stack([noise() // (number + 1) for number in range(channels)], axis=-1)


def write_pairs(data: Path, count: int, label: Pixels | None = None) -> None:
    """``count`` different images with labels; all labels are ``label`` if it is given."""
    for number in range(1, count + 1):
        write(data / "images" / f"i{number}.tif", noise(seed=number))
        write(data / "labels" / f"i{number}.tif", square() if label is None else label)


def stored(cache: Path) -> ImageStore:
    """The only store in the cache."""
    (index,) = cache.glob("*/index.json")
    return ImageStore.open(index.parent)


def prepared(settings: RunSettings) -> tuple[ImageStore, tuple[Region, ...]]:
    """What ``train`` makes of the data before it trains."""
    collection = find_pairs(
        settings.images_folder,
        settings.labels_folder,
        images_pattern=settings.images_pattern,
        labels_pattern=settings.labels_pattern,
    )
    store = open_or_build(collection, mode=settings.segmentation_mode, cache_dir=settings.cache_dir)
    names = [pair.name for pair in store.pairs]
    fraction, seed = settings.train_fraction, settings.seed
    return store, split_regions(store.sizes, names=names, train_fraction=fraction, seed=seed)


def tiny_run(data: Path, **changes: Any) -> RunSettings:
    """Settings of one epoch of a tiny network."""
    words = dict(word.removeprefix("--").split("=", 1) for word in flags(data))
    tiny = {"modelName": "Linknet", TINY[0][2:]: TINY[1], "tileSize": 64, "device": "cpu", "batchSize": 2}
    return RunSettings.from_flags({**words, "outputDir": data / "out", "maxEpochs": 1, **tiny, **changes})
