from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from tune_smp.data import channel_statistics
from tune_smp.data.channel_statistics import (
    HIGH_PERCENTILE,
    LOW_PERCENTILE,
    ChannelStatistics,
    image_statistics,
    pool_statistics,
)
from tune_smp.data.normalization import Method, Normalization, Normalizer, affine
from tune_smp.errors import DataError

METHODS: tuple[Method, ...] = ("percentile", "zscore", "minmax", "none")
SMALL_INTEGERS = (np.uint8, np.int8, np.uint16, np.int16)
SHAPES = hnp.array_shapes(min_dims=3, max_dims=3, max_side=12)
IMAGES = st.sampled_from(SMALL_INTEGERS).flatmap(lambda dtype: hnp.arrays(dtype, SHAPES))
FLOATS = hnp.arrays(np.float64, SHAPES, elements=st.floats(-1e6, 1e6))


def normalised(image: NDArray[Any], method: Method) -> NDArray[np.float32]:
    scale, offset = affine(image_statistics([image]), method)
    result: NDArray[np.float32] = image.astype(np.float32) * scale[:, None, None] + offset[:, None, None]
    return result


def assert_describes(statistics: ChannelStatistics, image: NDArray[Any]) -> None:
    pixels = image.reshape(len(image), -1).astype(np.float64)
    np.testing.assert_array_equal(statistics.minimum, pixels.min(axis=1))
    np.testing.assert_array_equal(statistics.maximum, pixels.max(axis=1))
    np.testing.assert_allclose(statistics.mean, pixels.mean(axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(statistics.std, pixels.std(axis=1), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(statistics.low, np.percentile(pixels, LOW_PERCENTILE, axis=1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(statistics.high, np.percentile(pixels, HIGH_PERCENTILE, axis=1), rtol=1e-9, atol=1e-9)
    assert statistics.pixels == pixels.shape[1]


@given(st.one_of(IMAGES, FLOATS))
def test_statistics_are_those_of_numpy(image: NDArray[Any]) -> None:
    assert_describes(image_statistics([image]), image)


def test_statistics_of_bool_pixels() -> None:
    image = np.eye(10, dtype=np.bool_)[None]
    assert_describes(image_statistics([image]), image)


@given(st.one_of(IMAGES, FLOATS), st.integers(1, 12))
def test_strips_of_any_height_give_the_same_statistics(image: NDArray[Any], rows: int) -> None:
    strips = [image[:, y : y + rows] for y in range(0, image.shape[1], rows)]
    whole, cut = image_statistics([image]), image_statistics(strips)
    assert (cut.minimum, cut.maximum, cut.low, cut.high) == (whole.minimum, whole.maximum, whole.low, whole.high)
    np.testing.assert_allclose(cut.mean, whole.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(cut.std, whole.std, rtol=1e-7, atol=1e-7)


def test_a_large_float_image_is_sampled_well_and_alike_for_every_cutting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_statistics, "SAMPLE_PIXELS", 2**14)
    monkeypatch.setattr(channel_statistics, "_BLOCK_PIXELS", 2**13)
    rows = np.linspace(0, 1, 600)[:, None] * np.ones(500)  # a gradient: a sample of some rows only would show
    image = rows[None] + np.random.default_rng(1).normal(0, 0.05, (2, 600, 500))
    whole = image_statistics([image])
    assert whole.low == image_statistics([image[:, y : y + 7] for y in range(0, 600, 7)]).low
    for index, (low, high) in enumerate(zip(whole.low, whole.high, strict=True)):
        assert (image[index] <= low).mean() * 100 == pytest.approx(LOW_PERCENTILE, abs=0.3)
        assert (image[index] <= high).mean() * 100 == pytest.approx(HIGH_PERCENTILE, abs=0.15)
    np.testing.assert_allclose(whole.std, image.std(axis=(1, 2)), rtol=1e-9)


def test_variance_survives_a_mean_that_dwarfs_it() -> None:
    image = 1e9 + np.random.default_rng(0).normal(0, 1, (1, 64, 64))
    assert image_statistics(np.array_split(image, 8, axis=1)).std[0] == pytest.approx(image.std(), rel=1e-6)


def test_pixels_that_are_no_numbers_are_left_out() -> None:
    image = np.array([[[np.nan, 1.0, 3.0, np.inf]], [[np.nan] * 4]], dtype=np.float32)
    statistics = image_statistics([image])
    assert (statistics.minimum, statistics.maximum, statistics.mean) == ((1.0, 0.0), (3.0, 0.0), (2.0, 0.0))
    assert all(np.isfinite(affine(statistics, method)).all() for method in METHODS)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="no pixels"):
        image_statistics([])


@given(st.lists(IMAGES.filter(lambda image: len(image) == 1), min_size=1, max_size=4))
def test_pooled_moments_are_those_of_all_pixels_together(images: list[NDArray[Any]]) -> None:
    pooled = pool_statistics([image_statistics([image]) for image in images])
    together = np.concatenate([image.ravel().astype(np.float64) for image in images])
    assert (pooled.minimum[0], pooled.maximum[0]) == (together.min(), together.max())
    assert pooled.mean[0] == pytest.approx(together.mean(), rel=1e-9, abs=1e-9)
    assert pooled.std[0] == pytest.approx(together.std(), rel=1e-7, abs=1e-6)
    assert pooled.pixels == together.size


def test_pooled_percentiles_weigh_every_pixel_alike() -> None:
    random = np.random.default_rng(0)
    images = [random.normal(level, 100, (1, side, side)) for level, side in ((500, 400), (3000, 120), (1000, 250))]
    images = [image.clip(0, 4095).astype(np.uint16) for image in images]
    pooled = pool_statistics([image_statistics([image]) for image in images])
    together = np.concatenate([image.ravel() for image in images])
    assert pooled.low[0] == pytest.approx(np.percentile(together, LOW_PERCENTILE), abs=15)
    assert pooled.high[0] == pytest.approx(np.percentile(together, HIGH_PERCENTILE), abs=15)


def test_each_method_maps_to_its_range() -> None:
    image = np.random.default_rng(0).integers(100, 3000, (3, 50, 40)).astype(np.uint16)
    pixels = image.reshape(3, -1)
    percentile = normalised(image, "percentile").reshape(3, -1)
    np.testing.assert_allclose(np.percentile(percentile, LOW_PERCENTILE, axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(np.percentile(percentile, HIGH_PERCENTILE, axis=1), 1, atol=1e-4)
    assert percentile.max() > 1  # nothing is cut off
    minmax = normalised(image, "minmax").reshape(3, -1)
    np.testing.assert_allclose([minmax.min(axis=1), minmax.max(axis=1)], [[0] * 3, [1] * 3], atol=1e-5)
    zscore = normalised(image, "zscore").reshape(3, -1)
    np.testing.assert_allclose([zscore.mean(axis=1), zscore.std(axis=1)], [[0] * 3, [1] * 3], atol=1e-4)
    np.testing.assert_array_equal(normalised(image, "none").reshape(3, -1), pixels)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "image",
    [
        np.full((2, 4, 4), 7, np.uint8),
        np.full((1, 4, 4), 60000, np.uint16),
        np.full((1, 5, 5), 0.1, np.float32),
        np.full((1, 3, 3), -1e30, np.float64),
        np.full((1, 3, 3), 5e-324, np.float64),
        np.linspace(1e8, 1e8 + 1e-6, 16).reshape(1, 4, 4),  # float32 cannot tell these apart
        np.linspace(-3e38, 3e38, 16).reshape(1, 4, 4),
    ],
)
def test_constant_and_extreme_images_stay_finite(image: NDArray[Any], method: Method) -> None:
    scale, offset = affine(image_statistics([image]), method)
    assert scale.dtype == offset.dtype == np.float32
    assert np.isfinite(scale).all() and np.isfinite(offset).all() and (scale > 0).all()
    if method != "none" and np.ptp(image) == 0:
        np.testing.assert_array_equal(normalised(image, method), 0)


def test_a_few_bright_pixels_on_black_keep_their_contrast() -> None:
    image = np.zeros((1, 100, 100), np.uint8)
    image[0, 5, :10] = 200  # 0.1 %: both percentiles are 0
    assert normalised(image, "percentile").max() == 1


@dataclass
class Images:
    """Statistics of images, as a store gives them."""

    images: list[NDArray[Any]]

    def __len__(self) -> int:
        return len(self.images)

    def statistics(self, index: int) -> ChannelStatistics:
        return image_statistics([self.images[index]])


@pytest.fixture(scope="module")
def images() -> Images:
    random = np.random.default_rng(0)
    return Images([random.integers(0, top, (2, 30, 20)).astype(np.uint16) for top in (200, 4000, 60000)])


@pytest.mark.parametrize("method", METHODS)
def test_inference_repeats_what_training_did(images: Images, method: Method) -> None:
    for scope in ("image", "collection"):
        normalizer = Normalizer(images, method, scope)
        kept = Normalization.from_json(json.loads(json.dumps(normalizer.to_json())))
        for index in range(len(images)):
            statistics = images.statistics(index) if kept.needs_statistics else None
            np.testing.assert_array_equal(kept.affine(statistics), normalizer.affine(index))


def test_scope_decides_whether_images_are_treated_alike(images: Images) -> None:
    own, shared = Normalizer(images, "zscore", "image"), Normalizer(images, "zscore", "collection")
    assert not np.array_equal(own.affine(0), own.affine(2))
    np.testing.assert_array_equal(shared.affine(0), shared.affine(2))
    assert own.to_json() == {"method": "zscore", "scope": "image"}
    assert shared.to_json().keys() == {"method", "scope", "scale", "offset"}


def test_normalisation_of_each_image_asks_for_its_statistics() -> None:
    with pytest.raises(ValueError, match="statistics"):
        Normalization("percentile", "image").affine()


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"method": "magic", "scope": "image"},
        {"method": "zscore", "scope": "everything"},
        {"method": "zscore", "scope": "collection"},
        {"method": "zscore", "scope": "collection", "scale": [1.0], "offset": []},
        {"method": "zscore", "scope": "collection", "scale": ["1"], "offset": [0.0]},
        {"method": "zscore", "scope": "collection", "scale": [float("nan")], "offset": [0.0]},
        {"method": "zscore", "scope": "image", "scale": [1.0], "offset": [0.0]},
        {"method": ["zscore"], "scope": "image"},
    ],
)
def test_a_strange_document_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"preprocessing\.json"):
        Normalization.from_json(document)
