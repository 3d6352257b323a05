"""Outlines of label and prediction: where they run, and what they leave free."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tune_smp.results.report.pictures import (
    LABEL_COLOUR,
    LARGEST,
    PREDICTION_COLOUR,
    ExamplePicture,
    draw_outlines,
    shown,
)

NOTHING, LABEL, PREDICTION, IGNORED = range(4)


def example(label: NDArray[np.uint8], prediction: NDArray[np.uint8], **changes: Any) -> ExamplePicture:
    known = {"name": "a", "caption": "best", "metric_name": "IoU", "metric_value": 0.5}
    image = np.zeros(label.shape[1:], np.uint8)
    return ExamplePicture(**{**known, "image": image, "label": label, "prediction": prediction, **changes})


def masks(layers: int = 1, side: int = 12) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return np.zeros((layers, side, side), np.uint8), np.zeros((layers, side, side), np.uint8)


def test_the_label_runs_outside_and_the_prediction_inside_of_what_they_agree_on() -> None:
    label, prediction = masks()
    label[0, 4:8, 4:8] = prediction[0, 4:8, 4:8] = 1

    drawn = draw_outlines(example(label, prediction), (12, 12))

    wanted = np.full((12, 12), NOTHING)
    wanted[3, 4:8] = wanted[8, 4:8] = wanted[4:8, 3] = wanted[4:8, 8] = LABEL
    wanted[4:8, 4:8] = PREDICTION
    wanted[5:7, 5:7] = NOTHING
    np.testing.assert_array_equal(drawn, wanted)


def test_borders_between_classes_and_of_overlapping_classes_are_drawn() -> None:
    label, prediction = masks()
    label[0, :, 6:], label[0, :, 9:] = 1, 2
    columns = draw_outlines(example(label, prediction), (12, 12))[5]
    assert np.flatnonzero(columns).tolist() == [5, 8]

    label, prediction = masks(layers=2)
    label[0, 2:6, 2:6], label[1, 4:9, 4:9] = 1, 1
    drawn = draw_outlines(example(label, prediction), (12, 12))
    assert drawn[5, 6] == LABEL  # of the first class, inside the second
    assert drawn[3, 5] == LABEL  # of the second, inside the first


def test_ignored_pixels_are_greyed_and_have_no_outline() -> None:
    label, prediction = masks()
    label[0, :, :6] = 255
    prediction[0, 2:10, 2:10] = 1

    drawn = draw_outlines(example(label, prediction), (12, 12))

    assert (drawn[:, :6] == IGNORED).all()
    assert (drawn[4:8, 6] == NOTHING).all()  # where ignored pixels begin is nobody's border
    assert (drawn[4:8, 9] == PREDICTION).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (20, 30), (256, 256), (900, 1024), (3, 2000)])
def test_pictures_of_every_size_are_shown_at_a_size_for_the_page(height: int, width: int) -> None:
    label = np.zeros((1, height, width), np.uint8)
    label[0, height // 3 : height // 2 + 1, width // 3 : width // 2 + 1] = 1
    picture = shown(example(label, label))
    assert max(picture.width, picture.height) <= LARGEST
    assert picture.width / picture.height == pytest.approx(width / height, rel=0.02) or height == 3
    for uri in (picture.image, picture.outlines):
        data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(data)).size == (picture.width, picture.height)


def test_the_outlines_have_the_legends_colours_and_let_the_rest_through() -> None:
    label, prediction = masks(side=320)
    label[0, 50:90, 50:90] = prediction[0, 200:260, 200:260] = 1
    uri = shown(example(label, prediction, image=np.zeros((320, 320, 3), np.uint8))).outlines
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))
    assert tuple(pixels[49, 60]) == (*LABEL_COLOUR, 255)
    assert tuple(pixels[200, 230]) == (*PREDICTION_COLOUR, 255)
    assert pixels[0, 0, 3] == 0
