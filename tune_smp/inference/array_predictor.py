"""An exported model for arrays: what a notebook or another program predicts with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tune_smp.choices.views import PRESETS
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.image_reader import ImageInfo
from tune_smp.errors import DataError, Problem
from tune_smp.inference.ensemble import EnsemblePredictor
from tune_smp.inference.model_folder import open_model
from tune_smp.inference.outputs import to_labels
from tune_smp.inference.predictor import Predictor
from tune_smp.inference.sources import PixelSource, StackedReader
from tune_smp.inference.views import taken_preset
from tune_smp.settings.predict import asked_views
from tune_smp.training.precision import choose_device, use_fast_kernels


class ArrayPredictor:
    """A model as ``predict`` uses it: normalisation, tiles, blending and label values are those of its training."""

    def __init__(self, predictor: Predictor | EnsemblePredictor, path: Path) -> None:
        self._predictor = predictor
        self.path = path

    @property
    def preprocessing(self) -> Preprocessing:
        """Channels, classes and their values, normalisation and tile size: what preprocessing.json holds."""
        return self._predictor.preprocessing

    def predict(
        self, image: ArrayLike | Path | str, *, output: Literal["labels", "probabilities"] = "labels"
    ) -> NDArray[Any]:
        """Predict an image: an array (H, W), (C, H, W) or (Z, C, H, W), or the path of a file with such planes.

        Returns labels with the values of the training labels, (H, W), or (K, H, W) for multilabel classes; or
        probabilities (K, H, W) as float32. Of several planes, Z comes first.

        Raises:
            DataError: another shape or number of channels than the model takes, or pixels that are no numbers.
        """
        with _opened(image, self.preprocessing) as (source, has_planes):
            rows = list(self._predictor.predict(source))
        planes = [
            np.concatenate([strip.probabilities for strip in rows if strip.plane == plane], axis=1)
            for plane in range(source.info.planes)
        ]
        if output == "labels":
            planes = [self._labels(plane) for plane in planes]
        return np.stack(planes) if has_planes else planes[0]

    def _labels(self, probabilities: NDArray[np.float32]) -> NDArray[Any]:
        labels = to_labels(probabilities, self.preprocessing)
        return labels if self.preprocessing.class_map.mode == "multilabel" else labels[0]


def load_predictor(
    path: Path,
    *,
    device: Literal["auto", "cpu", "gpu"] = "auto",
    tile_size: int | None = None,
    overlap: int | None = None,
    batch_size: int | None = None,
    test_time_augmentation: bool | str = "none",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> ArrayPredictor:
    """The exported model in an output folder or in its ``model/``; the arguments are the flags of ``predict``.

    Raises DataError where there is no whole model, SettingsError for tiles that it cannot take and for an augmentation
    that there is not, ResourceError without the GPU asked for.
    """
    asked = asked_views(test_time_augmentation)
    exported = open_model(path)
    exported.tiling(tile_size=tile_size, overlap=overlap)  # refused before the device is looked for
    chosen = choose_device(device)
    use_fast_kernels(chosen)
    predictor = exported.predictor(
        device=chosen,
        tile_size=tile_size,
        overlap=overlap,
        batch_size=batch_size,
        views=PRESETS[taken_preset(asked, exported.preprocessing.views)],
        precision=precision,
    )
    return ArrayPredictor(predictor, exported.path)


class _ArraySource:
    """An array (Z, C, H, W) as an image."""

    def __init__(self, pixels: NDArray[Any]) -> None:
        planes, channels, height, width = pixels.shape
        self._pixels = pixels
        self.info = ImageInfo(channels, height, width, planes, pixels.dtype)

    def read(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any]:
        """The region (C, h, w) of one plane."""
        return self._pixels[plane, :, y, x]


@contextlib.contextmanager
def _opened(image: ArrayLike | Path | str, preprocessing: Preprocessing) -> Iterator[tuple[PixelSource, bool]]:
    """The image, and whether it has a Z axis."""
    if isinstance(image, Path | str):
        with StackedReader([Path(image)]) as reader:
            yield reader, reader.info.planes > 1
    else:
        pixels = _numbers(np.asarray(image))
        yield _ArraySource(_with_all_axes(pixels, preprocessing.channels)), pixels.ndim == 4


def _with_all_axes(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    """(Z, C, H, W) of an array with these axes, or without the first of them."""
    fits = pixels.ndim == 2 and channels == 1
    fits |= pixels.ndim in (3, 4) and pixels.shape[-3] == channels
    if not fits or 0 in pixels.shape:
        flat = "(H, W), " if channels == 1 else ""
        said = f"an array of shape {pixels.shape} is no image for a model of {channels} channels"
        fix = f"pass {flat}({channels}, H, W) or (Z, {channels}, H, W)"
        raise DataError(Problem(said, fix=fix))
    return pixels.reshape(*(1,) * (4 - pixels.ndim), *pixels.shape)


def _numbers(pixels: NDArray[Any]) -> NDArray[Any]:
    """The pixels in a type that prediction takes: integers of up to 32 bits, or float32."""
    match pixels.dtype.kind, pixels.dtype.itemsize:
        case "b", _:
            return pixels.astype(np.uint8)
        case ("i" | "u", 1 | 2 | 4):
            return pixels
        case ("i" | "u" | "f", _):
            with np.errstate(over="ignore"):  # it is found below
                pixels = pixels.astype(np.float32)
        case _:
            raise DataError(Problem(f"an array of {pixels.dtype} is no image", fix="pass integers or floats"))
    if not np.isfinite(pixels).all():
        raise DataError(Problem("the array holds pixels that are NaN, infinite, or beyond 32-bit floats"))
    return pixels
