"""No tiling, batch size or view changes what a network says of a pixel, and memory does not follow the height."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tune_smp.choices.views import PRESETS
from tune_smp.data.channel_statistics import image_statistics
from tune_smp.data.normalization import Normalization, affine
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.image_reader import ImageInfo
from tune_smp.errors import DataError, Problem, ResourceError
from tune_smp.inference import sources
from tune_smp.inference.cuts import Failed, OpenImage
from tune_smp.inference.predictor import Predictor
from tune_smp.inference.sources import PixelSource
from tune_smp.inference.tiling import Tiling

Make = Callable[..., Any]


def whole(predictor: Predictor, source: PixelSource) -> NDArray[np.float32]:
    """All rows together: (planes, K, H, W)."""
    planes: dict[int, list[NDArray[np.float32]]] = {}
    for rows in predictor.predict(source):
        strips = planes.setdefault(rows.plane, [])
        assert rows.y == sum(strip.shape[1] for strip in strips)
        strips.append(rows.probabilities)
    return np.stack([np.concatenate(planes[plane], axis=1) for plane in sorted(planes)])


def expected(model: nn.Module, preprocessing: Preprocessing, plane: NDArray[Any]) -> NDArray[np.float32]:
    """The whole plane (C, H, W) through the network at once."""
    scale, offset = affine(image_statistics([plane]), preprocessing.normalization.method)
    image = plane.astype(np.float32) * scale[:, None, None] + offset[:, None, None]
    with torch.inference_mode():
        logits = model(torch.from_numpy(image)[None])[0]
    activated = logits.softmax(0) if preprocessing.segmentation_mode == "multiclass" else logits.sigmoid()
    return np.asarray(activated.numpy())


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("tile_overlap_batch", [(32, 8, 4), (32, 0, 1), (64, 63, 7), (128, 32, 3)])
def test_a_pixelwise_network_says_the_same_however_the_image_is_tiled(
    make_preprocessing: Make,
    make_source: Make,
    pixelwise: Make,
    random_image: Make,
    mode: str,
    tile_overlap_batch: tuple[int, int, int],
) -> None:
    tile, overlap, batch = tile_overlap_batch
    preprocessing = make_preprocessing(mode, channels=2)
    model, image = pixelwise(2, preprocessing.class_map.classes), random_image(1, 2, 90, 77)

    predictor = Predictor(model, preprocessing, tiling=Tiling(tile, overlap), batch_size=batch)

    np.testing.assert_allclose(
        whole(predictor, make_source(image))[0], expected(model, preprocessing, image[0]), atol=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80))
def test_images_of_any_size(
    make_preprocessing: Make, make_source: Make, pixelwise: Make, random_image: Make, height: int, width: int
) -> None:
    preprocessing, model, image = make_preprocessing(), pixelwise(), random_image(1, 1, height, width)
    probabilities = whole(Predictor(model, preprocessing), make_source(image))
    np.testing.assert_allclose(probabilities[0], expected(model, preprocessing, image[0]), atol=1e-5)


def test_a_network_that_looks_around_gives_the_same_inside_an_overlap_that_covers_its_view(
    make_preprocessing: Make, make_source: Make, random_image: Make
) -> None:
    class LooksAround(nn.Module):
        """Sums of 5×5 pixels, as a network's; wrong within 2 px of a tile's edge, where it sees zeros."""

        def forward(self, images: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(images, 5, stride=1, padding=2) * 25 - 12

    image = random_image(1, 1, 150, 130)
    preprocessing = make_preprocessing(normalization=Normalization("minmax", "image"))

    def errors(overlap: int) -> NDArray[np.float32]:
        got = whole(Predictor(LooksAround(), preprocessing, tiling=Tiling(64, overlap)), make_source(image))
        difference: NDArray[np.float32] = np.abs(got[0] - expected(LooksAround(), preprocessing, image[0]))
        return difference

    assert errors(0).max() > 0.5  # seams
    assert errors(16).max() < 0.35 * errors(0).max()
    assert errors(16).mean() < 0.2 * errors(0).mean()


def test_an_image_is_normalised_as_a_whole_not_tile_by_tile(
    make_preprocessing: Make, make_source: Make, pixelwise: Make
) -> None:
    # Dark above, bright below: normalised tile by tile, both halves would look the same.
    image = np.zeros((1, 1, 128, 32), np.uint16)
    image[..., :64, :] = np.arange(32) % 4
    image[..., 64:, :] = 1000 + np.arange(32) % 4
    model = pixelwise()
    nn.init.constant_(model.weight, 8.0)
    nn.init.constant_(model.bias, -4.0)

    probabilities = whole(Predictor(model, make_preprocessing()), make_source(image))[0, 0]

    assert probabilities[:60].max() < 0.05
    assert probabilities[68:].min() > 0.95


def test_stored_constants_are_used_and_the_image_is_not_looked_at_first(
    make_preprocessing: Make, make_source: Make, pixelwise: Make, random_image: Make
) -> None:
    preprocessing = make_preprocessing(normalization=Normalization("zscore", "collection", (0.001,), (-2.0,)))
    model, source = pixelwise(), make_source(random_image(1, 1, 40, 40))

    got = whole(Predictor(model, preprocessing), source)

    with torch.inference_mode():
        images = torch.from_numpy(source.pixels.astype(np.float32) * np.float32(0.001) - 2)
        np.testing.assert_allclose(got, model(images).sigmoid().numpy(), atol=1e-5)
    assert source.heights == [40]


def test_every_plane_is_normalised_and_predicted_by_itself(
    make_preprocessing: Make, make_source: Make, pixelwise: Make, random_image: Make
) -> None:
    image = random_image(3, 1, 40, 50)
    image[1] //= 100
    preprocessing, model = make_preprocessing(), pixelwise()

    got = whole(Predictor(model, preprocessing), make_source(image))

    for plane in range(3):
        np.testing.assert_allclose(got[plane], expected(model, preprocessing, image[plane]), atol=1e-5)


def test_a_constant_image_gives_numbers(make_preprocessing: Make, make_source: Make, pixelwise: Make) -> None:
    got = whole(Predictor(pixelwise(), make_preprocessing()), make_source(np.full((1, 1, 40, 40), 7, np.uint8)))
    assert np.isfinite(got).all()


class Slanted(nn.Module):
    """Sees more on the right than on the left."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.linspace(-3, 3, images.shape[-1])


def test_views_change_nothing_for_a_pixelwise_network_and_are_averaged_for_another(
    make_preprocessing: Make, make_source: Make, pixelwise: Make, random_image: Make
) -> None:
    image = random_image(1, 1, 32, 32)
    plain, mean = (Predictor(pixelwise(), make_preprocessing(), views=PRESETS[name]) for name in ("none", "all"))
    np.testing.assert_allclose(whole(plain, make_source(image)), whole(mean, make_source(image)), atol=1e-5)

    constant = make_source(np.full((1, 1, 32, 32), 5, np.uint8))
    slanted = whole(Predictor(Slanted(), make_preprocessing()), constant)[0, 0]
    straight = whole(Predictor(Slanted(), make_preprocessing(), views=PRESETS["all"]), constant)[0, 0]
    assert abs(slanted - slanted[:, ::-1]).max() > 0.5
    for same in (straight[::-1], straight[:, ::-1], straight.T):
        np.testing.assert_allclose(straight, same, atol=1e-6)
    # The mean of probabilities: horizontally a pair of opposite tilts and, turned, the same vertically.
    tilt = 1 / (1 + np.exp(-np.linspace(-3, 3, 32)))
    half = (tilt + tilt[::-1]) / 2
    np.testing.assert_allclose(straight, (half[None] + half[:, None]) / 2, atol=1e-5)


def test_flips_are_the_mean_of_the_four_flipped_predictions(
    make_preprocessing: Make, make_source: Make, random_image: Make
) -> None:
    class Skewed(nn.Module):
        """Looks at a pixel from where it lies: no two views agree."""

        def forward(self, images: Tensor) -> Tensor:
            side = torch.linspace(-2, 2, images.shape[-1])
            return images * side + side.exp()[:, None]

    image = random_image(1, 1, 32, 32)
    preprocessing = make_preprocessing()
    by_hand = np.mean(
        [
            np.flip(expected(Skewed(), preprocessing, np.flip(image[0], axes).copy()), axes)
            for axes in ((), (-1,), (-2,), (-1, -2))
        ],
        axis=0,
    )

    plain = Predictor(Skewed(), preprocessing)
    flipped = whole(plain.with_views(PRESETS["flips"]), make_source(image))[0]

    np.testing.assert_allclose(flipped, by_hand, atol=1e-5)
    assert np.abs(flipped - whole(plain, make_source(image))[0]).max() > 0.1, "the first one keeps its own views"


def test_other_channels_than_the_model_has_are_refused(
    make_preprocessing: Make, make_source: Make, pixelwise: Make, random_image: Make
) -> None:
    predictor = Predictor(pixelwise(), make_preprocessing())
    with pytest.raises(DataError, match="the model takes 1 channels, the image has 3"):
        list(predictor.predict(make_source(random_image(1, 3, 40, 40))))


class Greedy(nn.Module):
    """Runs out of memory on more than ``most`` tiles; counts what it got."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError
        return images


def opener(source: PixelSource) -> OpenImage:
    return lambda: contextlib.nullcontext(source)


def predicted(
    predictor: Predictor, shown: Sequence[PixelSource]
) -> tuple[dict[int, NDArray[np.float32]], dict[int, Failed]]:
    """What is said of each image, all its planes below each other; and what is wrong with which."""
    strips: dict[int, list[NDArray[np.float32]]] = {}
    failed: dict[int, Failed] = {}
    for found in predictor.predict_images(map(opener, shown)):
        if isinstance(found, Failed):
            failed[found.image] = found
        else:
            strips.setdefault(found.image, []).append(found.rows.probabilities)
    return {image: np.concatenate(rows, axis=1) for image, rows in strips.items()}, failed


def test_a_batch_holds_tiles_of_several_images(make_preprocessing: Make, make_source: Make, random_image: Make) -> None:
    """Of several sizes, planes and types, each normalised by its own constants."""
    images = [
        random_image(1, 1, 32, 64),
        random_image(2, 1, 20, 32).astype(np.uint8),
        random_image(1, 1, 96, 32).astype(np.float32) * 3.5,
        random_image(1, 1, 32, 32).astype(np.int32) - 70_000,
    ]
    model, preprocessing = Greedy(most=100), make_preprocessing()
    predictor = Predictor(model, preprocessing, tiling=Tiling(32, 0), batch_size=4)

    found, failed = predicted(predictor, list(map(make_source, images)))

    assert failed == {}
    assert model.batches == [4, 4], "of 2, 2, 3 and 1 tiles"
    for number, image in enumerate(images):
        alone = whole(predictor, make_source(image))
        assert np.array_equal(found[number], np.concatenate(list(alone), axis=1))


class Damaged:
    """An image that cannot be read below a row; ``readable`` 0: not at all."""

    def __init__(self, pixels: NDArray[Any], readable: int) -> None:
        _, channels, height, width = pixels.shape
        self.info = ImageInfo(channels, height, width, 1, pixels.dtype)
        self._pixels, self._readable = pixels, readable

    def read(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any]:
        if y.stop > self._readable:
            raise DataError(Problem("these rows are damaged"))
        return np.array(self._pixels[plane][:, y, x])


@pytest.mark.parametrize("readable", [0, 64])
def test_an_image_that_cannot_be_read_leaves_the_others_alone(
    make_source: Make,
    make_preprocessing: Make,
    random_image: Make,
    monkeypatch: pytest.MonkeyPatch,
    readable: int,
) -> None:
    monkeypatch.setattr(sources, "BAND_HEIGHT", 32)
    constant = Normalization("zscore", "collection", (0.02,), (-1.5,))  # needs no statistics: it fails where it is read
    predictor = Predictor(
        Greedy(most=100), make_preprocessing(normalization=constant), tiling=Tiling(32, 0), batch_size=3
    )
    good = [make_source(random_image(1, 1, 32, 32, seed=seed)) for seed in range(3)]
    bad = Damaged(random_image(1, 1, 96, 32), readable)

    found, failed = predicted(predictor, [good[0], bad, *good[1:]])

    assert [(image, bad.error.problems[0].problem) for image, bad in failed.items()] == [(1, "these rows are damaged")]
    for image, source in zip((0, 2, 3), good, strict=True):
        assert np.array_equal(found[image], whole(predictor, source)[0])


def test_what_was_read_of_damaged_images_is_let_go(make_preprocessing: Make, random_image: Make) -> None:
    kept: list[weakref.ref[Damaged]] = []

    def damaged(number: int) -> contextlib.AbstractContextManager[PixelSource]:
        image = Damaged(random_image(1, 1, 40, 40, seed=number), readable=0)
        kept.append(weakref.ref(image))
        return contextlib.nullcontext(image)

    predictor = Predictor(Greedy(most=1), make_preprocessing(), tiling=Tiling(32, 0), batch_size=4)
    failures = list(predictor.predict_images(partial(damaged, number) for number in range(30)))

    gc.collect()
    assert len(failures) == len(kept) == 30
    assert [image for image in kept if image() is not None] == []


def watched(
    happened: list[tuple[str, int]], source: PixelSource, number: int
) -> contextlib.AbstractContextManager[PixelSource]:
    """An image that notes when it is opened and closed."""

    @contextlib.contextmanager
    def image() -> Iterator[PixelSource]:
        happened.append(("opened", number))
        try:
            yield source
        finally:
            happened.append(("closed", number))

    return image()


def test_images_are_opened_one_after_the_other_and_closed_again(
    make_preprocessing: Make, make_source: Make, random_image: Make
) -> None:
    happened: list[tuple[str, int]] = []
    source, images = make_source(random_image(1, 1, 32, 32)), 20
    predictor = Predictor(Greedy(most=9), make_preprocessing(), tiling=Tiling(32, 0), batch_size=2)

    strips = predictor.predict_images(partial(watched, happened, source, number) for number in range(images))
    next(strips)
    opened = sum(what == "opened" for what, _ in happened)
    rest = [strip.image for strip in strips]

    assert opened < images / 2, "some batches ahead, not all"
    assert rest == list(range(1, images))
    assert happened == [(what, number) for number in range(images) for what in ("opened", "closed")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_no_image_stays_open_where_the_network_fails(
    make_preprocessing: Make, make_source: Make, random_image: Make, error: type[BaseException]
) -> None:
    class Failing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise error

    happened: list[tuple[str, int]] = []
    source = make_source(random_image(1, 1, 320, 320))  # of more tiles than are made ahead
    predictor = Predictor(Failing(), make_preprocessing(), tiling=Tiling(32, 0), batch_size=2)

    with pytest.raises(error) as raised:
        list(predictor.predict_images([partial(watched, happened, source, 0)]))

    assert raised.traceback, "which holds on to everything that was not closed"
    assert happened == [("opened", 0), ("closed", 0)]


def test_a_batch_that_does_not_fit_is_halved(make_preprocessing: Make, make_source: Make, random_image: Make) -> None:
    source = make_source(random_image(1, 1, 96, 64))
    modest, ample = Greedy(most=2), Greedy(most=100)
    tiling = Tiling(32, 0)

    halved = whole(Predictor(modest, make_preprocessing(), tiling=tiling, batch_size=6), source)

    assert modest.batches == [6, 3, 1, 2, 3, 1, 2]
    assert np.array_equal(halved, whole(Predictor(ample, make_preprocessing(), tiling=tiling, batch_size=6), source))


def test_a_tile_that_does_not_fit_is_told(make_preprocessing: Make, make_source: Make, random_image: Make) -> None:
    predictor = Predictor(Greedy(most=0), make_preprocessing(), batch_size=2)
    with pytest.raises(ResourceError, match=r"one tile of 32 px\n.*--tileSize"):
        list(predictor.predict(make_source(random_image(1, 1, 40, 40))))


class Striped:
    """An image of any height that is in no memory: every strip is made when it is read."""

    def __init__(self, height: int, width: int) -> None:
        self.info = ImageInfo(1, height, width, 1, np.dtype(np.uint16))

    def read(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[np.uint16]:
        rows = np.arange(self.info.height, dtype=np.uint16)[y]
        return np.broadcast_to(rows[None, :, None], (1, len(rows), self.info.width)).copy()


def test_memory_does_not_follow_the_height(
    make_preprocessing: Make, pixelwise: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "CACHE_BYTES", 0)  # the cache is bounded too, but larger than these images
    predictor = Predictor(pixelwise(), make_preprocessing(tile_size=128))

    def peak(height: int) -> int:
        tracemalloc.start()
        try:
            rows = sum(strip.probabilities.shape[1] for strip in predictor.predict(Striped(height, 400)))
            assert rows == height
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(300)  # what is imported and compiled on first use
    low, high = peak(3000), peak(12000)
    assert high < 1.2 * low
    assert high < 12000 * 400 * 4 / 2  # half of the probabilities of the whole image
