from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tune_smp.data.batches import Batch, TrainingTiles, ValidationTiles, reflected
from tune_smp.data.labels import IGNORE
from tune_smp.data.normalization import Normalizer
from tune_smp.data.pairing.pairs import Collection
from tune_smp.data.split import Region, Subset
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.errors import DataError

Arrays = Mapping[str, NDArray[Any]]
BuildStore = Callable[[Sequence[NDArray[Any]], Sequence[NDArray[Any]]], ImageStore]

SIZES = ((40, 56), (7, 10), (32, 16), (100, 33))


@pytest.fixture
def build_store(write_collection: Callable[[Arrays, Arrays], Collection], tmp_path: Path) -> BuildStore:
    """A multiclass store of these images and labels."""

    def build(images: Sequence[NDArray[Any]], labels: Sequence[NDArray[Any]]) -> ImageStore:
        names = [f"i{index:03d}" for index in range(len(images))]
        collection = write_collection(dict(zip(names, images, strict=True)), dict(zip(names, labels, strict=True)))
        return open_or_build(collection, mode="multiclass", ignore_value=9, cache_dir=tmp_path / "cache")

    return build


@pytest.fixture
def numbered(build_store: BuildStore) -> ImageStore:
    """Every pixel of all images has a value of its own, and its label is a function of that value."""
    images = [
        (index * 10_000 + np.arange(height * width)).reshape(height, width).astype(np.int32)
        for index, (height, width) in enumerate(SIZES)
    ]
    return build_store(images, [label_of(image) for image in images])


def label_of(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    return (pixels.astype(np.int64) * 7919 % 5).astype(np.uint8)


def whole(store: ImageStore, subset: Subset) -> list[Region]:
    return [Region(index, 0, height, 0, width, subset) for index, (height, width) in enumerate(store.sizes)]


def training(store: ImageStore, regions: Sequence[Region] | None = None, **settings: Any) -> TrainingTiles:
    normalizer = Normalizer(store, "zscore", "image")
    chosen = {"tile_size": 16, "batch_size": 4, "seed": 0} | settings
    return TrainingTiles(store=store, regions=regions or whole(store, "train"), normalizer=normalizer, **chosen)


def validation(store: ImageStore, regions: Sequence[Region] | None = None, **settings: Any) -> ValidationTiles:
    normalizer = Normalizer(store, "zscore", "image")
    chosen = {"tile_size": 16, "batch_size": 4} | settings
    return ValidationTiles(store=store, regions=regions or whole(store, "validation"), normalizer=normalizer, **chosen)


def image_numbers(batch: Batch) -> list[int]:
    """Which image of ``numbered`` each tile is from."""
    return [int(tile.flat[0]) // 10_000 for tile in batch.images]


def assert_same(first: Sequence[Batch], second: Sequence[Batch]) -> None:
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.masks, other.masks)
        np.testing.assert_array_equal([one.scale, one.offset], [other.scale, other.offset])


# Training


def test_every_batch_is_full_and_mask_and_image_are_from_the_same_place(numbered: ImageStore) -> None:
    tiles = training(numbered)
    batches = list(tiles.epoch(1))
    # 12 tiles of the first image, 1, 2 and 21 of the others
    assert len(batches) == tiles.steps == 36 / 4
    for batch in batches:
        assert (batch.images.shape, batch.images.dtype.name) == ((4, 1, 16, 16), "float32")
        assert (batch.masks.shape, batch.masks.dtype.name) == ((4, 1, 16, 16), "uint8")
        np.testing.assert_array_equal(batch.masks, label_of(batch.images))
        assert not batch.has_ignored
    assert not tiles.has_ignored


def test_every_region_is_cropped_as_often_as_it_holds_tiles(numbered: ImageStore) -> None:
    counts = Counter(number for batch in training(numbered).epoch(3) for number in image_numbers(batch))
    assert counts == {0: 12, 1: 1, 2: 2, 3: 21}


def test_an_epoch_depends_on_seed_and_number_only(numbered: ImageStore) -> None:
    tiles = training(numbered, foreground_fraction=0.5)
    first, second = list(tiles.epoch(1)), list(tiles.epoch(2))
    assert_same(list(training(numbered, foreground_fraction=0.5).epoch(2)), second)
    assert_same(list(tiles.epoch(1)), first)
    for other in (second, list(training(numbered, seed=1, foreground_fraction=0.5).epoch(1))):
        assert not np.array_equal(first[0].images, other[0].images)


def test_crops_vary_over_the_whole_region_and_never_leave_it(numbered: ImageStore) -> None:
    regions = [Region(0, 3, 38, 11, 50, "train"), Region(0, 0, 40, 50, 56, "validation")]
    tiles = training(numbered, regions, steps_per_epoch=100, foreground_fraction=0.5)
    seen = np.unique(np.concatenate([batch.images.ravel() for batch in tiles.epoch(0)]))
    inside = numbered.image(0)[0, 3:38, 11:50]
    assert np.isin(seen, inside).all()
    assert len(seen) > 0.98 * inside.size


def test_steps_per_epoch_bounds_an_epoch_or_fills_it_with_further_crops(numbered: ImageStore) -> None:
    assert len(list(training(numbered, steps_per_epoch=2).epoch(0))) == 2
    long = list(training(numbered, steps_per_epoch=50).epoch(0))
    assert {len(batch.images) for batch in long} == {4}
    assert len(long) == 50


def test_fewer_tiles_than_a_batch_make_one_full_batch(numbered: ImageStore) -> None:
    tiles = training(numbered, [Region(1, 0, 7, 0, 10, "train")], batch_size=8, tile_size=256)
    (batch,) = tiles.epoch(0)
    assert batch.images.shape == (8, 1, 256, 256)
    np.testing.assert_array_equal(batch.masks, label_of(batch.images))
    assert np.unique(batch.images).size == 70  # all of the small image, and nothing else
    assert len({tile.tobytes() for tile in batch.images}) > 1  # at varying places


@given(st.integers(1, 9), st.integers(0, 30), st.integers(0, 30))
def test_reflection_is_that_of_numpy(length: int, before: int, after: int) -> None:
    expected = np.pad(np.arange(length), (before, after), mode="reflect" if length > 1 else "edge")
    np.testing.assert_array_equal(
        reflected(100 - before, 100 + length + after, low=100, high=100 + length) - 100, expected
    )


def test_foreground_crops_hold_each_class_alike_however_rare(build_store: BuildStore) -> None:
    label = np.zeros((200, 200), np.uint8)
    label[:100, :120], label[150, 170] = 1, 2
    store = build_store([np.zeros((200, 200), np.uint8)], [label])
    settings: dict[str, Any] = {"steps_per_epoch": 50, "batch_size": 8}
    centred = [
        mask[0] for batch in training(store, foreground_fraction=1.0, **settings).epoch(0) for mask in batch.masks
    ]
    assert all((mask[4:12, 4:12] > 0).any() or (label > 0)[:12].any() for mask in centred)
    rare = np.mean([(mask == 2).any() for mask in centred])
    assert 0.4 < rare < 0.6
    third = [mask for batch in training(store, foreground_fraction=1 / 3, **settings).epoch(0) for mask in batch.masks]
    assert 0.1 < np.mean([(mask == 2).any() for mask in third]) < 0.25
    by_chance = [mask for batch in training(store, **settings).epoch(0) for mask in batch.masks]
    assert np.mean([(mask == 2).any() for mask in by_chance]) < 0.03


def test_foreground_is_looked_for_in_the_region_only(build_store: BuildStore) -> None:
    label = np.zeros((64, 64), np.uint8)
    label[5, 5], label[60, 60] = 1, 1
    pixels = np.arange(64 * 64).reshape(64, 64).astype(np.uint16)
    store = build_store([pixels], [label])
    region = Region(0, 32, 64, 0, 64, "train")
    for batch in training(store, [region], foreground_fraction=1.0, steps_per_epoch=10).epoch(0):
        assert (batch.masks == 1).any(axis=(1, 2, 3)).all()
        assert batch.images.min() >= 32 * 64


def test_images_without_foreground_are_cropped_anywhere(build_store: BuildStore) -> None:
    label = np.zeros((30, 30), np.uint8)
    label[3, 3] = 1
    store = build_store([np.zeros((30, 30), np.uint8)] * 2, [label, label * 0])
    empty = [Region(1, 0, 30, 0, 30, "train")]
    assert len(list(training(store, empty, foreground_fraction=1.0).epoch(0))) == 1


def test_ignored_labels_are_told_per_batch(build_store: BuildStore) -> None:
    label = np.arange(900).reshape(30, 30).astype(np.uint8) % 3
    with_ignored = np.where(label == 2, 9, label)
    store = build_store([np.zeros((30, 30), np.uint8)] * 2, [label, with_ignored])
    tiles = training(store, batch_size=1)
    batches = list(tiles.epoch(0))
    assert tiles.has_ignored
    assert [batch.has_ignored for batch in batches] == [bool((batch.masks == IGNORE).any()) for batch in batches]
    assert {batch.has_ignored for batch in batches} == {True, False}
    assert not training(store, [Region(0, 0, 30, 0, 30, "train")]).has_ignored


def test_bytes_stay_bytes_and_each_tile_has_its_images_normalisation(build_store: BuildStore) -> None:
    images = [
        np.random.default_rng(index).integers(0, 50 * (index + 1), (20, 20)).astype(np.uint8) for index in range(3)
    ]
    store = build_store(images, [image % 2 for image in images])
    normalizer = Normalizer(store, "zscore", "image")
    known = {normalizer.affine(index)[0][0]: normalizer.affine(index) for index in range(3)}
    assert len(known) == 3
    for batch in training(store).epoch(0):
        assert batch.images.dtype == np.uint8
        for scale, offset in zip(batch.scale, batch.offset, strict=True):
            np.testing.assert_array_equal([scale, offset], known[scale[0]])


def test_channels_stay_in_order(tmp_path: Path, shared_data: Path) -> None:
    from tune_smp.data.pairing.collection import find_pairs

    pattern, folder = "camvid_{i:ddd}.tif", shared_data / "camvid-multiclass"
    collection = find_pairs(folder, folder, images_pattern=pattern, labels_pattern=pattern)
    store = open_or_build(Collection(collection.pairs[:2]), mode="multiclass", ignore_value=11, cache_dir=tmp_path)
    (batch, *_) = validation(store, tile_size=128)
    np.testing.assert_array_equal(batch.images[0], store.image(0)[:, :128, :128])
    assert batch.scale.shape == batch.offset.shape == (4, 3)


# Validation


@pytest.mark.parametrize("tile_size", [16, 20, 33, 128])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_every_pixel_is_validated_exactly_once_and_in_order(
    numbered: ImageStore, tile_size: int, batch_size: int
) -> None:
    regions = [*whole(numbered, "validation")[1:], Region(0, 4, 37, 9, 56, "validation")]
    tiles = validation(numbered, regions, tile_size=tile_size, batch_size=batch_size)
    batches = list(tiles)
    assert len(batches) == len(tiles)
    assert sum(len(batch.images) for batch in batches) == tiles.tiles
    assert {len(batch.images) for batch in batches[:-1]} <= {batch_size}
    owned = [(batch.images[batch.masks != IGNORE], batch.masks[batch.masks != IGNORE]) for batch in batches]
    pixels, masks = (np.concatenate(parts) for parts in zip(*owned, strict=True))
    expected = [numbered.image(region.pair)[0, region.y0 : region.y1, region.x0 : region.x1] for region in regions]
    np.testing.assert_array_equal(np.sort(pixels), np.sort(np.concatenate([part.ravel() for part in expected])))
    np.testing.assert_array_equal(masks, label_of(pixels))
    numbers = [number for batch in batches for number in image_numbers(batch)]
    assert numbers == sorted(numbers, key=[1, 2, 3, 0].index)


def test_tiles_beyond_a_small_image_are_filled_by_reflection(numbered: ImageStore) -> None:
    (batch,) = validation(numbered, [Region(1, 0, 7, 0, 10, "validation")], tile_size=16)
    expected = np.pad(numbered.image(1)[0], ((0, 9), (0, 6)), mode="reflect")
    np.testing.assert_array_equal(batch.images[0, 0], expected)
    assert (batch.masks[0, 0, :7, :10] != IGNORE).all()
    assert (batch.masks == IGNORE).sum() == 256 - 70


def test_tiles_show_what_is_beside_them_within_their_region(numbered: ImageStore) -> None:
    batches = list(validation(numbered, [Region(0, 0, 40, 0, 30, "validation")], batch_size=1))
    second = batches[1]  # columns 14 … 29, of which it owns 15 … 29
    np.testing.assert_array_equal(second.images[0, 0], numbered.image(0)[0, :16, 14:30])
    assert (second.masks[0, 0, :, 0] == IGNORE).all()
    assert (second.masks[0, 0, :, 1:] != IGNORE).all()


def test_ignored_pixels_are_told_where_there_may_be_any(numbered: ImageStore) -> None:
    tiles = validation(numbered)
    assert tiles.has_ignored
    for batch in tiles:
        assert batch.has_ignored == bool((batch.masks == IGNORE).any())
    exact = validation(numbered, [Region(2, 0, 32, 0, 16, "validation")])
    assert not exact.has_ignored
    assert not any(batch.has_ignored for batch in exact)


def test_each_pass_is_the_same(numbered: ImageStore) -> None:
    tiles = validation(numbered)
    assert_same(list(tiles), list(tiles))


# Both


def test_a_subset_without_regions_is_an_error(numbered: ImageStore) -> None:
    with pytest.raises(DataError, match="no image is left for train"):
        training(numbered, whole(numbered, "validation")).epoch(0)
    with pytest.raises(DataError, match="no image is left for validation"):
        len(validation(numbered, whole(numbered, "train")))


def test_regions_of_the_other_subset_are_left_alone(numbered: ImageStore) -> None:
    regions = [Region(0, 0, 40, 0, 56, "train"), Region(1, 0, 7, 0, 10, "validation")]
    assert {number for batch in training(numbered, regions).epoch(0) for number in image_numbers(batch)} == {0}
    assert {number for batch in validation(numbered, regions) for number in image_numbers(batch)} == {1}


def background_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_an_error_in_the_background_reaches_the_loop(numbered: ImageStore) -> None:
    beyond = [Region(0, 0, 40, 0, 56, "train"), Region(99, 0, 40, 0, 56, "train")]
    with pytest.raises(IndexError):
        list(training(numbered, beyond).epoch(0))
    assert background_threads() == []


def test_leaving_a_loop_early_ends_the_thread(numbered: ImageStore) -> None:
    for batches in (training(numbered, steps_per_epoch=1000).epoch(0), iter(validation(numbered, batch_size=1))):
        next(batches)
        assert len(background_threads()) == 1
        batches.close()  # as leaving the loop does
        assert background_threads() == []


def test_a_storage_that_hangs_is_noticed_and_not_waited_for(
    numbered: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()

    def hang(self: ImageStore, index: int) -> NDArray[Any]:
        answers.wait()
        raise OSError("stale file handle")

    monkeypatch.setattr("tune_smp.data.ahead.SLOWEST_ITEM_S", 0.2)
    monkeypatch.setattr("tune_smp.data.ahead.LONGEST_END_S", 0.1)
    monkeypatch.setattr(ImageStore, "mask", hang)
    for batches in (training(numbered).epoch(0), iter(validation(numbered))):
        with pytest.raises(TimeoutError, match=r"no batch of tiles came within 0\.2 s"):
            next(batches)
    hanging = [thread for thread in threading.enumerate() if thread.name == "ahead"]
    assert hanging
    assert all(thread.daemon for thread in hanging), "Python's exit does not wait for them"
    answers.set()
    for thread in hanging:
        thread.join(10)
    assert background_threads() == []
