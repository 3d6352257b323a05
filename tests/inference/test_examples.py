"""The best, the median and the worst validation image: which they are, and what is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tune_smp.data.normalization import Normalization
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.data.synthetic import draw_nuclei
from tune_smp.errors import DataError
from tune_smp.inference import examples
from tune_smp.inference.examples import validation_examples
from tune_smp.inference.predictor import Predictor

Make = Callable[..., Any]
PATTERN = "i_{i:d+}.tif"
VOID = 9


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., ImageStore]:
    """A store of images and of labels, (H, W) or (C, H, W) each."""

    def make(images: Sequence[NDArray[Any]], labels: Sequence[NDArray[Any]], **options: Any) -> ImageStore:
        for kind, arrays in (("images", images), ("labels", labels)):
            (tmp_path / kind).mkdir()
            for index, pixels in enumerate(arrays):
                axes = {"metadata": {"axes": "CYX"}, "ome": True} if pixels.ndim == 3 else {}
                tifffile.imwrite(tmp_path / kind / f"i_{index}.tif", pixels, photometric="minisblack", **axes)
        found = find_pairs(tmp_path / "images", tmp_path / "labels", images_pattern=PATTERN, labels_pattern=PATTERN)
        return open_or_build(found, cache_dir=tmp_path / "cache", **options)

    return make


def whole(store: ImageStore) -> list[Region]:
    return [Region(pair, 0, height, 0, width, "validation") for pair, (height, width) in enumerate(store.sizes)]


def nuclei(count: int, side: int = 64) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    drawn = [draw_nuclei((side, side), seed=seed) for seed in range(count)]
    return [image for image, _ in drawn], [(label > 0).astype(np.uint8) for _, label in drawn]


def iou(prediction: NDArray[Any], label: NDArray[Any]) -> float:
    return float((prediction & label).sum() / (prediction | label).sum())


def foreground(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(probabilities[0] > 0.5)


def predicted(model: Any, preprocessing: Preprocessing, source: Any) -> NDArray[np.float32]:
    rows = Predictor(model, preprocessing).predict(source)
    return np.concatenate([strip.probabilities for strip in rows], axis=1)


def test_they_are_ranked_by_their_own_score(
    tmp_path: Path, make_store: Make, export: Make, make_preprocessing: Make, make_source: Make
) -> None:
    images, labels = nuclei(5)
    store = make_store(images, labels, mode="binary")
    preprocessing = make_preprocessing()
    model = export(tmp_path / "model", preprocessing)
    said = [foreground(predicted(model, preprocessing, make_source(image[None, None]))) for image in images]
    scores = sorted((iou(mask, label > 0) for mask, label in zip(said, labels, strict=True)), reverse=True)
    assert len(set(scores)) == 5

    regions = [Region(0, 0, 9, 0, 9, "train"), *whole(store)]
    shown = validation_examples(tmp_path, store, regions, metric_name="IoU", device="cpu")

    assert [one.caption for one in shown] == ["best of 5", "median of 5", "worst of 5"]
    assert [one.metric_value for one in shown] == pytest.approx([scores[0], scores[2], scores[4]])
    for one in shown:
        index = int(one.name.removeprefix("i_").removesuffix(".tif"))
        np.testing.assert_array_equal(one.prediction[0], said[index])
        np.testing.assert_array_equal(one.label[0], labels[index])
        assert (one.image.shape, one.image.dtype.name, one.remark) == ((64, 64), "uint8", "")
        assert np.corrcoef(one.image.ravel(), images[index].ravel())[0, 1] > 0.9


def test_of_many_some_are_looked_at_and_that_is_said(
    tmp_path: Path, make_store: Make, export: Make, make_preprocessing: Make
) -> None:
    store = make_store(*nuclei(5, side=32), mode="binary")
    export(tmp_path / "model", make_preprocessing())
    shown = validation_examples(tmp_path, store, whole(store), metric_name="Fscore", device="cpu", most=2)
    assert [one.caption for one in shown] == ["best of 2, evenly spaced over 5", "worst of 2, evenly spaced over 5"]
    assert {one.name for one in shown} == {"i_0.tif", "i_4.tif"}


def test_a_part_of_an_image_is_normalised_as_its_whole_image_is(
    tmp_path: Path, make_store: Make, export: Make, make_preprocessing: Make, make_source: Make
) -> None:
    (image,), (label,) = nuclei(1)
    image[:, :32] //= 4  # the two halves have other statistics than the whole
    store = make_store([image], [label], mode="binary")
    preprocessing = make_preprocessing()
    model = export(tmp_path / "model", preprocessing)
    scale, offset = preprocessing.normalization.affine(store.statistics(0))
    constants = Normalization("none", "collection", tuple(scale.tolist()), tuple(offset.tolist()))
    half = make_source(image[None, None, :, :32])
    wanted = foreground(predicted(model, replace(preprocessing, normalization=constants), half))

    (shown,) = validation_examples(
        tmp_path, store, [Region(0, 0, 64, 0, 32, "validation")], metric_name="IoU", device="cpu"
    )

    assert shown.metric_value == pytest.approx(iou(wanted, label[:, :32] > 0))
    np.testing.assert_array_equal(shown.prediction[0], wanted)
    assert shown.caption == "only of 1"
    assert shown.remark == "rows 0 to 63, columns 0 to 31 of 64 × 64 px"


def test_of_a_large_image_the_part_with_the_most_foreground_is_shown(
    tmp_path: Path, make_store: Make, export: Make, make_preprocessing: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "LARGEST", 64)
    (image,), _ = nuclei(1, side=200)
    label = np.zeros_like(image)
    label[150:190, 10:50] = 1
    store = make_store([image], [label], mode="binary")
    export(tmp_path / "model", make_preprocessing())
    (shown,) = validation_examples(tmp_path, store, whole(store), metric_name="IoU", device="cpu")
    assert shown.remark == "rows 128 to 191, columns 0 to 63 of 200 × 200 px"
    np.testing.assert_array_equal(shown.label[0], label[128:192, 0:64])


def test_ignored_pixels_do_not_count(
    tmp_path: Path, make_store: Make, export: Make, make_preprocessing: Make, make_source: Make
) -> None:
    images, labels = nuclei(3, side=32)
    classes = [np.where(label > 0, 300, 0).astype(np.uint16) for label in labels]
    for number, label in enumerate(classes):
        label[:4, :8] = 7
        label[number * 8 : number * 8 + 8] = VOID
    preprocessing = make_preprocessing("multiclass")
    model = export(tmp_path / "model", preprocessing)
    store = make_store(images, classes, mode="multiclass", ignore_value=VOID)

    shown = validation_examples(tmp_path, store, whole(store), metric_name="Accuracy", device="cpu")

    values = np.array(preprocessing.class_map.values)
    for one in shown:
        index = int(one.name.removeprefix("i_").removesuffix(".tif"))
        said = predicted(model, preprocessing, make_source(images[index][None, None])).argmax(0)
        counted = classes[index] != VOID
        assert one.metric_value == pytest.approx((values[said] == classes[index])[counted].mean())
        np.testing.assert_array_equal(one.prediction[0], said)
        np.testing.assert_array_equal(one.label[0] == 255, ~counted)


def test_multilabel_has_a_layer_per_class(
    tmp_path: Path, make_store: Make, export: Make, make_preprocessing: Make
) -> None:
    images, labels = nuclei(2, side=32)
    both = [np.stack([label, np.roll(label, 3, axis=1)]) for label in labels]
    export(tmp_path / "model", make_preprocessing("multilabel"))
    store = make_store(images, both, mode="multilabel")
    shown = validation_examples(tmp_path, store, whole(store), metric_name="IoU", device="cpu")
    assert [one.caption for one in shown] == ["best of 2", "worst of 2"]
    for one in shown:
        np.testing.assert_array_equal(one.label, both[int(one.name[2])])
        assert one.prediction.shape == (2, 32, 32)


@pytest.mark.parametrize(
    ("channels", "dtype", "remark"),
    [
        (3, np.uint8, ""),
        (3, np.uint16, "channels shown as red, green and blue"),
        (2, np.uint16, "mean of 2 channels"),
    ],
)
def test_channels_become_something_to_look_at(
    tmp_path: Path,
    make_store: Make,
    export: Make,
    make_preprocessing: Make,
    channels: int,
    dtype: Any,
    remark: str,
) -> None:
    (image,), labels = nuclei(1, side=32)
    stack = np.stack([image.astype(dtype)] * channels)
    store = make_store([stack], labels, mode="binary")
    export(tmp_path / "model", make_preprocessing(channels=channels))
    (shown,) = validation_examples(tmp_path, store, whole(store), metric_name="IoU", device="cpu")
    assert shown.remark == remark
    assert shown.image.shape == ((32, 32, 3) if channels == 3 else (32, 32))
    assert np.ptp(shown.image) > 50


def test_without_a_model_or_validation_images(
    tmp_path: Path, make_store: Make, export: Make, make_preprocessing: Make
) -> None:
    store = make_store(*nuclei(1, side=32), mode="binary")
    with pytest.raises(DataError, match="lacks"):
        validation_examples(tmp_path, store, whole(store), metric_name="IoU", device="cpu")
    export(tmp_path / "model", make_preprocessing())
    assert validation_examples(tmp_path, store, [], metric_name="IoU", device="cpu") == ()
