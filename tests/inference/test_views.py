"""The eight views of a square tile are eight, each can be undone, and those that paid are recommended."""

from __future__ import annotations

import pytest
import torch

from tune_smp.choices.views import PRESETS
from tune_smp.data.view_gains import ViewGains, ViewScore
from tune_smp.inference.views import taken_preset, turned, turned_back

VIEWS = PRESETS["all"]


def test_eight_different_views_the_first_as_it_is() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    seen = {tuple(turned(image, view).flatten().tolist()) for view in VIEWS}
    assert len(seen) == 8
    assert torch.equal(turned(image, VIEWS[0]), image)


def test_turning_back_undoes_turning() -> None:
    image = torch.rand(2, 3, 6, 6)
    for view in VIEWS:
        assert torch.equal(turned_back(turned(image, view), view), image)


def test_flips_are_the_four_that_swap_no_axes() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    seen = [turned(image, view) for view in PRESETS["flips"]]
    for found, wanted in zip(seen, (image, image.flip(-1), image.flip(-2), image.flip(-1, -2)), strict=True):
        assert torch.equal(found, wanted)
    assert set(PRESETS["none"]) < set(PRESETS["flips"]) < set(VIEWS)


def gains(none: float, flips: float, every: float) -> ViewGains:
    scores = {"none": ViewScore(none, 1.0), "flips": ViewScore(flips, 4.0), "all": ViewScore(every, 8.0)}
    return ViewGains.of(scores, metric="IoU", images=3, device="cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("measured", "recommended"),
    [
        (gains(0.8, 0.8009, 0.8008), "none"),
        (gains(0.8, 0.81, 0.8109), "flips"),
        (gains(0.8, 0.81, 0.82), "all"),
        (gains(0.8, 0.7, 0.8011), "all"),
        (gains(0.8, 0.7, 0.6), "none"),
    ],
)
def test_the_cheapest_near_the_best_is_recommended(measured: ViewGains, recommended: str) -> None:
    assert measured.recommended == recommended
    assert taken_preset("auto", measured) == recommended
    assert ViewGains.from_json(measured.to_json()) == measured


def test_what_is_asked_for_is_taken_and_auto_without_a_measurement_is_none() -> None:
    for asked in PRESETS:
        assert taken_preset(asked, gains(0.1, 0.5, 0.9)) == asked
    assert taken_preset("auto", None) == "none"
