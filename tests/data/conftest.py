"""What the tests of this folder share: small collections of real files, and stores of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tifffile
from numpy.typing import NDArray

from tune_smp.data.pairing.pairs import Collection, Pair

Arrays = Mapping[str, NDArray[Any]]
WriteCollection = Callable[[Arrays, Arrays], Collection]


def write_tiff(path: Path, pixels: NDArray[Any]) -> Path:
    """``pixels`` (H, W) or (planes, H, W), one page each, no guessing of colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="minisblack")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder for image stores, not there yet."""
    return tmp_path / "cache"


@pytest.fixture
def write_collection(tmp_path: Path) -> WriteCollection:
    """Writes images and labels of the same names under the test's own folder and pairs them by name."""

    def write(images: Arrays, labels: Arrays) -> Collection:
        pairs = [
            Pair(
                name=f"{name}.tif",
                images=(write_tiff(tmp_path / "images" / f"{name}.tif", images[name]),),
                labels=(write_tiff(tmp_path / "labels" / f"{name}.tif", labels[name]),),
            )
            for name in images
        ]
        return Collection(tuple(pairs))

    return write
