"""Every kind of image file is read right or refused by name; what LabelWriter writes is what everybody reads."""

from __future__ import annotations

import logging
import resource
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import bfio
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from tests.data.reading import pixels, read
from tune_smp.data.reading.formats import open_image
from tune_smp.data.reading.images import LabelWriter, OmeReader
from tune_smp.data.reading.ome_zarr import ZarrReader
from tune_smp.data.reading.tiff import TiffReader
from tune_smp.errors import DataError, ResourceError


def write_bfio(path: Path, image: NDArray[Any]) -> None:
    """``image`` is (Y, X, Z, C, T)."""
    height, width, depth, channels, times = image.shape
    with (
        bfio.BioWriter(
            path, max_workers=1, Y=height, X=width, Z=depth, C=channels, T=times, dtype=image.dtype
        ) as writer,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # zarr about bfio's own metadata folder
        writer[:] = image


def write_zarr(path: Path, arrays: dict[str, NDArray[Any]], paths: list[str]) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs["multiscales"] = [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": p} for p in paths]}]
    for name, array in arrays.items():
        group.create_array(name, data=array)


class TestOme:
    def test_an_empty_zarr(self, tmp_path: Path) -> None:
        (tmp_path / "a.ome.zarr").mkdir()
        with pytest.raises(DataError, match=r"a\.ome\.zarr"):
            open_image(tmp_path / "a.ome.zarr")

    def test_a_corrupt_chunk_of_zarr(self, tmp_path: Path) -> None:
        write_bfio(tmp_path / "a.ome.zarr", pixels(1100, 1200, 1, 1, 1))
        chunk = next(
            path for path in (tmp_path / "a.ome.zarr" / "0").rglob("*") if path.is_file() and path.stat().st_size > 9999
        )
        chunk.write_bytes(chunk.read_bytes()[:5000])
        with open_image(tmp_path / "a.ome.zarr") as reader, pytest.raises(DataError, match=r"a\.ome\.zarr"):
            reader.read()

    @pytest.mark.parametrize("suffix", ["ome.tif", "ome.zarr"])
    @pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
    def test_what_bfio_wrote(self, tmp_path: Path, suffix: str, dtype: str) -> None:
        image = pixels(70, 100, 3, 2, 1, dtype=dtype)
        write_bfio(tmp_path / f"a.{suffix}", image)
        with open_image(tmp_path / f"a.{suffix}") as reader:
            assert isinstance(reader, TiffReader if suffix == "ome.tif" else OmeReader)
            assert (reader.info.planes, reader.info.channels, reader.info.dtype.name) == (3, 2, dtype)
        for plane in range(3):
            found = read(tmp_path / f"a.{suffix}", plane)
            assert (found == np.moveaxis(image[:, :, plane, :, 0], -1, 0)).all()

    def test_a_tiff_of_one_plane_is_read_by_bfio(self, tmp_path: Path) -> None:
        image = pixels(70, 100, 1, 1, 1)
        write_bfio(tmp_path / "a.ome.tif", image)
        with open_image(tmp_path / "a.ome.tif") as reader:
            assert isinstance(reader, OmeReader)
            assert (reader.read()[0] == image[:, :, 0, 0, 0]).all()

    @pytest.mark.parametrize("suffix", ["ome.tif", "ome.zarr"])
    def test_time_and_depth_are_planes(self, tmp_path: Path, suffix: str) -> None:
        image = pixels(20, 30, 3, 1, 2)
        write_bfio(tmp_path / f"a.{suffix}", image)
        with open_image(tmp_path / f"a.{suffix}") as reader:
            assert reader.info.planes == 6
            for plane in range(6):
                assert (reader.read(plane)[0] == image[:, :, plane % 3, 0, plane // 3]).all()

    @pytest.mark.parametrize("suffix", ["ome.tif", "ome.zarr"])
    @pytest.mark.parametrize(("height", "width"), [(1025, 1030), (1030, 1025), (2049, 3)])
    def test_a_last_tile_of_one_pixel(self, tmp_path: Path, suffix: str, height: int, width: int) -> None:
        image = pixels(height, width, 1, 1, 1)
        write_bfio(tmp_path / f"a.{suffix}", image)
        with open_image(tmp_path / f"a.{suffix}") as reader:
            assert (reader.read()[0] == image[:, :, 0, 0, 0]).all()
            rows = slice(height - 2, height)
            assert (reader.read(y=rows, x=slice(1, 3))[0] == image[rows, 1:3, 0, 0, 0]).all()

    def test_ome_tiff_of_others_is_read_without_bfio(self, tmp_path: Path) -> None:
        image = pixels(2, 3, 40, 50)
        tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata={"axes": "CZYX"})
        with open_image(tmp_path / "a.ome.tif") as reader:
            assert isinstance(reader, TiffReader)
            assert (reader.read(1) == image[:, 1]).all()

    def test_other_orders_of_dimensions_are_not_left_to_bfio(self, tmp_path: Path) -> None:
        # Tiles of 1024 in the order XYCZT: bfio would open it and give the planes of XYZCT.
        image = pixels(3, 2, 1030, 40)
        tifffile.imwrite(tmp_path / "a.ome.tif", image, metadata={"axes": "ZCYX"}, tile=(1024, 1024))
        with open_image(tmp_path / "a.ome.tif") as reader:
            assert isinstance(reader, TiffReader)
            assert (reader.read(2) == image[2]).all()

    @pytest.mark.filterwarnings("ignore:Failed to convert value")
    def test_broken_ome_xml_is_read_by_tifffile(self, tmp_path: Path) -> None:
        image = pixels(70, 100, 1, 1, 1)
        write_bfio(tmp_path / "a.ome.tif", image)
        content = (tmp_path / "a.ome.tif").read_bytes()
        (tmp_path / "a.ome.tif").write_bytes(content.replace(b'Type="uint8"', b'Type="uint9"'))
        assert (read(tmp_path / "a.ome.tif")[0] == image[:, :, 0, 0, 0]).all()

    @pytest.mark.parametrize("axes", ["yx", "zyx", "czyx", "tczyx"])
    @pytest.mark.parametrize("version", [2, 3])
    def test_ome_zarr_of_others(self, tmp_path: Path, axes: str, version: Any) -> None:
        sizes = {"t": 2, "c": 3, "z": 4, "y": 20, "x": 30}
        image = pixels(*(sizes[axis] for axis in axes), dtype="uint16")
        group = zarr.open_group(tmp_path / "a.ome.zarr", mode="w", zarr_format=version)
        multiscales = [{"axes": [{"name": axis} for axis in axes], "datasets": [{"path": "0"}, {"path": "1"}]}]
        group.attrs.update({"multiscales": multiscales} if version == 2 else {"ome": {"multiscales": multiscales}})
        group.create_array("0", data=image, chunks=(1,) * (len(axes) - 2) + (16, 16))
        group.create_array("1", data=image[..., ::2, ::2])
        full = image.reshape([sizes[axis] if axis in axes else 1 for axis in "tczyx"])
        with open_image(tmp_path / "a.ome.zarr") as reader:
            assert (reader.info.planes, reader.info.channels) == (full.shape[0] * full.shape[2], full.shape[1])
        plane = full.shape[0] * full.shape[2] - 1
        assert (read(tmp_path / "a.ome.zarr", plane) == full[-1, :, -1]).all()

    @pytest.mark.parametrize("dtype", ["bool", "float16", "float64", "int64", "uint64", ">u2"])
    def test_types_of_zarr_that_ome_lacks(self, tmp_path: Path, dtype: str) -> None:
        image = (pixels(20, 30) // 2).astype(dtype)
        write_zarr(tmp_path / "a.ome.zarr", {"0": image}, ["0"])
        assert (read(tmp_path / "a.ome.zarr")[0] == image).all()

    def test_int64_labels_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        write_zarr(tmp_path / "a.ome.zarr", {"0": np.full((20, 30), 2**40)}, ["0"])
        with open_image(tmp_path / "a.ome.zarr") as reader, pytest.raises(DataError, match=f"found {2**40}"):
            reader.read()

    def test_complex_zarr_is_refused(self, tmp_path: Path) -> None:
        write_zarr(tmp_path / "a.ome.zarr", {"0": np.ones((20, 30), np.complex64)}, ["0"])
        with pytest.raises(DataError, match="complex64 are not supported"):
            open_image(tmp_path / "a.ome.zarr")

    def test_the_metadata_say_which_resolution_is_full(self, tmp_path: Path) -> None:
        image = pixels(20, 30)
        write_zarr(tmp_path / "a.ome.zarr", {"full": image, "fifth": image[::5, ::5]}, ["full", "fifth"])
        assert (read(tmp_path / "a.ome.zarr")[0] == image).all()

    @pytest.mark.parametrize("metadata", [{"multiscales": [{}]}, {"multiscales": [{"datasets": [{"path": "1"}]}]}])
    def test_broken_metadata_of_zarr_are_named(self, tmp_path: Path, metadata: dict[str, Any]) -> None:
        write_zarr(tmp_path / "a.ome.zarr", {"0": pixels(20, 30)}, ["0"])
        zarr.open_group(tmp_path / "a.ome.zarr", mode="a").attrs.update(metadata)
        with pytest.raises(DataError, match=r"a\.ome\.zarr"):
            open_image(tmp_path / "a.ome.zarr")

    def test_bfio_leaves_logging_alone_and_is_imported_late(self) -> None:
        program = (
            "import logging, sys; from tune_smp.data.reading.images import _bfio\n"
            "assert 'bfio' not in sys.modules and 'zarr' not in sys.modules and 'torch' not in sys.modules\n"
            "_bfio(); assert 'bfio' in sys.modules; assert not logging.getLogger().handlers"
        )
        subprocess.run([sys.executable, "-c", program], check=True)


class TestLabelWriter:
    @pytest.mark.parametrize("suffix", [".ome.tif", ".ome.tiff", ".ome.zarr", ".zarr"])
    @pytest.mark.parametrize(("height", "width"), [(100, 70), (2500, 1500), (1024, 1025)])
    def test_read_back_by_everyone(self, tmp_path: Path, suffix: str, height: int, width: int) -> None:
        planes, channels = (3, 2) if height == 100 else (1, 2)
        image = pixels(planes, channels, height, width)
        path = tmp_path / f"a{suffix}"
        with LabelWriter(path, shape=image.shape, dtype="uint8") as writer:
            for plane in range(planes):
                for y in range(0, height, 700):
                    writer.write(image[plane, :, y : y + 700], plane=plane, y=y)
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
        with open_image(path) as reader:
            zarr_reader = ZarrReader if width == 1025 else OmeReader
            assert isinstance(reader, zarr_reader if "zarr" in suffix else TiffReader)
            assert all((reader.read(plane) == image[plane]).all() for plane in range(planes))
        if suffix.startswith(".ome.tif"):
            with tifffile.TiffFile(path) as file:
                assert file.series[0].axes == ("CZYX" if planes > 1 else "CYX")
                assert file.pages.first.tile == (1024, 1024)
                assert (file.asarray() == image.swapaxes(0, 1).squeeze()).all()
        else:
            stored = zarr.open_group(path, mode="r")["0"]
            assert isinstance(stored, zarr.Array)
            assert (np.asarray(stored)[0] == image.swapaxes(0, 1)).all()

    @pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
    @pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
    def test_dtypes(self, tmp_path: Path, dtype: str, suffix: str) -> None:
        image = pixels(1, 20, 30, dtype=dtype)
        with LabelWriter(tmp_path / f"a{suffix}", shape=(1, 1, 20, 30), dtype=dtype) as writer:
            writer.write(image)
        found = read(tmp_path / f"a{suffix}")
        assert found.dtype == dtype
        assert (found == image).all()

    def test_the_same_pixels_give_the_same_bytes(self, tmp_path: Path) -> None:
        image = pixels(1, 1100, 1100)
        for name in ("a.ome.tif", "b.ome.tif"):
            with LabelWriter(tmp_path / name, shape=(1, 1, 1100, 1100), dtype="uint8") as writer:
                writer.write(image)
        assert (tmp_path / "a.ome.tif").read_bytes() == (tmp_path / "b.ome.tif").read_bytes()

    @pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
    def test_an_earlier_image_is_replaced_whole_or_not_at_all(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"a{suffix}"
        for value in (1, 2):
            with LabelWriter(path, shape=(1, 1, 20, 30), dtype="uint8") as writer:
                writer.write(np.full((1, 20, 30), value, np.uint8))
        assert (read(path) == 2).all()
        with pytest.raises(KeyboardInterrupt), LabelWriter(path, shape=(1, 1, 2000, 30), dtype="uint8") as writer:
            writer.write(np.full((1, 1500, 30), 3, np.uint8))
            raise KeyboardInterrupt
        assert (read(path) == 2).all()
        assert [entry.name for entry in tmp_path.iterdir()] == [path.name]

    @pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
    def test_a_missing_row_is_an_error(self, tmp_path: Path, suffix: str) -> None:
        with (
            pytest.raises(ValueError, match="of 20 rows"),
            LabelWriter(tmp_path / f"a{suffix}", shape=(1, 1, 20, 30), dtype="uint8") as writer,
        ):
            writer.write(np.zeros((1, 19, 30), np.uint8))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "name", ["with space.ome.tif", "line\nbreak.ome.tif", "<&>.ome.tif", "-é细\x01.ome.tif", "a" * 247 + ".ome.tif"]
    )
    def test_odd_names(self, tmp_path: Path, name: str) -> None:
        with LabelWriter(tmp_path / name, shape=(1, 1, 20, 30), dtype="uint8") as writer:
            writer.write(np.ones((1, 20, 30), np.uint8))
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (read(tmp_path / name) == 1).all()

    @pytest.mark.parametrize(
        ("name", "dtype", "message"),
        [("a.png", "uint8", "ome.tif or .ome.zarr"), ("a.tif", "uint8", "ome.tif"), ("a.ome.tif", "int64", "int64")],
    )
    def test_what_cannot_be_written(self, tmp_path: Path, name: str, dtype: str, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            LabelWriter(tmp_path / name, shape=(1, 1, 20, 30), dtype=dtype)

    @pytest.mark.parametrize(("rows", "y"), [((1, 5, 30), 1), ((1, 21, 30), 0), ((2, 5, 30), 0), ((1, 5, 29), 0)])
    def test_rows_out_of_place(self, tmp_path: Path, rows: tuple[int, ...], y: int) -> None:
        with (
            pytest.raises(ValueError, match="do not follow"),
            LabelWriter(tmp_path / "a.ome.tif", shape=(1, 1, 20, 30), dtype="uint8") as writer,
        ):
            writer.write(np.zeros(rows, np.uint8), y=y)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with (
            pytest.raises(ResourceError, match=r"nowhere"),
            LabelWriter(tmp_path / "nowhere" / "a.ome.tif", shape=(1, 1, 20, 30), dtype="uint8"),
        ):
            pass

    @pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
    def test_a_disk_that_fills_is_named_and_nothing_is_left(self, tmp_path: Path, suffix: str) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with pytest.raises(ResourceError, match=rf"cannot be written.*\n.*a{suffix}"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, hard))  # bytes of one file
            try:
                with LabelWriter(tmp_path / f"a{suffix}", shape=(1, 1, 1024, 1024), dtype="uint8") as writer:
                    writer.write(pixels(1, 1024, 1024))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folder", "shape", "dtype", "reader_class"),
    [
        ("nuclei-binary/images", (1, 256, 256), "uint8", TiffReader),
        ("nuclei-multiclass/images", (1, 256, 256), "uint16", TiffReader),
        ("nuclei-multilabel/labels", (2, 256, 256), "uint8", TiffReader),
        ("membrane-binary/labels", (1, 512, 512), "uint8", TiffReader),
        ("camvid-multiclass/images", (3, 180, 240), "uint8", TiffReader),
    ],
)
def test_real_images(shared_data: Path, folder: str, shape: tuple[int, ...], dtype: str, reader_class: type) -> None:
    for path in sorted((shared_data / folder).iterdir()):
        image = read(path)
        if image.shape == shape:
            break
    assert image.shape == shape
    assert image.dtype == dtype
    with open_image(path) as reader:
        assert isinstance(reader, reader_class)
        assert reader.info.notes == ()
    expected = tifffile.imread(path)
    assert (image == (np.moveaxis(expected, -1, 0) if expected.shape[-1] == 3 else expected)).all()


def test_logging_of_tifffile_is_left_alone(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(20, 30))
    before = list(logging.getLogger("tifffile").handlers)
    read(tmp_path / "a.tif")
    assert logging.getLogger("tifffile").handlers == before
