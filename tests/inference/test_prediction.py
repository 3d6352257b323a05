"""``tune-smp predict`` from files to files: what is written, what is refused, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

from tune_smp.data.channel_statistics import image_statistics
from tune_smp.data.normalization import affine
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.formats import open_image
from tune_smp.data.reading.images import LabelWriter
from tune_smp.data.view_gains import ViewGains, ViewScore
from tune_smp.errors import DataError, Problem, ResourceError, SettingsError
from tune_smp.inference.array_predictor import load_predictor
from tune_smp.inference.prediction import predict_folder
from tune_smp.inference.sources import StackedReader
from tune_smp.settings.predict import PredictSettings

Make = Callable[..., Any]


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., PredictSettings]:
    def make(**changes: Any) -> PredictSettings:
        folders = {"model": tmp_path / "model", "images_dir": tmp_path / "images", "output_dir": tmp_path / "out"}
        return PredictSettings(**{**folders, "images_pattern": "img_{i:d+}.tif", "device": "cpu", **changes})

    return make


@pytest.fixture
def images(tmp_path: Path) -> Callable[..., list[NDArray[np.uint8]]]:
    """Write random images ``img_{i}.tif`` of the given shapes."""

    def write(*shapes: tuple[int, ...], **options: Any) -> list[NDArray[np.uint8]]:
        (tmp_path / "images").mkdir(exist_ok=True)
        written = [np.random.default_rng(i).integers(0, 200, shape).astype(np.uint8) for i, shape in enumerate(shapes)]
        for index, pixels in enumerate(written):
            tifffile.imwrite(tmp_path / "images" / f"img_{index}.tif", pixels, **options)
        return written

    return write


def read(path: Path, plane: int = 0) -> NDArray[Any]:
    with open_image(path) as reader:
        return reader.read(plane)


def probabilities(model: nn.Module, preprocessing: Preprocessing, image: NDArray[Any]) -> NDArray[np.float32]:
    """What the network says of an image (C, T, T) that is exactly one tile."""
    scale, offset = affine(image_statistics([image]), preprocessing.normalization.method)
    normalised = torch.from_numpy(image * scale[:, None, None] + offset[:, None, None])
    with torch.inference_mode():
        logits = model(normalised[None])[0]
    return np.asarray(logits.softmax(0) if preprocessing.segmentation_mode == "multiclass" else logits.sigmoid())


@pytest.mark.parametrize("mode", ["binary", "multilabel"])
def test_the_thresholds_are_those_of_the_model_but_where_one_is_given(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make, mode: str
) -> None:
    preprocessing = make_preprocessing(mode)
    model = export(tmp_path / "model", preprocessing)
    (image,) = images((32, 32))
    soft = probabilities(model, preprocessing, image[None])
    middles = np.median(soft, axis=(1, 2))
    export(tmp_path / "model", replace(preprocessing, thresholds=tuple(map(float, middles))))

    predict_folder(settings())
    predict_folder(settings(output_dir=tmp_path / "given", threshold=float(middles[0]) * 0.9))

    labels, given = (read(tmp_path / folder / "img_0.ome.tif") > 0 for folder in ("out", "given"))
    assert [int(of_class.sum()) for of_class in labels] == [512] * len(soft), "half of the pixels"
    np.testing.assert_array_equal(given, soft > middles[0] * 0.9)


def test_a_multiclass_model_has_no_threshold(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing("multiclass"))
    images((32, 32))
    with pytest.raises(SettingsError, match=r"takes the likeliest class.*\n.*--threshold 0.3\n.*leave --threshold out"):
        predict_folder(settings(threshold=0.3))


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_labels_and_probabilities_are_the_networks_own(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make, mode: str
) -> None:
    preprocessing = make_preprocessing(mode)
    model = export(tmp_path / "model", preprocessing)
    (image,) = images((32, 32))
    wanted = probabilities(model, preprocessing, image[None])

    predict_folder(settings())
    predict_folder(settings(output="probabilities", output_dir=tmp_path / "soft", format="ome.zarr"))

    np.testing.assert_allclose(read(tmp_path / "soft" / "img_0.ome.zarr"), wanted, atol=1e-5)
    values = np.array(preprocessing.class_map.values)
    classes = wanted.argmax(0, keepdims=True) if mode == "multiclass" else (wanted > 0.5).astype(int)
    labels = read(tmp_path / "out" / "img_0.ome.tif")
    assert labels.dtype == (np.uint16 if mode == "multiclass" else np.uint8)
    assert np.array_equal(labels, classes if mode == "multilabel" else values[classes])
    assert len(np.unique(classes)) > 1  # an untrained network, but not one that says the same everywhere


def test_a_folder_of_many_sizes_is_predicted_and_told(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    images((10, 7), (64, 32), (33, 100), (1, 1))
    lines: list[str] = []

    summary = predict_folder(settings(), on_image=lines.append)

    assert [path.name for path in summary.outputs] == [f"img_{i}.ome.tif" for i in range(4)]
    assert [read(path).shape for path in summary.outputs] == [(1, 10, 7), (1, 64, 32), (1, 33, 100), (1, 1, 1)]
    assert lines == [f"{i + 1} of 4: img_{i}.tif" for i in range(4)]
    assert (summary.device, summary.tiling.tile_size, summary.tiling.overlap) == ("cpu", 32, 8)
    assert summary.skipped == summary.notes == ()


def test_planes_are_predicted_each_and_written_as_planes(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    preprocessing = make_preprocessing()
    model = export(tmp_path / "model", preprocessing)
    (stack,) = images((3, 32, 32), photometric="minisblack", metadata={"axes": "ZYX"})

    predict_folder(settings(output="probabilities"))

    for plane in range(3):
        got = read(tmp_path / "out" / "img_0.ome.tif", plane)
        np.testing.assert_allclose(got, probabilities(model, preprocessing, stack[plane][None]), atol=1e-5)


def test_channels_in_files_of_their_own_are_stacked(
    tmp_path: Path, settings: Make, export: Make, make_preprocessing: Make
) -> None:
    preprocessing = make_preprocessing(channels=2, channel_variable="c", channel_values=(0, 1))
    model = export(tmp_path / "model", preprocessing)
    pixels = np.random.default_rng(0).integers(0, 200, (2, 32, 32)).astype(np.uint8)
    (tmp_path / "images").mkdir()
    for channel in (1, 0):
        tifffile.imwrite(tmp_path / "images" / f"img_3_c{channel}.tif", pixels[channel])

    predict_folder(settings(images_pattern="img_{i:d+}_c{c:d}.tif", output="probabilities"))

    got = read(tmp_path / "out" / "img_3_c0.ome.tif")
    np.testing.assert_allclose(got, probabilities(model, preprocessing, pixels), atol=1e-5)


def test_predictions_are_read_as_images_again(
    tmp_path: Path, settings: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    (tmp_path / "images").mkdir()
    with LabelWriter(tmp_path / "images" / "img_0.ome.zarr", shape=(1, 1, 40, 40), dtype=np.uint8) as writer:
        writer.write(np.arange(1600, dtype=np.uint8).reshape(1, 40, 40))

    summary = predict_folder(settings(images_pattern="img_{i:d+}.ome.zarr", format="ome.zarr"))

    assert [path.name for path in summary.outputs] == ["img_0.ome.zarr"]


def test_images_of_other_channels_are_told_together_before_anything_is_written(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    images((40, 40), (40, 40, 3), (50, 50, 3))

    with pytest.raises(DataError) as told:
        predict_folder(settings())

    (problem,) = told.value.problems
    assert problem.problem == "the model takes 1 channels, the image has 3"
    assert "img_1.tif" in problem.where
    assert "img_2.tif" in problem.where
    assert list((tmp_path / "out").iterdir()) == []


def test_bad_files_are_told_together_and_skipped_if_asked_for(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    images((40, 40), (40, 40), (40, 40))
    (tmp_path / "images" / "img_0.tif").write_bytes(b"")
    (tmp_path / "images" / "img_2.tif").write_bytes(b"not an image")

    with pytest.raises(DataError, match=r"(?s)img_0\.tif.*img_2\.tif"):
        predict_folder(settings())
    summary = predict_folder(settings(skip_corrupt=True))

    assert [path.name for path in summary.outputs] == ["img_1.ome.tif"]
    assert summary.skipped == ("img_0.tif", "img_2.tif")
    assert len(summary.notes) == 2
    assert all(name in note for name, note in zip(summary.skipped, summary.notes, strict=True))


def test_pixels_that_cannot_be_decoded_are_told_after_the_other_images_were_predicted(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    images((40, 40), (40, 40), (40, 40), compression="zlib")
    damage(tmp_path / "images" / "img_1.tif")

    lines: list[str] = []
    with pytest.raises(DataError, match=r"cannot be decoded(.|\n)*img_1\.tif"):
        predict_folder(settings(), on_image=lines.append)

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["img_0.ome.tif", "img_2.ome.tif"]
    assert lines == ["1 of 3: img_0.tif", "3 of 3: img_2.tif"]
    assert predict_folder(settings(skip_corrupt=True, overwrite=True)).skipped == ("img_1.tif",)


def test_pixels_that_are_no_numbers_are_told(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    images((40, 40))
    for index, value in ((1, np.nan), (2, np.inf), (3, 0.5)):
        pixels = np.random.default_rng(0).random((40, 40), np.float32)
        pixels[20, 20] = value
        tifffile.imwrite(tmp_path / "images" / f"img_{index}.tif", pixels)

    with pytest.raises(DataError, match=r"finite numbers.*\n.*img_1\.tif, .*img_2\.tif\n"):
        predict_folder(settings())

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["img_0.ome.tif", "img_3.ome.tif"]


def damage(path: Path) -> None:
    """Overwrite compressed pixels, keeping the header."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\xff" * count
    path.write_bytes(content)


def test_no_thread_reads_on_where_an_output_cannot_be_written(
    tmp_path: Path,
    settings: Make,
    images: Make,
    export: Make,
    make_preprocessing: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export(tmp_path / "model", make_preprocessing("binary"))
    images((500, 40), (64, 64))

    def full(*_: Any, **__: Any) -> None:
        raise ResourceError(Problem("the disk is full"))

    opened: list[StackedReader] = []
    closed: list[StackedReader] = []
    begin, end = StackedReader.__init__, StackedReader.__exit__

    def noted_begin(reader: StackedReader, paths: Sequence[Path]) -> None:
        begin(reader, paths)
        opened.append(reader)

    def noted_end(reader: StackedReader, *exception: object) -> None:
        closed.append(reader)
        end(reader, *exception)

    monkeypatch.setattr(LabelWriter, "write", full)
    monkeypatch.setattr(StackedReader, "__init__", noted_begin)
    monkeypatch.setattr(StackedReader, "__exit__", noted_end)
    with pytest.raises(ResourceError, match="the disk is full"):
        predict_folder(settings())

    assert len(opened) >= 3  # both when headers were looked at, then the one that failed, and maybe one ahead of it
    assert set(map(id, opened)) == set(map(id, closed))
    assert [thread.name for thread in threading.enumerate() if thread.name == "ahead"] == []


def test_when_no_image_is_left_skipping_does_not_help(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    images((40, 40))
    (tmp_path / "images" / "img_0.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"img_0\.tif"):
        predict_folder(settings(skip_corrupt=True))


def test_earlier_predictions_are_kept_unless_overwrite(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    images((40, 40))
    predict_folder(settings())
    with pytest.raises(DataError, match="1 of 1 outputs exist already"):
        predict_folder(settings())
    assert len(predict_folder(settings(overwrite=True)).outputs) == 1


def test_a_tile_that_the_model_cannot_take_is_told_before_the_images_are_looked_at(
    tmp_path: Path, settings: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    with pytest.raises(SettingsError, match="multiple of 32 px, received 40"):
        predict_folder(settings(tile_size=40))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    images((40, 40))
    with pytest.raises(ResourceError, match="--device gpu"):
        predict_folder(settings(device="gpu"))


def test_tiles_batches_and_views_are_passed_on(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    export(tmp_path / "model", make_preprocessing())
    images((70, 90))

    def predicted(**changes: Any) -> NDArray[Any]:
        predict_folder(settings(output="probabilities", overwrite=True, **changes))
        return read(tmp_path / "out" / "img_0.ome.tif")

    plain = predicted(tile_size=64, overlap=16)
    np.testing.assert_allclose(predicted(tile_size=64, overlap=16, batch_size=1), plain, atol=1e-5)
    for change in ({"tile_size": 96}, {"overlap": 0}, {"test_time_augmentation": "flips"}):
        assert np.abs(predicted(**{"tile_size": 64, "overlap": 16, **change}) - plain).max() > 1e-4


def with_gains(preprocessing: Preprocessing, none: float, flips: float, every: float) -> Preprocessing:
    scores = {"none": ViewScore(none, 0.5), "flips": ViewScore(flips, 2.0), "all": ViewScore(every, 4.0)}
    measured = ViewGains.of(scores, metric="IoU", images=3, device="cpu")  # type: ignore[arg-type]
    return replace(preprocessing, views=measured)


def test_true_is_all_auto_is_what_paid_and_the_default_is_none(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    model = export(tmp_path / "model", with_gains(make_preprocessing(), 0.8, 0.81, 0.8105))
    (image,) = images((32, 32))

    def predicted(**changes: Any) -> NDArray[Any]:
        predict_folder(settings(output="probabilities", overwrite=True, **changes))
        return read(tmp_path / "out" / "img_0.ome.tif")

    def by_hand(turns: int, axes: tuple[int, ...]) -> NDArray[Any]:
        seen = np.rot90(np.flip(image[None], axes), turns, (-2, -1)).copy()
        return np.flip(np.rot90(probabilities(model, make_preprocessing(), seen), -turns, (-2, -1)), axes)

    eight = np.mean([by_hand(turns, axes) for axes in ((), (-1,)) for turns in range(4)], axis=0)
    np.testing.assert_allclose(predicted(test_time_augmentation=True), eight, atol=1e-5)
    np.testing.assert_array_equal(predicted(test_time_augmentation="all"), predicted(test_time_augmentation=True))
    four = np.mean([by_hand(turns, axes) for axes in ((), (-1,)) for turns in (0, 2)], axis=0)
    np.testing.assert_allclose(predicted(test_time_augmentation="auto"), four, atol=1e-5)
    np.testing.assert_allclose(predicted(), by_hand(0, ()), atol=1e-5)
    for asked, wanted in ((True, eight), ("flips", four), ("auto", four), (False, by_hand(0, ()))):
        loaded = load_predictor(tmp_path / "model", device="cpu", test_time_augmentation=asked)
        np.testing.assert_allclose(loaded.predict(image, output="probabilities"), wanted, atol=1e-5)
    with pytest.raises(SettingsError, match="--testTimeAugmentation has no choice 'flip'"):
        load_predictor(tmp_path / "model", test_time_augmentation="flip")


@pytest.mark.parametrize("fast", [True, False])
def test_auto_computes_in_bfloat16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, images: Make, export: Make, make_preprocessing: Make, fast: bool
) -> None:
    model = export(tmp_path / "model", make_preprocessing())
    (image,) = images((32, 32))
    exact = probabilities(model, make_preprocessing(), image[None])
    monkeypatch.setattr("tune_smp.training.precision.cpu_is_faster_in_bfloat16", lambda: fast)
    error = {}
    for asked in ("auto", "float32", "bfloat16"):
        loaded = load_predictor(tmp_path / "model", device="cpu", precision=asked)
        error[asked] = np.abs(loaded.predict(image, output="probabilities") - exact).max()
    assert error["float32"] < 1e-5 < error["bfloat16"] < 0.02  # bfloat16 has 8 bits
    assert error["auto"] == error["bfloat16" if fast else "float32"]


def test_a_gain_that_nobody_asked_for_is_noted(
    tmp_path: Path, settings: Make, images: Make, export: Make, make_preprocessing: Make
) -> None:
    images((32, 32))

    def notes(**changes: Any) -> tuple[str, ...]:
        return predict_folder(settings(overwrite=True, **changes)).notes

    export(tmp_path / "model", with_gains(make_preprocessing(), 0.8, 0.81, 0.8105))
    (only,) = notes()
    assert "--testTimeAugmentation flips had +0.0100 IoU on validation images, in 4.0 times the time" in only
    assert notes(test_time_augmentation="none") == notes(test_time_augmentation="auto") == ()
    export(tmp_path / "model", with_gains(make_preprocessing(), 0.8, 0.8018, 0.8015))
    assert notes() == ()
    export(tmp_path / "model", make_preprocessing())
    assert notes() == ()
    (unknown,) = notes(test_time_augmentation="auto")
    assert "does not say what pays" in unknown
