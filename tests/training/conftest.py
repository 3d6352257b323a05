"""What the tests of training share: settings of tiny runs, and stores of small real files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray

from tune_smp.data.labels import Mode
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import Region, split_regions
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.data.synthetic import draw_nuclei
from tune_smp.settings.run import RunSettings

MakeSettings = Callable[..., RunSettings]
MakeStore = Callable[[Mode], ImageStore]
PATTERN = "image_{i:d+}.tif"
IMAGES = 8
SIZE = (80, 100)  # px, no multiple of the tiles: validation tiles overlap
VOID = 9  # the label value that is ignored, where there is one


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of tiny models spend their time waiting for each other, on a busy machine most of it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def any_cpu(slow_in_bfloat16: None) -> None:
    """Numbers are compared as those of float32."""


@pytest.fixture(scope="session")
def make_settings(tmp_path_factory: pytest.TempPathFactory) -> MakeSettings:
    """Settings of a tiny run on the CPU; keywords change them. The runs read a store and write no file."""
    tmp_path = tmp_path_factory.mktemp("settings")
    tiny: dict[str, Any] = {
        "images_dir": tmp_path / "images",
        "labels_dir": tmp_path / "labels",
        "images_pattern": PATTERN,
        "labels_pattern": PATTERN,
        "output_dir": tmp_path / "output",
        "segmentation_mode": "binary",
        "model_name": "Linknet",  # a quarter of the time of a Unet
        "encoder_base_variant_weights": "Test,tu-test_efficientnet,random",
        "optimizer_name": "AdamW",
        "learning_rate": 5e-3,
        "max_epochs": 4,
        "batch_size": 4,
        "tile_size": 64,
        "device": "cpu",
    }

    def make(**changes: Any) -> RunSettings:
        return RunSettings(**{**tiny, **changes})

    return make


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> MakeStore:
    """The image store of eight synthetic images with labels of the given mode; multiclass labels have void pixels."""

    @cache
    def make(mode: Mode) -> ImageStore:
        folder = tmp_path_factory.mktemp(mode)
        for index in range(IMAGES):
            image, label = draw_nuclei(SIZE, seed=index)
            _write(folder / "images" / f"image_{index}.tif", image)
            _write(folder / "labels" / f"image_{index}.tif", _label(mode, image, label))
        collection = find_pairs(folder / "images", folder / "labels", images_pattern=PATTERN, labels_pattern=PATTERN)
        ignore_value = VOID if mode == "multiclass" else None
        return open_or_build(collection, mode=mode, ignore_value=ignore_value, cache_dir=folder / "cache")

    return make


@pytest.fixture(scope="session")
def regions() -> tuple[Region, ...]:
    """Six of the images for training, two for validation."""
    names = [f"image_{index}.tif" for index in range(IMAGES)]
    return split_regions([SIZE] * IMAGES, names=names, train_fraction=0.75, seed=0)


def _write(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="separate" if pixels.ndim > 2 else None)


def _label(mode: Mode, image: NDArray[Any], label: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W), or for multilabel (2, H, W): nuclei, and bright pixels."""
    if mode == "binary":
        return label
    if mode == "multilabel":
        return np.stack([label > 0, image > 90]).astype(np.uint8)
    classes = (label > 0).astype(np.uint8) + ((label > 0) & (image > 90))
    classes[:5] = VOID
    return classes
