"""Every TIFF is read right, whatever its axes, types and packing, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tests.data.reading import notes, pixels, read
from tune_smp.data.reading.formats import open_image
from tune_smp.errors import DataError


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_supported_dtypes_stay(tmp_path: Path, dtype: str, byteorder: Any) -> None:
    image = pixels(20, 30, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", image, byteorder=byteorder)
    found = read(tmp_path / "a.tif")
    assert found.dtype == dtype
    assert (found[0] == image).all()


@pytest.mark.parametrize(
    ("stored", "served", "told"),
    [
        ("bool", "uint8", 1),  # tifffile writes it as MinIsWhite
        ("float16", "float32", 0),
        ("float64", "float32", 1),
        ("int64", "int32", 0),
        ("uint64", "int32", 0),
    ],
)
def test_other_dtypes_are_served_as_supported_ones(tmp_path: Path, stored: str, served: str, told: int) -> None:
    image = pixels(20, 30).astype(stored)
    tifffile.imwrite(tmp_path / "a.tif", image)
    found = read(tmp_path / "a.tif")
    assert found.dtype == served
    assert (found[0] == image.astype(served)).all()
    assert len(notes(tmp_path / "a.tif")) == told


def test_64_bit_integers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((20, 30), 2**40))
    with open_image(tmp_path / "a.tif") as reader, pytest.raises(DataError, match=rf"found {2**40}.*\n.*a\.tif"):
        reader.read()


def test_nan_and_infinity_are_read_as_they_are(tmp_path: Path) -> None:
    image = pixels(20, 30, dtype="float32")
    image[0, :2] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "a.tif", image)
    assert np.array_equal(read(tmp_path / "a.tif")[0], image, equal_nan=True)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_rgb(tmp_path: Path, planar: Any) -> None:
    image = pixels(20, 30, 3)
    stored = image if planar == "contig" else np.moveaxis(image, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", planarconfig=planar)
    assert (read(tmp_path / "a.tif") == np.moveaxis(image, -1, 0)).all()


@pytest.mark.parametrize(("samples", "photometric"), [(4, "rgb"), (2, "minisblack")])
def test_alpha_is_left_out_and_told(tmp_path: Path, samples: int, photometric: Any) -> None:
    image = pixels(20, 30, samples)
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric=photometric, planarconfig="contig", extrasamples=["unassalpha"]
    )
    assert (read(tmp_path / "a.tif") == np.moveaxis(image, -1, 0)[:-1]).all()
    assert notes(tmp_path / "a.tif") == ("the alpha channel is left out",)


def test_more_samples_are_channels(tmp_path: Path) -> None:
    image = pixels(20, 30, 5)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", planarconfig="contig")
    assert (read(tmp_path / "a.tif") == np.moveaxis(image, -1, 0)).all()


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_axes_of_stacks(tmp_path: Path, kind: str) -> None:
    image = pixels(2, 3, 4, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=kind == "imagej", ome=kind == "ome", metadata={"axes": "TZCYX"})
    with open_image(tmp_path / "a.tif") as reader:
        assert (reader.info.channels, reader.info.planes) == (4, 6)
        for plane in range(6):
            assert (reader.read(plane) == image[plane // 3, plane % 3]).all()
        with pytest.raises(IndexError):
            reader.read(6)


def test_rgb_stack_of_ome(tmp_path: Path) -> None:
    image = pixels(5, 20, 30, 3)
    tifffile.imwrite(tmp_path / "a.tif", image, ome=True, photometric="rgb", metadata={"axes": "ZYXS"})
    assert (read(tmp_path / "a.tif", 4) == np.moveaxis(image[4], -1, 0)).all()


def test_plain_pages_are_planes(tmp_path: Path) -> None:
    image = pixels(7, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    Image.fromarray(image[0]).save(
        tmp_path / "b.tif", save_all=True, append_images=[Image.fromarray(plane) for plane in image[1:]]
    )
    with tifffile.TiffWriter(tmp_path / "c.tif") as writer:
        for plane in image:
            writer.write(plane, compression="zlib", contiguous=False)
    for name in ("a.tif", "b.tif", "c.tif"):
        assert (read(tmp_path / name, 5)[0] == image[5]).all()
        with open_image(tmp_path / name) as reader:
            assert reader.info.planes == 7


def test_images_of_other_sizes_in_the_file_are_told(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(pixels(20, 30))
        writer.write(pixels(10, 15))
    with open_image(tmp_path / "a.tif") as reader:
        assert (reader.info.height, reader.info.width, reader.info.planes) == (20, 30, 1)
        assert reader.info.notes == ("the file holds several images, of which number 1 is read: 20×30, 10×15 px",)
    with open_image(tmp_path / "a.tif", size=(10, 15)) as reader:
        assert (reader.info.height, reader.info.width, reader.info.planes) == (10, 15, 1)
        assert "number 2 is read" in reader.info.notes[0]


def test_pyramids_are_read_at_full_resolution(tmp_path: Path) -> None:
    image = pixels(64, 96)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(image, subifds=1, tile=(32, 32))
        writer.write(image[::2, ::2], subfiletype=1, tile=(32, 32))
    assert (read(tmp_path / "a.tif")[0] == image).all()


def test_palettes_are_read_as_indices_and_told(tmp_path: Path) -> None:
    image = pixels(20, 30)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="palette", colormap=pixels(3, 256, dtype="uint16"))
    assert (read(tmp_path / "a.tif")[0] == image).all()
    assert "palette" in notes(tmp_path / "a.tif")[0]


@pytest.mark.parametrize("compression", ["zlib", "lzw", "zstd", "packbits"])
def test_compressions(tmp_path: Path, compression: Any) -> None:
    image = pixels(40, 50, dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", image, compression=compression)
    assert (read(tmp_path / "a.tif")[0] == image).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "tile": (64, 64)},
        {"compression": "zlib", "rowsperstrip": 16},
        {"compression": "zlib"},
        {"compression": "zlib", "photometric": "rgb", "planarconfig": "separate", "tile": (64, 64)},
    ],
)
def test_large_files_are_read_by_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("tune_smp.data.reading.tiff.DECODED_WHOLE", 1000)
    image = pixels(3, 200, 300, dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", image, byteorder=">", **{"photometric": "minisblack", **options})
    with open_image(tmp_path / "a.tif") as reader:
        for plane in range(reader.info.planes):
            expected = image if reader.info.channels == 3 else image[plane : plane + 1]
            for y, x in (
                (slice(0, 200), slice(0, 300)),
                (slice(70, 90), slice(120, 131)),
                (slice(199, 200), slice(None)),
            ):
                found = reader.read(plane, y, x)
                assert found.dtype == np.uint16
                assert (found == expected[:, y, x]).all()


def test_colours_that_are_not_rgb_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(20, 30, 4), photometric="separated")
    with pytest.raises(DataError, match=r"SEPARATED colours.*\n.*a\.tif"):
        open_image(tmp_path / "a.tif")


def test_complex_pixels_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((20, 30), np.complex64))
    with pytest.raises(DataError, match=r"complex64 are not supported.*\n.*a\.tif"):
        open_image(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (64, 64)}])
@pytest.mark.parametrize("kept", [0.002, 0.1, 0.5, 0.999])
@pytest.mark.parametrize("whole", [1, 2**26])
def test_truncated_tiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], kept: float, whole: int
) -> None:
    monkeypatch.setattr("tune_smp.data.reading.tiff.DECODED_WHOLE", whole)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in pixels(3, 200, 256):
            writer.write(plane, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(DataError, match=r"a\.tif"), open_image(path) as reader:
        reader.read(2)


@pytest.mark.parametrize("metadata", [{"axes": "ZYX"}, None])
def test_missing_pages_are_not_zeros(tmp_path: Path, metadata: dict[str, Any] | None) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, pixels(5, 200, 256), compression="zlib", metadata=metadata, photometric="minisblack")
    content = path.read_bytes()
    for size in (len(content) // 2, len(content) - 20):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"a\.ome\.tif"), open_image(path) as reader:
            reader.read(0)


@pytest.mark.parametrize("whole", [1, 2**26])
def test_corrupt_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    monkeypatch.setattr("tune_smp.data.reading.tiff.DECODED_WHOLE", whole)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(200, 256), compression="zlib")
    content = bytearray(path.read_bytes())
    content[2000:3000] = b"\xff" * 1000
    path.write_bytes(content)
    with open_image(path) as reader, pytest.raises(DataError, match=r"cannot be decoded.*\n.*a\.tif") as caught:
        reader.read()
    assert caught.value.__cause__ is not None
