"""Files stacked into channels, and planes read in bands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tune_smp.errors import DataError
from tune_smp.inference import sources
from tune_smp.inference.sources import PlaneBands, StackedReader


def test_files_are_stacked_in_order(tmp_path: Path) -> None:
    first, second = np.full((20, 30), 1, np.uint8), np.full((20, 30), 500, np.uint16)
    tifffile.imwrite(tmp_path / "c0.tif", first)
    tifffile.imwrite(tmp_path / "c1.tif", second)

    with StackedReader([tmp_path / "c1.tif", tmp_path / "c0.tif"]) as reader:
        assert (reader.info.channels, reader.info.height, reader.info.width) == (2, 20, 30)
        pixels = reader.read(0, slice(3, 8))

    assert pixels.shape == (2, 5, 30)
    assert pixels.dtype == np.uint16
    assert (pixels[0] == 500).all()
    assert (pixels[1] == 1).all()


def test_a_channel_of_one_plane_serves_every_plane(tmp_path: Path) -> None:
    stack, single = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(3, 20, 30), np.ones((20, 30), np.uint16)
    tifffile.imwrite(tmp_path / "c0.tif", single)
    tifffile.imwrite(tmp_path / "c1.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})

    with StackedReader([tmp_path / "c0.tif", tmp_path / "c1.tif"]) as reader:
        assert reader.info.planes == 3
        for plane in range(3):
            np.testing.assert_array_equal(reader.read(plane), np.stack([single, stack[plane]]))


def test_channels_of_different_size_are_named(tmp_path: Path) -> None:
    for name, shape in (("c0.tif", (20, 30)), ("c1.tif", (20, 31))):
        tifffile.imwrite(tmp_path / name, np.zeros(shape, np.uint8))
    with pytest.raises(DataError, match=r"20 × 30 px of 1 planes, 20 × 31 px of 1 planes\n.*c1\.tif"):
        StackedReader([tmp_path / "c0.tif", tmp_path / "c1.tif"])


@pytest.mark.parametrize("cache", [0, 2**28])
def test_rows_across_bands(make_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, cache: int) -> None:
    monkeypatch.setattr(sources, "BAND_HEIGHT", 16)
    monkeypatch.setattr(sources, "CACHE_BYTES", cache)
    pixels = np.arange(2 * 70 * 3, dtype=np.uint16).reshape(1, 2, 70, 3)
    bands = PlaneBands(make_source(pixels), 0)

    for y, height in ((0, 10), (10, 10), (12, 58), (0, 70), (69, 1), (16, 16)):
        np.testing.assert_array_equal(bands.rows(y, height), pixels[0, :, y : y + height])
    np.testing.assert_array_equal(np.concatenate(list(bands), axis=1), pixels[0])


def test_an_ordinary_image_is_decoded_once_and_a_tall_one_band_by_band(
    make_source: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "BAND_HEIGHT", 16)

    def decoded(cache: int) -> list[int]:
        monkeypatch.setattr(sources, "CACHE_BYTES", cache)
        source = make_source(np.zeros((1, 1, 64, 10), np.uint8))
        bands = PlaneBands(source, 0)
        for _ in bands:
            pass
        for y in range(0, 60, 4):
            bands.rows(y, 8 if y < 56 else 4)
        return list(source.heights)

    assert decoded(cache=64 * 10) == [16] * 4
    assert decoded(cache=0) == [16] * 8  # once for statistics, once for tiles
