"""What is told about a split, and the one that is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tune_smp.data.findings import describe_collection, inspect_split
from tune_smp.data.labels import Mode
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.errors import DataError


def _store(folder: Path, labels: list[np.ndarray], mode: Mode = "binary") -> ImageStore:
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number, label in enumerate(labels):
        image = np.random.default_rng(number).integers(0, 255, label.shape[-2:], dtype=np.uint8)
        tifffile.imwrite(folder / "images" / f"{number}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{number}.tif", label)
    collection = find_pairs(folder / "images", folder / "labels", images_pattern=".*", labels_pattern=".*")
    return open_or_build(collection, mode=mode, cache_dir=folder / "cache")


def _regions(store: ImageStore, train: set[int]) -> list[Region]:
    return [
        Region(pair, 0, height, 0, width, "train" if pair in train else "validation")
        for pair, (height, width) in enumerate(store.sizes)
    ]


BACKGROUND = np.zeros((40, 50), dtype=np.uint8)
NUCLEUS = BACKGROUND.copy()
NUCLEUS[:20] = 255


def test_validation_of_background_alone_is_refused(tmp_path: Path) -> None:
    store = _store(tmp_path, [NUCLEUS, BACKGROUND])
    with pytest.raises(DataError, match="all validation images are background only") as error:
        inspect_split(store, _regions(store, {0}))
    assert error.value.exit_code == 3
    assert "--seed" in str(error.value)


def test_training_on_background_alone_is_told(tmp_path: Path) -> None:
    store = _store(tmp_path, [NUCLEUS, BACKGROUND])
    (note,) = inspect_split(store, _regions(store, {1}))
    assert "all training images are background only" in note


def test_a_class_on_one_side_only_is_told(tmp_path: Path) -> None:
    first, second = BACKGROUND.copy(), BACKGROUND.copy()
    first[:10], second[:10] = 3, 3
    second[10:20] = 7
    store = _store(tmp_path, [first, second], "multiclass")
    (note,) = inspect_split(store, _regions(store, {1}))
    assert note == "class 7 in none of the validation images"


def test_nothing_is_told_where_nothing_is_missing(tmp_path: Path) -> None:
    store = _store(tmp_path, [NUCLEUS, NUCLEUS])
    assert inspect_split(store, _regions(store, {1})) == ()


def test_a_collection_in_three_lines(tmp_path: Path) -> None:
    store = _store(tmp_path, [NUCLEUS, np.repeat(BACKGROUND, 2, axis=0)])
    first, example, last = describe_collection(store, _regions(store, {1}))
    assert first == "2 images, 1 channel, 40×50 to 80×50 px: 1 for training, 1 for validation"
    assert example == "for example: 0.tif with 0.tif"
    assert last == "label pixels: foreground 16.7%"
