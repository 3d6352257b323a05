"""Records, images in memory and networks whose right answer is known, for the tests of prediction."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from numpy.typing import NDArray
from torch import nn

from tune_smp.data.labels import ClassMap
from tune_smp.data.normalization import Normalization
from tune_smp.data.preprocessing import FILE_NAME, Preprocessing
from tune_smp.data.reading.image_reader import ImageInfo


@pytest.fixture(autouse=True)
def any_cpu(slow_in_bfloat16: None) -> None:
    """Numbers are compared as those of float32."""


RECORD = Preprocessing(
    class_map=ClassMap("binary", (0, 255), names=("foreground",)),
    normalization=Normalization("percentile", "image"),
    channels=1,
    tile_size=32,
    divisor=32,
    fixed_tile_size=None,
    architecture="Unet",
    encoder="resnet18",
    encoder_weights=None,
    tune_smp_version="0.1.0",
)

CLASS_MAPS = {
    "binary": ClassMap("binary", (0, 255), names=("foreground",)),
    "multiclass": ClassMap("multiclass", (0, 7, 300), names=("0", "7", "300")),
    "multilabel": ClassMap("multilabel", (1, 1), names=("nucleus", "boundary")),
}


@dataclass(frozen=True)
class ArraySource:
    """An image in memory (planes, C, H, W); remembers the height of every strip that was read."""

    pixels: NDArray[Any]
    heights: list[int] = field(default_factory=list)

    @property
    def info(self) -> ImageInfo:
        planes, channels, height, width = self.pixels.shape
        return ImageInfo(channels, height, width, planes, self.pixels.dtype)

    def read(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any]:
        region: NDArray[Any] = self.pixels[plane][:, y, x]
        self.heights.append(region.shape[1])
        return region


@pytest.fixture(scope="session")
def make_preprocessing() -> Callable[..., Preprocessing]:
    """A record for tests, with changes; ``mode`` picks a class map."""

    def make(mode: str = "binary", **changes: Any) -> Preprocessing:
        return replace(RECORD, class_map=CLASS_MAPS[mode], **changes)

    return make


@pytest.fixture(scope="session")
def make_source() -> Callable[[NDArray[Any]], ArraySource]:
    """An image in memory from an array (planes, C, H, W)."""
    return ArraySource


@pytest.fixture(scope="session")
def pixelwise() -> Callable[..., nn.Module]:
    """A network whose logits at a pixel depend on that pixel alone (a 1×1 convolution): no tiling can change them."""

    def make(channels: int = 1, classes: int = 1) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(channels * 10 + classes)
            return nn.Conv2d(channels, classes, kernel_size=1)

    return make


@pytest.fixture(scope="session")
def random_image() -> Callable[..., NDArray[np.uint16]]:
    """Random uint16 pixels (planes, C, H, W)."""

    def make(*shape: int, seed: int = 0) -> NDArray[np.uint16]:
        return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)

    return make


@pytest.fixture(scope="session")
def export() -> Callable[..., nn.Module]:
    """Write a small untrained network and its record as a ``model/`` folder; returns the network."""

    def write(folder: Path, preprocessing: Preprocessing) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model: nn.Module = smp.Unet(
                "tu-test_efficientnet",
                encoder_weights=None,
                in_channels=preprocessing.channels,
                classes=preprocessing.class_map.classes,
            )
        model.save_pretrained(folder)  # type: ignore[operator]  # nn.Module's attributes may be anything
        (folder / FILE_NAME).write_text(json.dumps(preprocessing.to_json()))
        return model.eval()

    return write
