"""Which tiles a model is shown, and how those that it cannot take are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tune_smp.data.preprocessing import Preprocessing
from tune_smp.errors import SettingsError
from tune_smp.inference.tiling import Tiling, choose_tiling

MakePreprocessing = Callable[..., Preprocessing]


def test_the_default_is_the_tile_of_training_and_a_quarter_of_it(make_preprocessing: MakePreprocessing) -> None:
    assert choose_tiling(make_preprocessing(tile_size=256)) == Tiling(256, 64)


def test_what_is_asked_for_is_taken(make_preprocessing: MakePreprocessing) -> None:
    assert choose_tiling(make_preprocessing(), tile_size=512, overlap=0) == Tiling(512, 0)


def test_an_encoder_of_fixed_size_gets_that_size(make_preprocessing: MakePreprocessing) -> None:
    fixed = make_preprocessing(tile_size=224, fixed_tile_size=224, encoder="tu-vit")
    assert choose_tiling(fixed) == Tiling(224, 56)
    with pytest.raises(SettingsError, match=r"tu-vit takes tiles of 224 px only, received 256"):
        choose_tiling(fixed, tile_size=256)


@pytest.mark.parametrize(
    ("changes", "tile", "message"),
    [
        ({}, 100, r"Unet takes tiles whose size is a multiple of 32 px, received 100\n.*--tileSize\n.*96 or 128"),
        ({"architecture": "PAN", "divisor": 16}, 64, r"PAN needs tiles of at least 128 px, received 64"),
        ({}, 0, r"at least 32 px, received 0"),
    ],
)
def test_a_tile_that_the_network_cannot_take(
    make_preprocessing: MakePreprocessing, changes: dict[str, object], tile: int, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        choose_tiling(make_preprocessing(**changes), tile_size=tile, overlap=0)


@pytest.mark.parametrize("overlap", [-1, 32, 40])
def test_an_overlap_that_leaves_no_step(make_preprocessing: MakePreprocessing, overlap: int) -> None:
    with pytest.raises(SettingsError, match=rf"tiles of 32 px can overlap by 0 to 31 px, received {overlap}"):
        choose_tiling(make_preprocessing(), overlap=overlap)


def test_all_problems_are_told_at_once(make_preprocessing: MakePreprocessing) -> None:
    with pytest.raises(SettingsError) as told:
        choose_tiling(make_preprocessing(), tile_size=100, overlap=200)
    assert len(told.value.problems) == 2
