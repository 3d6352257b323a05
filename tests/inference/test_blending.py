"""Overlapping tiles give back the field that they were cut from, row by row, from the first to the last."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_smp.data.tiles import Window, windows
from tune_smp.errors import ResourceError
from tune_smp.inference import blending
from tune_smp.inference.blending import RowBlender, Rows


def blended(field: np.ndarray, *, tile: int, overlap: int) -> list[Rows]:
    """The field (K, H, W) cut into tiles, each padded to full size with values that must not be looked at."""
    classes, height, width = field.shape
    blender = RowBlender(plane=3, classes=classes, width=width, tile=tile, overlap=overlap)
    strips: list[Rows] = []
    for window in windows(height, width, tile=tile, overlap=overlap):
        padded = np.full((classes, tile, tile), 1e9, np.float32)
        padded[:, : window.height, : window.width] = field[:, *window.slices]
        strips += blender.add(window, torch.from_numpy(padded))
    return [*strips, *blender.finish(height)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 3), st.integers(2, 24), st.data())
def test_tiles_of_a_field_blend_into_that_field(
    height: int, width: int, classes: int, tile: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    field = np.random.default_rng(height * width).random((classes, height, width), np.float32)

    strips = blended(field, tile=tile, overlap=overlap)

    assert [rows.y for rows in strips] == list(np.cumsum([0, *(rows.probabilities.shape[1] for rows in strips)]))[:-1]
    assert {rows.plane for rows in strips} == {3}
    np.testing.assert_allclose(np.concatenate([rows.probabilities for rows in strips], axis=1), field, rtol=1e-5)


def test_a_wide_band_is_held_by_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"plane": 0, "classes": 1, "width": 48, "tile": 32, "overlap": 16}
    bytes_of_it = 2 * 32 * 48 * 4
    monkeypatch.setattr(blending, "LARGEST_ON_A_GPU", bytes_of_it)
    assert RowBlender(**shape, device="meta")._sums.device.type == "meta"  # whatever the device is
    monkeypatch.setattr(blending, "LARGEST_ON_A_GPU", bytes_of_it - 1)
    blender = RowBlender(**shape, device="meta")
    assert blender._sums.device.type == "cpu"
    assert blender.nbytes == bytes_of_it


def test_the_middle_of_a_tile_counts_more_than_its_edge() -> None:
    blender = RowBlender(plane=0, classes=1, width=48, tile=32, overlap=16)
    assert not list(blender.add(Window(0, 0, 32, 32), torch.zeros(1, 32, 32)))
    assert not list(blender.add(Window(0, 16, 32, 32), torch.ones(1, 32, 32)))
    (rows,) = blender.finish(32)
    row = rows.probabilities[0, 16]

    assert row[:16].max() == 0.0
    assert row[32:].min() == 1.0
    assert np.all(np.diff(row[16:32]) > 0)  # from the one to the other without a step
    assert np.diff(row).max() < 0.1


@pytest.mark.parametrize("overlap", [0, 8])
def test_strips_are_never_higher_than_a_tile(overlap: int) -> None:
    strips = blended(np.zeros((1, 500, 20), np.float32), tile=32, overlap=overlap)
    assert max(rows.probabilities.shape[1] for rows in strips) <= 32


def test_of_a_wide_image_with_many_classes_the_band_lies_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    field = np.random.default_rng(0).random((5, 70, 90), np.float32)
    wanted = np.concatenate([rows.probabilities for rows in blended(field, tile=32, overlap=8)], axis=1)

    monkeypatch.setattr(blending, "LARGEST_IN_MEMORY", 1000)
    monkeypatch.setattr(blending, "LARGEST_STRIP", 3 * 5 * 90 * 4)
    strips = blended(field, tile=32, overlap=8)

    assert max(rows.probabilities.shape[1] for rows in strips) == 3
    assert np.array_equal(np.concatenate([rows.probabilities for rows in strips], axis=1), wanted)
    mapped = Path("/proc/self/maps").read_text()
    blender = RowBlender(plane=0, classes=5, width=90, tile=32, overlap=8)
    assert Path("/proc/self/maps").read_text().count("(deleted)") == mapped.count("(deleted)") + 1
    del blender


def test_a_disk_that_is_too_small_for_the_band_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blending, "LARGEST_IN_MEMORY", 1000)
    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(blending, "available_memory", lambda: 10**9)
    assert RowBlender(plane=0, classes=5, width=90, tile=32, overlap=8)  # in memory, where there is enough of it
    monkeypatch.setattr(blending, "available_memory", lambda: 1000)
    with pytest.raises(ResourceError, match=r"temporary disk space \(No space left on device\)"):
        RowBlender(plane=0, classes=5, width=90, tile=32, overlap=8)
