"""Reading an image file as its tests do, and images to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.reading.formats import open_image

RNG = np.random.default_rng(0)


def pixels(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    return (RNG.random(shape) * 250).astype(dtype)


def read(path: Path, plane: int = 0) -> NDArray[Any]:
    with open_image(path) as reader:
        image = reader.read(plane)
        info = reader.info
        assert image.shape == (info.channels, info.height, info.width)
        assert image.dtype == info.dtype
        assert image.dtype.isnative
        region = reader.read(plane, slice(3, 9), slice(5, 6))
        assert np.array_equal(region, image[:, 3:9, 5:6], equal_nan=image.dtype.kind == "f")
        return image


def notes(path: Path) -> tuple[str, ...]:
    with open_image(path) as reader:
        return reader.info.notes
