"""Tags that change what pixels mean: reported in the same words, whatever the format."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tune_smp.data.reading.formats import open_image
from tune_smp.data.reading.image_reader import ImageInfo

PIXELS = np.random.default_rng(0).integers(0, 250, (20, 30), dtype=np.uint8)


def info(path: Path) -> ImageInfo:
    with open_image(path) as reader:
        return reader.info


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def behind_the_pixels(path: Path, chunk: bytes) -> None:
    """Move EXIF to where PNG allows it too: after the image data."""
    end = path.read_bytes()[-12:]
    body = path.read_bytes()[:-12]
    block = b"eXIf" + chunk
    path.write_bytes(body + len(chunk).to_bytes(4, "big") + block + zlib.crc32(block).to_bytes(4, "big") + end)


@pytest.mark.parametrize("name", ["a.tif", "a.jpg", "a.png", "late.png"])
def test_an_orientation_is_reported_and_not_applied(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, PIXELS, extratags=[(274, "H", 1, 6, True)])
    elif name == "late.png":
        Image.fromarray(PIXELS).save(path)
        behind_the_pixels(path, exif(6).tobytes().removeprefix(b"Exif\0\0"))
    else:
        Image.fromarray(PIXELS).save(path, exif=exif(6))
    found = info(path)
    assert found.orientation == 6
    assert found.size == (20, 30)
    assert any("turn or mirror" in note and "orientation 6" in note for note in found.notes)
    if name != "a.jpg":
        with open_image(path) as reader:
            assert (reader.read()[0] == PIXELS).all()


@pytest.mark.parametrize("name", ["a.tif", "a.jpg", "a.png"])
def test_upright_images_are_not_reported(tmp_path: Path, name: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / name)
    assert (info(tmp_path / name).orientation, info(tmp_path / name).notes) == (1, ())


def test_min_is_white_is_reported_and_the_values_stay(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="miniswhite")
    found = info(tmp_path / "a.tif")
    assert found.inverted
    assert any("MinIsWhite" in note for note in found.notes)
    with open_image(tmp_path / "a.tif") as reader:
        assert (reader.read()[0] == PIXELS).all()


def test_lossy_compressions_are_known(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg")
    tifffile.imwrite(tmp_path / "jpeg.tif", PIXELS, compression="jpeg")
    tifffile.imwrite(tmp_path / "zip.tif", PIXELS, compression="zlib")
    found = {path.name: info(path).lossy for path in tmp_path.iterdir()}
    assert found == {"a.jpg": "JPEG", "jpeg.tif": "JPEG", "zip.tif": ""}


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_palettes_are_known(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray((PIXELS % 3).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    image.save(tmp_path / f"a.{suffix}")
    assert info(tmp_path / f"a.{suffix}").palette[:3] == ((0, 0, 0), (255, 0, 0), (0, 255, 0))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_is_left_out_and_can_be_had(tmp_path: Path, suffix: str) -> None:
    colours = np.dstack([PIXELS, PIXELS, PIXELS, 255 - PIXELS])
    Image.fromarray(colours).save(tmp_path / f"a.{suffix}")
    with open_image(tmp_path / f"a.{suffix}") as reader:
        assert reader.info.alpha
        assert reader.info.channels == 3
        alpha = reader.alpha(0, slice(2, 9), slice(3, 5))
    assert alpha is not None
    assert (alpha[0] == (255 - PIXELS)[2:9, 3:5]).all()
    tifffile.imwrite(tmp_path / "grey.tif", PIXELS)
    with open_image(tmp_path / "grey.tif") as reader:
        assert reader.alpha() is None
