"""Noise with bright squares in it, the squares as labels, and a model that has hardly seen them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

import tune_smp


def write_images(folder: Path, *, count: int, side: int) -> int:
    """Write noise with bright squares, and the squares as labels, in strips; the bytes of pixels."""
    random = np.random.default_rng(0)
    strip = random.integers(0, 60, (min(side, 1024), side), dtype=np.uint8)
    squares = (np.add.outer(np.arange(len(strip)) // 32, np.arange(side) // 32) % 2 == 0).astype(np.uint8)
    for name, rows in (("images", strip + 100 * squares), ("labels", squares)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            own = rows.copy()
            own[0, :8] = list(number.to_bytes(8, "little")) if name == "images" else own[0, :8]  # no two alike
            tifffile.imwrite(
                folder / name / f"{number:05d}.tif",
                (own[: min(len(own), side - y)] for y in range(0, side, len(own))),
                shape=(side, side),
                dtype=np.uint8,
                rowsperstrip=len(own),
                bigtiff=side > 2**15,
            )
    return 2 * count * side**2


def trained(folder: Path, *, encoder: str = "ResNet,resnet18,random", tile: int = 128) -> Path:
    """The output folder of a model of this encoder that has learnt nothing."""
    write_images(folder / "data", count=2, side=256)
    tune_smp.train(
        images_dir=folder / "data" / "images",
        labels_dir=folder / "data" / "labels",
        images_pattern="{i:d+}.tif",
        labels_pattern="{i:d+}.tif",
        segmentation_mode="binary",
        encoder_base_variant_weights=encoder,
        tile_size=tile,
        batch_size=4,
        steps_per_epoch=1,
        max_epochs=1,
        dashboard=False,
        output_dir=folder / "run",
        cache_dir=folder / "cache",
    )
    return folder / "run"
