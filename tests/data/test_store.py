from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.made import WriteCollection, binary_label, ordinary, random_image
from tune_smp.data.channel_statistics import image_statistics
from tune_smp.data.labels import IGNORE
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.pairing.pairs import Collection, Pair
from tune_smp.data.split import Region
from tune_smp.data.store import build as store_build
from tune_smp.data.store import decoding
from tune_smp.data.store.image_store import class_counts, open_or_build
from tune_smp.errors import DataError

# What is in a store


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, ">u2"])
def test_pixels_come_back_as_they_are_in_the_files(write_collection: WriteCollection, cache: Path, dtype: Any) -> None:
    images = {name: random_image(30, dtype=dtype, seed=seed, width=50) for seed, name in enumerate("abc")}
    labels = {name: binary_label(30, seed=seed, width=50) for seed, name in enumerate("abc")}
    store = open_or_build(write_collection(images, labels), mode="binary", cache_dir=cache)
    assert len(store) == 3
    assert (store.channels, store.sizes) == (1, ((30, 50),) * 3)
    assert store.dtype == (np.uint8 if dtype is np.uint8 else np.float32)
    for index, name in enumerate(images):
        assert store.image(index).dtype == np.dtype(dtype).newbyteorder("=")
        np.testing.assert_array_equal(store.image(index)[0], images[name])
        np.testing.assert_array_equal(store.mask(index)[0], labels[name])
        assert store.statistics(index) == image_statistics([images[name][None]])
        assert store.class_pixels(index).tolist() == [labels[name].sum()] == [store.foreground_pixels(index)]
        assert store.ignored_pixels(index) == 0


def test_images_of_several_sizes_and_types_are_told(write_collection: WriteCollection, cache: Path) -> None:
    images = {"a": random_image(20), "b": random_image(33, dtype=np.uint16), "c": np.full((9, 9), 7, np.uint8)}
    labels = {"a": binary_label(20), "b": binary_label(33), "c": binary_label(9)}
    store = open_or_build(write_collection(images, labels), mode="binary", cache_dir=cache)
    assert store.sizes == ((20, 20), (33, 33), (9, 9))
    assert store.dtype == np.float32
    assert "images have different pixel types: 2 uint8, 1 uint16" in store.notes
    assert "1 of 3 images hold one value only: c.tif" in store.notes


def test_multiclass_masks_hold_class_numbers_and_ignore(write_collection: WriteCollection, cache: Path) -> None:
    label = np.zeros((40, 40), np.uint8)
    label[:, 30:], label[3, 3:9], label[20:, :5] = 40, 7, 99
    store = open_or_build(
        write_collection({"a": random_image()}, {"a": label}), mode="multiclass", ignore_value=99, cache_dir=cache
    )
    expected = np.select([label == 7, label == 40, label == 99], [1, 2, IGNORE], 0)
    np.testing.assert_array_equal(store.mask(0)[0], expected)
    assert store.class_pixels(0).tolist() == [(expected == number).sum() for number in range(3)]
    assert store.foreground_pixels(0) == ((expected == 1) | (expected == 2)).sum()
    assert store.ignored_pixels(0) == (label == 99).sum()


def test_foreground_places_are_of_their_class_and_rare_classes_have_all_of_theirs(
    write_collection: WriteCollection, cache: Path
) -> None:
    label = np.zeros((120, 130), np.uint8)
    label[10:110, 20:100], label[50, 60:65] = 1, 2
    collection = write_collection(
        {"a": random_image(120, width=130), "b": random_image(9)}, {"a": label, "b": label[:9, :9]}
    )
    store = open_or_build(collection, mode="multiclass", cache_dir=cache)
    common, rare = store.foreground(0, 1), store.foreground(0, 2)
    assert (len(common), len(rare), len(store.foreground(0)), len(store.foreground(0, 0))) == (512, 5, 517, 0)
    assert set(label[tuple(common.T)]) == {1}
    assert set(label[tuple(rare.T)]) == {2}
    assert len({tuple(place) for place in common.tolist()}) == len(common)
    assert common[:, 0].min() < 20 and common[:, 0].max() > 100  # from all over the class
    assert len(store.foreground(1)) == 0


def test_labels_without_any_foreground_make_a_store_too(write_collection: WriteCollection, cache: Path) -> None:
    collection = write_collection({"a": random_image()}, {"a": np.zeros((40, 40), np.uint8)})
    store = open_or_build(collection, mode="binary", cache_dir=cache)
    assert (len(store.foreground(0)), store.foreground_pixels(0), class_counts(store, []).tolist()) == (0, 0, [0])


def test_classes_of_a_multilabel_mask_may_be_channels_or_files(
    write_collection: WriteCollection, tmp_path: Path, cache: Path
) -> None:
    first, second = binary_label(seed=1), binary_label(seed=2) * 255
    image = tmp_path / "image.tif"
    tifffile.imwrite(image, random_image())
    together, apart = tmp_path / "both.tif", (tmp_path / "one.tif", tmp_path / "two.tif")
    tifffile.imwrite(together, np.stack([first, second]), metadata={"axes": "CYX"}, photometric="minisblack")
    tifffile.imwrite(apart[0], first)
    tifffile.imwrite(apart[1], second)
    for labels in ((together,), apart):
        store = open_or_build(Collection((Pair("a", (image,), labels),)), mode="multilabel", cache_dir=cache)
        np.testing.assert_array_equal(store.mask(0), [first, second > 0])
        assert store.class_pixels(0).tolist() == [first.sum(), (second > 0).sum()]
        assert store.foreground_pixels(0) == (first | second > 0).sum()
        assert set(second[tuple(store.foreground(0, 1).T)]) == {255}


def test_colours_and_channel_files_become_channels(tmp_path: Path, cache: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (20, 30, 4)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "rgba.png")
    files = [tmp_path / "c0.tif", tmp_path / "c1.tif", tmp_path / "c2.tif"]
    for index, path in enumerate(files):
        tifffile.imwrite(path, colours[..., index].astype(np.uint16 if index == 1 else np.uint8))
    tifffile.imwrite(tmp_path / "label.tif", binary_label(20, width=30))
    label = (tmp_path / "label.tif",)
    pairs = (Pair("rgba", (tmp_path / "rgba.png",), label), Pair("files", tuple(files), label))
    store = open_or_build(Collection(pairs), mode="binary", cache_dir=cache)
    assert store.channels == 3
    np.testing.assert_array_equal(store.image(0), np.moveaxis(colours[..., :3], -1, 0))
    np.testing.assert_array_equal(store.image(1), store.image(0))
    assert store.image(1).dtype == np.uint16  # holds the values of all three files
    assert any("alpha channel" in note and "(1 of 4 images)" in note for note in store.notes)


def test_each_plane_is_a_pair_and_a_flat_label_serves_all_planes(
    write_collection: WriteCollection, cache: Path
) -> None:
    stack = np.stack([random_image(seed=seed) for seed in range(3)])
    labels = np.stack([binary_label(seed=seed) for seed in range(3)])
    collection = write_collection({"deep": stack, "shared": stack}, {"deep": labels, "shared": labels[0]})
    store = open_or_build(collection, mode="binary", cache_dir=cache)
    assert [(pair.name, pair.plane) for pair in store.pairs] == [
        (f"{name}.tif[{plane}]", plane) for name in ("deep", "shared") for plane in range(3)
    ]
    assert store.collection.pairs == store.pairs
    for plane in range(3):
        np.testing.assert_array_equal(store.image(plane)[0], stack[plane])
        np.testing.assert_array_equal(store.mask(plane)[0], labels[plane])
        np.testing.assert_array_equal(store.image(3 + plane)[0], stack[plane])
        np.testing.assert_array_equal(store.mask(3 + plane)[0], labels[0])


def test_an_image_read_in_strips_gives_the_same_store(
    write_collection: WriteCollection, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (90, 70, 3)).astype(np.float32)
    tifffile.imwrite(
        tmp_path / "a.tif", np.moveaxis(colours, -1, 0), metadata={"axes": "CYX"}, photometric="minisblack"
    )
    labels = np.random.default_rng(1).integers(0, 2, (2, 90, 70)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "l.tif", labels, metadata={"axes": "CYX"}, photometric="minisblack")
    collection = Collection((Pair("a", (tmp_path / "a.tif",), (tmp_path / "l.tif",)),))
    whole = open_or_build(collection, mode="multilabel", cache_dir=cache / "whole")
    monkeypatch.setattr(decoding, "STRIP_BYTES", 20_000)
    monkeypatch.setattr(decoding, "STRIP_ROWS", 8)
    monkeypatch.setattr(decoding, "BLOCK_PIXELS", 500)
    strips = open_or_build(collection, mode="multilabel", cache_dir=cache / "strips")
    np.testing.assert_array_equal(strips.image(0), np.moveaxis(colours, -1, 0))
    np.testing.assert_array_equal(strips.mask(0), labels)
    np.testing.assert_array_equal(strips.foreground(0), whole.foreground(0))
    assert (strips.statistics(0).low, strips.statistics(0).high) == (whole.statistics(0).low, whole.statistics(0).high)
    assert strips.class_pixels(0).tolist() == whole.class_pixels(0).tolist() == labels.sum(axis=(1, 2)).tolist()


def test_several_processes_build_the_same_store(
    write_collection: WriteCollection, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = ordinary(write_collection, count=9)
    alone = open_or_build(collection, mode="binary", cache_dir=cache / "alone")
    monkeypatch.setattr(store_build, "FILES_PER_PROCESS", 1)
    together = open_or_build(collection, mode="binary", cache_dir=cache / "together")
    for name in [path.name for path in alone.path.iterdir()]:
        assert (alone.path / name).read_bytes() == (together.path / name).read_bytes(), name


def test_counts_of_regions_are_those_of_their_pixels(write_collection: WriteCollection, cache: Path) -> None:
    labels = {"a": random_image(50) % 3, "b": random_image(30, seed=1) % 3}
    collection = write_collection({"a": random_image(50), "b": random_image(30)}, labels)
    store = open_or_build(collection, mode="multiclass", cache_dir=cache)
    regions = [Region(0, 5, 31, 2, 50, "train"), Region(1, 0, 30, 0, 30, "train")]
    inside = np.concatenate([labels["a"][5:31, 2:50].ravel(), labels["b"].ravel()])
    assert class_counts(store, regions).tolist() == np.bincount(inside, minlength=3).tolist()
    assert class_counts(store, []).tolist() == [0, 0, 0]


# What cannot go into a store


def write_bad_files(write: WriteCollection) -> Collection:
    """Of nine pairs, one is right."""
    good, floats = random_image(), random_image(dtype=np.float32)
    floats[3, 4:7] = [np.nan, np.inf, -np.inf]
    images = dict.fromkeys(("good", "cut", "empty", "text", "small", "planes"), good)
    labels = {name: binary_label() for name in (*images, "nan", "badlabel")}
    labels |= {"small": binary_label(20), "planes": np.stack([binary_label()] * 3)}
    collection = write(images | {"planes": np.stack([good] * 2), "nan": floats, "badlabel": good}, labels)
    folder = collection.pairs[0].images[0].parent
    (folder / "cut.tif").write_bytes((folder / "cut.tif").read_bytes()[:900])
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.tif").write_text("this is no image")
    (folder.parent / "labels" / "badlabel.tif").write_bytes(b"II*\0broken")
    tifffile.imwrite(folder / "colour.tif", np.zeros((40, 40, 3), np.uint8))
    colour = Pair("colour.tif", (folder / "colour.tif",), collection.pairs[0].labels)
    return Collection((*collection.pairs, colour))


def test_everything_that_is_wrong_is_said_at_once(write_collection: WriteCollection, cache: Path) -> None:
    with pytest.raises(DataError) as raised:
        open_or_build(write_bad_files(write_collection), mode="binary", cache_dir=cache)
    by_rule = {problem.problem: problem for problem in raised.value.problems}
    unreadable = by_rule.pop("4 of 17 files cannot be read")
    assert all(name in unreadable.where for name in ("cut.tif", "empty.tif", "text.tif", "badlabel.tif"))
    assert {rule: problem.where for rule, problem in by_rule.items()} == {
        "image and label need the same size, 1 of 9 pairs differ": "small.tif (image 40×40, label 20×20)",
        "image and label need the same number of Z and T planes, 1 of 9 pairs differ": (
            "planes.tif (planes.tif: 2, planes.tif: 3, without axis names)"
        ),
        "all images need the same number of channels, 1 of 9 differ from the others": "colour.tif (3, most have 1)",
        "pixels must be finite numbers, 1 of 9 images hold others": "nan.tif (3 NaN or infinite pixels)",
    }
    assert all("--skipCorrupt" in problem.fix for problem in raised.value.problems)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]  # nothing half-built


def test_corrupt_files_can_be_left_out(write_collection: WriteCollection, cache: Path) -> None:
    collection = write_bad_files(write_collection)
    store = open_or_build(collection, mode="binary", cache_dir=cache, skip_corrupt=True)
    assert [pair.name for pair in store.pairs] == ["good.tif"]
    np.testing.assert_array_equal(store.image(0)[0], random_image())
    note = next(note for note in store.notes if "--skipCorrupt" in note)
    assert note.startswith("8 of 9 pairs are left out")
    assert all(pair.images[0].name in note for pair in collection.pairs[1:])


def test_a_collection_of_corrupt_files_only_is_refused_in_any_case(
    write_collection: WriteCollection, cache: Path
) -> None:
    collection = ordinary(write_collection, count=2)
    for pair in collection.pairs:
        pair.images[0].write_bytes(b"")
    for skip_corrupt in (False, True):
        with pytest.raises(DataError, match="2 of 4 files cannot be read"):
            open_or_build(collection, mode="binary", cache_dir=cache, skip_corrupt=skip_corrupt)


def test_labels_that_do_not_fit_the_mode_are_said_with_the_rest(write_collection: WriteCollection, cache: Path) -> None:
    one_class = np.zeros((40, 40), np.uint8)
    floats = random_image(dtype=np.float32)
    floats[0, 0] = np.nan
    collection = write_collection({"a": floats, "b": random_image()}, {"a": one_class, "b": one_class})
    with pytest.raises(DataError) as raised:
        open_or_build(collection, mode="multiclass", cache_dir=cache)
    assert ["finite" in str(raised.value), "at least two classes" in str(raised.value)] == [True, True]


def test_channel_files_of_different_sizes_are_named(tmp_path: Path, cache: Path) -> None:
    for name, side in (("c0", 40), ("c1", 30), ("label", 40)):
        tifffile.imwrite(tmp_path / f"{name}.tif", binary_label(side))
    files = tuple(tmp_path / f"{name}.tif" for name in ("c0", "c1"))
    with pytest.raises(DataError, match=r"c0.tif: 40×40, c1.tif: 30×30"):
        open_or_build(Collection((Pair("a", files, (tmp_path / "label.tif",)),)), mode="binary", cache_dir=cache)


def test_a_file_that_is_gone_is_named(write_collection: WriteCollection, cache: Path) -> None:
    collection = ordinary(write_collection)
    collection.pairs[1].labels[0].unlink()
    with pytest.raises(DataError, match=r"i1\.tif"):
        open_or_build(collection, mode="binary", cache_dir=cache)


def test_a_real_collection(shared_data: Path, cache: Path) -> None:
    folder = shared_data / "camvid-multiclass"
    pattern = "camvid_{i:ddd}.tif"
    collection = find_pairs(folder, folder, images_pattern=pattern, labels_pattern=pattern)
    store = open_or_build(collection, mode="multiclass", ignore_value=11, cache_dir=cache)
    assert (len(store), store.channels, store.class_map.classes) == (120, 3, 11)
    label = tifffile.imread(store.pairs[60].labels[0])
    np.testing.assert_array_equal(store.mask(60)[0], np.where(label == 11, IGNORE, label))
    np.testing.assert_array_equal(np.moveaxis(store.image(60), 0, -1), tifffile.imread(store.pairs[60].images[0]))
