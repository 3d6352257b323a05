"""PNG and JPEG are read as they are stored, or refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from tests.data.reading import RNG, notes, pixels, read
from tune_smp.data.reading.formats import open_image
from tune_smp.errors import DataError


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_png(tmp_path: Path, mode: str) -> None:
    image = pixels(20, 30) if mode == "L" else pixels(20, 30, 3)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png") == np.moveaxis(np.atleast_3d(image), -1, 0)).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_png_keeps_16_bits(tmp_path: Path, channels: int) -> None:
    image = RNG.integers(0, 65536, (20, 30, channels)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(image.squeeze()))
    found = read(tmp_path / "a.png")
    assert found.dtype == np.uint16
    assert (found == np.moveaxis(image, -1, 0)[:3]).all()


@pytest.mark.parametrize(("bits", "row", "values"), [(2, b"\x1b", [0, 1, 2, 3]), (4, b"\x01\x2f", [0, 1, 2, 15])])
def test_greys_of_few_bits_keep_their_values(tmp_path: Path, bits: int, row: bytes, values: list[int]) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with open_image(tmp_path / "a.png") as reader:
        assert reader.read().ravel().tolist() == values


def test_one_bit_is_zero_and_one(tmp_path: Path) -> None:
    image = pixels(20, 30) > 100
    Image.fromarray(image).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png")[0] == image).all()


def test_palette_labels_keep_their_indices(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(20, 30) // 64).convert("L")
    indices = np.asarray(image)
    image.putpalette([value for _ in range(4) for value in (9, 8, 7)])
    image.save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png")[0] == indices).all()
    assert "palette" in notes(tmp_path / "a.png")[0]


@pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
def test_alpha_is_left_out_and_told(tmp_path: Path, mode: str, channels: int) -> None:
    image = pixels(20, 30, channels + 1)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert (read(tmp_path / "a.png") == np.moveaxis(image, -1, 0)[:-1]).all()
    assert notes(tmp_path / "a.png") == ("the alpha channel is left out",)


def test_jpeg(tmp_path: Path) -> None:
    image = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    Image.fromarray(image).save(tmp_path / "a.jpeg", quality=95)
    assert np.abs(read(tmp_path / "a.jpeg")[0].astype(int) - image).max() < 8
    Image.fromarray(image).save(tmp_path / "b.jpg", exif=Image.Exif())
    assert notes(tmp_path / "b.jpg") == ()


def test_orientation_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels(20, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg").shape == (1, 20, 30)
    assert "orientation" in notes(tmp_path / "a.jpg")[0]


def test_cmyk_is_refused(tmp_path: Path) -> None:
    Image.fromarray(pixels(20, 30)).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"CMYK.*\n.*a\.jpg"):
        open_image(tmp_path / "a.jpg")


def test_large_pictures_are_no_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(pixels(200, 300)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read(tmp_path / "a.png").shape == (1, 200, 300)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_truncated_pictures(tmp_path: Path, name: str) -> None:
    Image.fromarray(pixels(200, 256)).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=rf"cannot be decoded.*\n.*{name}"), open_image(tmp_path / name) as reader:
        reader.read()
