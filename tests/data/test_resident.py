"""Tiles cut where the images lie are those that the host cuts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from tune_smp.data.batches import TrainingTiles
from tune_smp.data.normalization import Normalizer
from tune_smp.data.pairing.pairs import Collection, Pair
from tune_smp.data.resident import ResidentImages, bytes_needed, room_for_images
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore, open_or_build

CPU = torch.device("cpu")
SIZES = ((40, 56), (7, 10), (32, 16), (100, 33))


@pytest.fixture(params=[(np.uint8, ()), (np.uint16, ()), (np.uint8, (3,))], ids=["8 bit", "16 bit", "colour"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ImageStore:
    """Images of several sizes; of 16 bits they are float32 to the model."""
    dtype, channels = request.param
    random = np.random.default_rng(0)
    pairs = []
    for index, size in enumerate(SIZES):
        image, label = tmp_path / f"i{index}.tif", tmp_path / f"l{index}.tif"
        pixels = random.integers(0, 250, (*size, *channels)).astype(dtype)
        tifffile.imwrite(image, pixels, photometric="rgb" if channels else "minisblack")
        tifffile.imwrite(label, random.integers(0, 5, size).astype(np.uint8))
        pairs.append(Pair(image.name, (image,), (label,)))
    collection = Collection(tuple(pairs))
    return open_or_build(collection, mode="multiclass", ignore_value=4, cache_dir=tmp_path / "cache")


def regions_of(store: ImageStore) -> list[Region]:
    """Whole images, but for the first, which is left out, and the last, of which a part is trained on."""
    whole = [Region(index, 0, height, 0, width, "train") for index, (height, width) in enumerate(store.sizes)]
    return [*whole[1:-1], Region(len(SIZES) - 1, 11, 83, 5, 30, "train")]


def tiles(store: ImageStore, regions: Sequence[Region], tile_size: int) -> TrainingTiles:
    return TrainingTiles(
        store=store,
        regions=regions,
        normalizer=Normalizer(store, "percentile", "image"),
        tile_size=tile_size,
        batch_size=5,
        seed=3,
        steps_per_epoch=8,
        foreground_fraction=0.5,
    )


@pytest.mark.parametrize("tile_size", [8, 16, 64])
def test_crops_are_those_of_the_host(store: ImageStore, tile_size: int) -> None:
    regions = regions_of(store)
    training, resident = tiles(store, regions, tile_size), ResidentImages(store, regions, CPU)
    for batch, crops in zip(training.epoch(1), training.crops(1), strict=True):
        images, masks = resident.cut(crops, tile_size)
        assert images.dtype == torch.from_numpy(batch.images).dtype
        np.testing.assert_array_equal(images.numpy(), batch.images)
        np.testing.assert_array_equal(masks.numpy(), batch.masks)
        np.testing.assert_array_equal([crops.scale, crops.offset], [batch.scale, batch.offset])
        assert crops.has_ignored == batch.has_ignored


def test_the_memory_that_is_needed_is_what_is_taken(store: ImageStore) -> None:
    regions = regions_of(store)
    resident = ResidentImages(store, regions, CPU)
    assert resident._images.nbytes + resident._masks.nbytes == bytes_needed(store, regions)


def test_a_cpu_maps_the_store_and_holds_nothing() -> None:
    assert room_for_images(CPU) == 0
