"""Faults of files, as a user meets them: names, pixels and labels. The numbers are those of the table of faults."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.end_to_end.small_data import (
    NAMED,
    colours,
    flags,
    noise,
    prepared,
    square,
    stored,
    tiny_run,
    write,
    write_pairs,
)
from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.data.synthetic import draw_nuclei
from tune_smp.training.run import TrainingRun

Command = Callable[..., subprocess.CompletedProcess[str]]
Answer = Callable[..., tuple[int, str]]
Pixels = NDArray[Any]

pytestmark = pytest.mark.usefixtures("cache")


# 2 and 3: names that do not match, and partners that are missing


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("img_{r:d+}.tif", ("none of 3 file names matches", "r9.tif", 'try --imagesPattern "r{r:d+}.tif"')),
        ("r{r:d}.tif", ("2 images are left out", "r10.tif, r11.tif", 'use --imagesPattern "r{r:d+}.tif"')),
    ],
)
def test_2_patterns_that_find_too_little(pattern: str, words: Sequence[str], answer: Answer, tmp_path: Path) -> None:
    for kind, number in itertools.product(("images", "labels"), (9, 10, 11)):
        write(tmp_path / kind / f"r{number}.tif", square())
    code, printed = answer("train", *flags(tmp_path, pattern=pattern), "--outputDir", tmp_path / "out")
    assert code == 3
    assert all(word in printed for word in words)


def test_2_files_that_are_left_out_are_counted_and_told(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    write(tmp_path / "images" / "overview.tif", noise())
    code, printed = answer("check", *flags(tmp_path))
    assert code == 0
    assert f'1 files do not match --imagesPattern "{NAMED}": overview.tif' in printed


def test_3_partners_that_are_missing_or_too_many(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    for number in range(20, 32):
        write(tmp_path / "images" / f"i{number}.tif", noise())
    write(tmp_path / "labels" / "i50.tif", square())
    write(tmp_path / "labels" / "i02.tif", square())
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")
    assert code == 3
    assert "12 of 14 images have no label" in printed
    assert "i20.tif" in printed
    assert "i29.tif and 2 more" in printed
    assert "1 of 4 labels have no image" in printed
    assert "i02.tif and i2.tif" in printed
    assert printed.count("--allowUnpaired") == 3
    write_pairs(tmp_path, 3)
    code, printed = answer("check", *flags(tmp_path), "--allowUnpaired")
    assert code == 0
    assert printed.count("note: left out: ") == 3
    assert "2 images, 1 channel" in printed


# 4: files that are not what they should be


def test_4_bad_files_are_all_named_at_once_and_can_be_skipped(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 8)
    images, labels = tmp_path / "images", tmp_path / "labels"
    write(labels / "i1.tif", square(20))
    (images / "i2.tif").write_bytes((images / "i3.tif").read_bytes()[:900])
    (labels / "i3.tif").write_bytes(b"")
    (images / "i4.tif").write_text("no image")
    Image.fromarray(noise()).save(images / "i5.tif", format="PNG")
    for junk in (".DS_Store", "._i1.tif", "Thumbs.db", "i1.tif~"):
        (images / junk).write_text("junk")
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")
    assert code == 3
    assert "4 of 16 files cannot be read" in printed
    assert all(f"i{number}.tif (" in printed for number in range(1, 6))
    assert "labels/i3.tif (" in printed, "images and labels of one name are told apart"
    assert "image 40×40, label 20×20" in printed
    assert "--skipCorrupt" in printed
    assert not any(junk in printed for junk in (".DS_Store", "._i1", "Thumbs", "i1.tif~"))
    code, printed = answer("check", *flags(tmp_path), "--skipCorrupt")
    assert code == 0
    assert "note: 5 of 8 pairs are left out (--skipCorrupt): " in printed
    assert all(f"i{number}.tif (" in printed for number in range(1, 6))
    assert "3 images, 1 channel" in printed


# 5: pixels of every kind


READ_RIGHT: dict[str, tuple[Pixels, dict[str, Any]]] = {
    "float64": (noise() / 7.0, {}),
    "float64 beyond float32": (noise() * 1e300, {}),
    "negative": (noise().astype(np.float32) - 1000, {}),
    "int32": (noise().astype(np.int32) * -70_000, {}),
    "bool": (noise() > 128, {}),
    "constant": (np.full((40, 40), 7, np.uint16), {}),
    "16 bit": (noise().astype(np.uint16) * 257, {}),
    "RGB": (colours(3), {"photometric": "rgb"}),
    "RGBA": (colours(4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "Z": (np.stack([noise(), noise() // 2]), {"metadata": {"axes": "ZYX"}, "imagej": True}),
    "T": (np.stack([noise(), noise() // 2]), {"metadata": {"axes": "TYX"}, "imagej": True}),
    "C": (np.stack([noise(), noise() // 2]), {"metadata": {"axes": "CYX"}, "imagej": True}),
}


@pytest.mark.parametrize("kind", READ_RIGHT)
def test_5_pixels_are_read_right_or_named(kind: str, answer: Answer, tmp_path: Path, cache: Path) -> None:
    pixels, layout = READ_RIGHT[kind]
    for number in (1, 2):  # the second is another picture: equal ones stay on one side of the split
        rows = np.roll(pixels, number - 1, axis=-3 if kind.startswith("RGB") else -2)
        write(tmp_path / "images" / f"i{number}.tif", rows, **layout)
        write(tmp_path / "labels" / f"i{number}.tif", square())
    code, printed = answer("check", *flags(tmp_path))
    if kind == "float64 beyond float32":
        assert code == 3
        assert "i1.tif (64-bit floats must fit into 32 bits" in printed
        return
    assert code == 0, printed
    store = stored(cache)
    planes = pixels if kind in ("Z", "T") else [pixels]
    expected = [plane[None] if plane.ndim == 2 else plane for plane in planes]
    if kind.startswith("RGB"):
        expected = [np.moveaxis(pixels[..., :3], -1, 0)]
    assert len(store) == 2 * len(expected)
    for number, image in enumerate(expected):
        np.testing.assert_allclose(store.image(number), image, rtol=1e-6)
    assert ("hold one value only" in printed) == (kind == "constant")
    assert ("alpha" in printed) == (kind == "RGBA")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_5_pixels_that_are_no_numbers_are_named(value: float, answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    pixels = noise().astype(np.float32)
    pixels[3, 4:7] = value
    write(tmp_path / "images" / "i2.tif", pixels)
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")
    assert code == 3
    assert "i2.tif (3 NaN or infinite pixels)" in printed


def test_5_png_of_16_bits_keeps_them(answer: Answer, tmp_path: Path, cache: Path) -> None:
    pixels = noise().astype(np.uint16) * 257
    write_pairs(tmp_path, 2)
    for number in (1, 2):
        Image.fromarray(np.roll(pixels, number - 1, axis=0)).save(tmp_path / "images" / f"i{number}.png")
        (tmp_path / "images" / f"i{number}.tif").unlink()
    code, _ = answer("check", *flags(tmp_path), "--imagesPattern", "i{i:d}.png")
    assert code == 0
    np.testing.assert_array_equal(stored(cache).image(0)[0], pixels)


def test_5_extreme_images_train_without_a_division_by_zero(tmp_path: Path) -> None:
    write_pairs(tmp_path, 4)
    extremes = (np.full((40, 40), -7.0), np.zeros((40, 40)), noise() * 1e30, noise() * -1e-30)
    for number, pixels in enumerate(extremes, start=1):
        write(tmp_path / "images" / f"i{number}.tif", pixels.astype(np.float32))
    for normalization in ("percentile", "zscore", "minmax"):
        settings = tiny_run(tmp_path, normalization=normalization, stepsPerEpoch=2)
        report = TrainingRun(settings, *prepared(settings)).run_epoch()
        assert np.isfinite([report["train_loss"], report["val_loss"]]).all()


# 6: labels of every kind


def test_6_a_side_without_foreground_is_told_for_training_and_refused_for_validation(
    answer: Answer, tmp_path: Path
) -> None:
    write_pairs(tmp_path, 2, label=np.zeros((40, 40), np.uint8))
    write(tmp_path / "labels" / "i1.tif", square())
    told = {answer("check", *flags(tmp_path), f"--seed={seed}", "--trainFraction=0.5") for seed in range(6)}
    codes = sorted(code for code, _ in told)
    assert codes == [0, 3]
    (_, warned), (_, refused) = sorted(told)
    assert "note: the labels of all training images are background only" in warned
    assert "the labels of all validation images are background only" in refused
    assert "for example: " in refused  # what there is, is said first
    write(tmp_path / "labels" / "i1.tif", square() * 0)
    assert answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")[0] == 3


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (square() * 255, "the foreground has the value 255 in the labels, and in predictions"),
        (np.arange(1600, dtype=np.uint16).reshape(40, 40) // 100, "16 distinct values (instance numbers?)"),
        (np.linspace(0, 1, 1600, dtype=np.float32).reshape(40, 40), "(a probability map?): everything above 0 is"),
    ],
    ids=["255", "instances", "float"],
)
def test_6_binary_takes_everything_above_zero_and_says_so(
    label: Pixels, words: str, answer: Answer, tmp_path: Path, cache: Path
) -> None:
    write_pairs(tmp_path, 2, label)
    code, printed = answer("check", *flags(tmp_path))
    assert code == 0
    assert words in printed
    np.testing.assert_array_equal(stored(cache).mask(0)[0], label > 0)


def test_6_a_class_that_one_side_lacks_is_told(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    write(tmp_path / "labels" / "i1.tif", square() + square() * (noise() > 100))
    told = {answer("check", *flags(tmp_path, mode="multiclass"), f"--seed={seed}")[1] for seed in range(6)}
    assert {
        side for side in ("training", "validation") for text in told if f"class 2 in none of the {side}" in text
    } == {
        "training",
        "validation",
    }


# 7 and 10: odd sizes, few images, small batches


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_7_10_one_image_smaller_than_a_tile_in_batches_of_one(architecture: str, tmp_path: Path) -> None:
    image, label = draw_nuclei((37, 59), seed=2)
    write(tmp_path / "images" / "i1.tif", image)
    write(tmp_path / "labels" / "i1.tif", label)
    tile = max(64, ARCHITECTURES[architecture].min_tile_size)
    changes = {"modelName": architecture, "tileSize": tile, "batchSize": 1, "stepsPerEpoch": 1}
    settings = tiny_run(tmp_path, **changes)
    store, regions = prepared(settings)
    assert [region.subset for region in regions] == ["train", "validation"], "split in space"
    report = TrainingRun(settings, store, regions).run_epoch()
    assert np.isfinite([report["train_loss"], report["val_loss"], report["val_iou"]]).all()


def test_7_10_one_huge_image_whose_tiles_do_not_divide_into_batches(tmp_path: Path) -> None:
    label = np.zeros((700, 4099), np.uint8)
    label[::3, ::7] = 1
    write(tmp_path / "images" / "i1.tif", label * 200)
    write(tmp_path / "labels" / "i1.tif", label)
    settings = tiny_run(tmp_path, tileSize=256, batchSize=4, stepsPerEpoch=1)
    store, regions = prepared(settings)
    run = TrainingRun(settings, store, regions)
    assert (regions[1].x1 - regions[1].x0) * 3 < 4099 < regions[1].x1 * 1.001
    assert np.isfinite(run.run_epoch()["val_loss"])
