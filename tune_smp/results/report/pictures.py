"""Validation images with the outlines of label and prediction, as PNG inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tune_smp.data.labels import IGNORE

LARGEST = 640  # px shown on the longer side: three noisy images of this size are 3 MB of page
SMALLEST = 320  # px below which pixels are drawn as squares, so that outlines don't cover what they surround
# Okabe and Ito's orange and sky blue: distinct in every common colour blindness, and seen on black and on white.
LABEL_COLOUR, PREDICTION_COLOUR = (230, 159, 0), (86, 180, 233)
_THIN = 280  # an outline is this part of the longer side: 1 px and more when three pictures share a screen
_NOTHING, _LABEL, _PREDICTION, _IGNORED = range(4)
_ALPHA = {_NOTHING: 0, _LABEL: 255, _PREDICTION: 255, _IGNORED: 110}

Bits = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ExamplePicture:
    """One validation image with what was labelled and what was predicted.

    ``caption`` places it among the images that were looked at ("best"), ``remark`` says what else is to be known of it.
    ``label`` and ``prediction`` are (L, H, W) uint8, as masks in the image store: one layer of class numbers, or for
    multilabel one layer of 0 and 1 per class; 255 = ignored, in ``label``.
    """

    name: str
    caption: str
    metric_name: str
    metric_value: float
    image: NDArray[np.uint8]  # (H, W) or (H, W, 3)
    label: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture ready for the page: the image, and over it the outlines; data URIs, sizes in px."""

    example: ExamplePicture
    image: str
    outlines: str
    width: int
    height: int


def shown(example: ExamplePicture) -> Shown:
    """The picture at a size for the page: small images in larger pixels, large ones reduced."""
    image = _sized(Image.fromarray(example.image))
    outlines = Image.fromarray(draw_outlines(example, image.size), mode="P")
    outlines.putpalette([*(0, 0, 0), *LABEL_COLOUR, *PREDICTION_COLOUR, *(0, 0, 0)])
    transparency = bytes(_ALPHA.values())
    return Shown(example, _uri(image), _uri(outlines, transparency=transparency), image.width, image.height)


def draw_outlines(example: ExamplePicture, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Palette numbers (H, W) of the picture of ``size`` (width, height).

    0 nothing, 1 outline of the label, 2 outline of the prediction, 3 ignored. The label's outline runs outside its
    regions and the prediction's inside, so that both are seen where they agree.
    """
    rows, columns = (
        np.arange(there) * here // there for there, here in zip(size[::-1], example.image.shape[:2], strict=True)
    )
    label, prediction = (mask[:, rows][:, :, columns] for mask in (example.label, example.prediction))
    ignored = label == IGNORE
    prediction = np.where(ignored, np.uint8(0), prediction)
    label = np.where(ignored, np.uint8(0), label)
    thickness = max(1, round(max(size) / _THIN))
    near_ignored = _spread(ignored.astype(np.uint8), thickness) > 0
    drawn = np.where(ignored.all(axis=0), _IGNORED, _NOTHING).astype(np.uint8)
    # An edge that is only there because the pixels beyond it are ignored is nobody's outline.
    drawn[(_outer(label, thickness) & ~near_ignored).any(axis=0)] = _LABEL
    drawn[(_inner(prediction, thickness) & ~near_ignored).any(axis=0)] = _PREDICTION
    return drawn


def _outer(mask: NDArray[np.uint8], thickness: int) -> Bits:
    """Pixels (L, H, W) beside a region of a higher class number: the region's outer rim."""
    return _spread(mask, thickness) > mask


def _inner(mask: NDArray[np.uint8], thickness: int) -> Bits:
    """Pixels (L, H, W) of a region that lie beside a lower class number: its inner rim."""
    return _outer(255 - mask, thickness)


def _spread(values: NDArray[np.uint8], distance: int) -> NDArray[np.uint8]:
    """The highest value within ``distance`` px, counted along rows and columns."""
    for _ in range(distance):
        values = _highest_around(values)
    return values


def _highest_around(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The highest of each pixel and its four neighbours."""
    highest = values.copy()
    for axis in (1, 2):
        low = tuple(slice(None, -1) if number == axis else slice(None) for number in range(3))
        high = tuple(slice(1, None) if number == axis else slice(None) for number in range(3))
        np.maximum(highest[low], values[high], out=highest[low])
        np.maximum(highest[high], values[low], out=highest[high])
    return highest


def _sized(image: Image.Image) -> Image.Image:
    longer = max(image.size)
    if longer > LARGEST:
        width, height = (max(1, side * LARGEST // longer) for side in image.size)
        return image.resize((width, height), Image.Resampling.LANCZOS)
    factor = -(-SMALLEST // longer)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _uri(image: Image.Image, **options: bytes) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True, **options)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
