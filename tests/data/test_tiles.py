from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_smp.data.tiles import Window, blend_weights, grid_count, owned, windows

LENGTH = st.integers(1, 70)


@st.composite
def tile_and_overlap(draw: st.DrawFn) -> tuple[int, int]:
    tile = draw(st.integers(1, 24))
    return tile, draw(st.integers(0, tile - 1))


def painted(height: int, width: int, parts: list[Window]) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """How often each pixel is covered."""
    times = np.zeros((height, width), dtype=np.int64)
    for part in parts:
        times[part.slices] += 1
    return times


@given(LENGTH, LENGTH, tile_and_overlap())
def test_windows_cover_every_pixel_and_stay_inside(height: int, width: int, geometry: tuple[int, int]) -> None:
    tile, overlap = geometry
    found = windows(height, width, tile=tile, overlap=overlap)
    assert painted(height, width, found).min() >= 1
    assert all(0 <= window.y <= height - window.height and 0 <= window.x <= width - window.width for window in found)
    assert {window.height for window in found} == {min(tile, height)}
    assert {window.width for window in found} == {min(tile, width)}
    assert len(set(found)) == len(found)


@given(LENGTH, LENGTH, tile_and_overlap())
def test_every_pixel_is_owned_by_exactly_one_window_that_holds_it(
    height: int, width: int, geometry: tuple[int, int]
) -> None:
    tile, overlap = geometry
    found, shares = (part(height, width, tile=tile, overlap=overlap) for part in (windows, owned))
    assert (painted(height, width, shares) == 1).all()
    for window, share in zip(found, shares, strict=True):
        assert window.y <= share.y and share.y + share.height <= window.y + window.height
        assert window.x <= share.x and share.x + share.width <= window.x + window.width


@given(LENGTH, LENGTH, tile_and_overlap())
def test_neighbours_overlap_by_at_least_what_was_asked(height: int, width: int, geometry: tuple[int, int]) -> None:
    tile, overlap = geometry
    rows = sorted({window.y for window in windows(height, width, tile=tile, overlap=overlap)})
    assert all(below - above <= tile - overlap for above, below in pairwise(rows))


@given(LENGTH, LENGTH, st.integers(1, 24))
def test_the_count_without_overlap_is_the_number_of_windows(height: int, width: int, tile: int) -> None:
    assert grid_count(height, width, tile) == len(windows(height, width, tile=tile))


def test_the_last_windows_are_shifted_inside() -> None:
    assert windows(5, 10, tile=4) == [Window(y, x, 4, 4) for y in (0, 1) for x in (0, 4, 6)]


def test_an_image_smaller_than_the_tile_is_one_window() -> None:
    assert windows(10, 7, tile=256, overlap=64) == [Window(0, 0, 10, 7)] == owned(10, 7, tile=256, overlap=64)


def test_an_overlap_is_shared_half_and_half() -> None:
    assert [(share.x, share.width) for share in owned(1, 14, tile=8, overlap=2)] == [(0, 7), (7, 7)]


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_impossible_geometry_is_refused(tile: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        windows(16, 16, tile=tile, overlap=overlap)


@given(st.integers(1, 24).flatmap(lambda half: st.tuples(st.just(2 * half), st.integers(0, half))), st.integers(2, 4))
def test_blend_weights_of_neighbours_add_up_to_one_inside(geometry: tuple[int, int], count: int) -> None:
    tile, overlap = geometry
    length = tile + (count - 1) * (tile - overlap)  # no window is shifted
    profile = np.sqrt(np.diagonal(blend_weights(tile, overlap)))
    inside = np.zeros(length)
    for window in windows(1, length, tile=tile, overlap=overlap):
        inside[window.slices[1]] += profile
    np.testing.assert_allclose(inside[overlap : length - overlap], 1.0, rtol=1e-6)


@given(tile_and_overlap())
def test_blend_weights_are_symmetric_and_never_zero(geometry: tuple[int, int]) -> None:
    weights = blend_weights(*geometry)
    assert weights.dtype == np.float32
    assert weights.shape == (geometry[0], geometry[0])
    assert weights.min() > 0
    assert weights.max() <= 1
    np.testing.assert_array_equal(weights, weights.T)
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
