"""What is written: names, label values, probabilities."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from tests.inference.conftest import RECORD
from tune_smp.data.labels import ClassMap
from tune_smp.data.pairing.collection import ImageGroup
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.formats import open_image
from tune_smp.data.reading.image_reader import ImageInfo
from tune_smp.data.reading.images import LabelWriter
from tune_smp.errors import DataError, Problem, ResourceError
from tune_smp.inference.blending import Rows
from tune_smp.inference.outputs import plan_outputs, to_labels
from tune_smp.inference.sources import StackedReader
from tune_smp.inference.writing import PredictionWriter


def groups(folder: Path, *names: str) -> list[ImageGroup]:
    return [ImageGroup(name, (folder / name,)) for name in names]


def test_an_output_is_named_after_the_first_file(tmp_path: Path) -> None:
    images = [
        *groups(tmp_path, "a.tif", "b.c.ome.tif", "d.ome.zarr", "e.OME.TIFF", "f.png"),
        ImageGroup("stacked", (tmp_path / "g_c0.tif", tmp_path / "g_c1.tif")),
    ]
    jobs = plan_outputs(images, tmp_path / "out", suffix="ome.zarr", overwrite=False)
    assert [job.output.name for job in jobs] == [f"{stem}.ome.zarr" for stem in ("a", "b.c", "d", "e", "f", "g_c0")]
    assert {job.output.parent for job in jobs} == {tmp_path / "out"}


def test_two_images_with_one_output_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 images would be written to a.ome.tif\n.*a.png, a.tif\n.*--imagesPattern"):
        plan_outputs(groups(tmp_path, "a.png", "a.tif", "b.tif"), tmp_path / "out", suffix="ome.tif", overwrite=True)


def test_what_exists_is_kept_unless_overwrite(tmp_path: Path) -> None:
    for name in ("a.ome.tif", "b.ome.tif"):
        (tmp_path / name).touch()
    images = groups(tmp_path / "images", "a.tif", "b.tif", "c.tif")
    with pytest.raises(DataError, match=r"2 of 3 outputs exist already\n.*a.ome.tif, b.ome.tif\n.*--overwrite"):
        plan_outputs(images, tmp_path, suffix="ome.tif", overwrite=False)
    assert len(plan_outputs(images, tmp_path, suffix="ome.tif", overwrite=True)) == 3


def test_an_image_is_never_replaced_by_its_prediction(tmp_path: Path) -> None:
    (tmp_path / "a.ome.tif").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(DataError, match=r"replace the images themselves\n.*a.ome.tif"):
        plan_outputs(groups(tmp_path, "a.ome.tif"), tmp_path / "link", suffix="ome.tif", overwrite=True)


@pytest.mark.parametrize(
    ("class_map", "probabilities", "labels", "dtype"),
    [
        (ClassMap("binary", (0, 255)), [[0.4, 0.6]], [[0, 255]], np.uint8),
        (ClassMap("binary", (0, 1)), [[0.1, 0.9]], [[0, 1]], np.uint8),
        (ClassMap("multiclass", (0, 7, 300)), [[0.5, 0.1], [0.3, 0.2], [0.2, 0.7]], [[0, 300]], np.uint16),
        (ClassMap("multiclass", (-1, 200)), [[0.9, 0.1], [0.1, 0.9]], [[-1, 200]], np.int16),
        (ClassMap("multilabel", (1, 255)), [[0.6, 0.4], [0.7, 0.6]], [[1, 0], [255, 255]], np.uint8),
    ],
)
def test_labels_have_the_values_of_the_training_labels(
    class_map: ClassMap, probabilities: list[list[float]], labels: list[list[int]], dtype: type
) -> None:
    got = to_labels(np.array(probabilities, np.float32)[:, None], replace(RECORD, class_map=class_map))
    assert got.dtype == dtype
    assert got[:, 0].tolist() == labels


def test_each_class_has_its_threshold() -> None:
    model = replace(RECORD, class_map=ClassMap("multilabel", (1, 1)), thresholds=(0.25, 0.75))
    probabilities = np.array([[0.2, 0.3, 0.8], [0.2, 0.3, 0.8]], np.float32)[:, None]
    assert to_labels(probabilities, model)[:, 0].tolist() == [[0, 1, 1], [0, 0, 1]]
    without = replace(model, thresholds=())
    assert to_labels(probabilities, without)[:, 0].tolist() == [[0, 0, 1], [0, 0, 1]]


@pytest.mark.parametrize("suffix", ["ome.tif", "ome.zarr"])
@pytest.mark.parametrize("output", ["labels", "probabilities"])
@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_rows_of_every_plane_arrive_in_the_file(
    tmp_path: Path, make_preprocessing: Callable[..., Any], mode: str, output: Any, suffix: str
) -> None:
    model: Preprocessing = make_preprocessing(mode)
    class_map = model.class_map
    planes, height, width = 2, 50, 33
    probabilities = np.random.default_rng(0).random((planes, class_map.classes, height, width), np.float32)
    rows = [
        Rows(plane, y, probabilities[plane, :, y : y + 20]) for plane in range(planes) for y in range(0, height, 20)
    ]
    info = ImageInfo(1, height, width, planes, np.dtype(np.uint8))

    with PredictionWriter(model, output) as writer:
        writer.write(rows, tmp_path / f"a.{suffix}", info=info)

    with open_image(tmp_path / f"a.{suffix}") as reader:
        assert reader.info.planes == planes
        for plane in range(planes):
            wanted: NDArray[Any] = probabilities[plane]
            np.testing.assert_array_equal(
                reader.read(plane), to_labels(wanted, model) if output == "labels" else wanted
            )


def test_a_strip_that_cannot_be_written_ends_the_prediction(
    tmp_path: Path, make_preprocessing: Callable[..., Any]
) -> None:
    model: Preprocessing = make_preprocessing("binary")
    predicted = 0

    def rows() -> Iterator[Rows]:
        nonlocal predicted
        for y in range(0, 200, 20):
            predicted += 1
            yield Rows(0, y + 1, np.zeros((1, 20, 33), np.float32))  # not where the row before ended

    info = ImageInfo(1, 200, 33, 1, np.dtype(np.uint8))
    with pytest.raises(ValueError, match="do not follow"), PredictionWriter(model, "labels") as writer:
        writer.write(rows(), tmp_path / "a.ome.tif", info=info)

    assert predicted == 2  # the second was predicted while the first was written
    assert list(tmp_path.iterdir()) == []


def test_what_writing_raised_comes_before_what_predicting_the_next_strip_raised(
    tmp_path: Path, make_preprocessing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise ResourceError(Problem("the disk is full"))

    def rows() -> Iterator[Rows]:
        yield Rows(0, 0, np.zeros((1, 20, 33), np.float32))
        raise DataError(Problem("the image is cut short"))

    monkeypatch.setattr(LabelWriter, "write", full)
    info = ImageInfo(1, 200, 33, 1, np.dtype(np.uint8))
    model: Preprocessing = make_preprocessing("binary")
    with pytest.raises(ResourceError, match="the disk is full"), PredictionWriter(model, "labels") as writer:
        writer.write(rows(), tmp_path / "a.ome.tif", info=info)
    assert list(tmp_path.iterdir()) == []


def flat(value: float, *, height: int = 20) -> Rows:
    """The only strip of an image of 33 columns."""
    return Rows(0, 0, np.full((1, height, 33), value, np.float32))


def test_an_image_is_published_while_the_next_one_is_predicted(
    tmp_path: Path, make_preprocessing: Callable[..., Any]
) -> None:
    info, written = ImageInfo(1, 20, 33, 1, np.dtype(np.uint8)), threading.Event()
    first, second = tmp_path / "a.ome.tif", tmp_path / "b.ome.tif"

    def rows() -> Iterator[Rows]:
        assert written.wait(60), "the first image waits for the second"
        assert first.exists() and not second.exists()
        yield flat(1.0)

    with PredictionWriter(make_preprocessing("binary"), "labels") as writer:
        writer.write([flat(0.0)], first, info=info, on_written=written.set)
        writer.write(rows(), second, info=info)
    assert second.exists()


def test_a_file_that_cannot_get_its_name_ends_the_prediction(
    tmp_path: Path, make_preprocessing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise ResourceError(Problem("the disk is full"))

    monkeypatch.setattr(LabelWriter, "_publish", full)
    info, told = ImageInfo(1, 20, 33, 1, np.dtype(np.uint8)), []
    model: Preprocessing = make_preprocessing("binary")
    with pytest.raises(ResourceError, match="the disk is full"), PredictionWriter(model, "labels") as writer:
        writer.write([flat(0.0)], tmp_path / "a.ome.tif", info=info, on_written=lambda: told.append(1))
    assert not told
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_cannot_be_read_leaves_nothing_and_those_around_it_are_written(
    tmp_path: Path, make_preprocessing: Callable[..., Any]
) -> None:
    info = ImageInfo(1, 40, 33, 1, np.dtype(np.uint8))

    def cut_short() -> Iterator[Rows]:
        yield flat(0.0)
        raise DataError(Problem("the image is cut short"))

    with PredictionWriter(make_preprocessing("binary"), "labels") as writer:
        writer.write([flat(0.0, height=40)], tmp_path / "a.ome.tif", info=info)
        with pytest.raises(DataError, match="cut short"):
            writer.write(cut_short(), tmp_path / "b.ome.tif", info=info)
        writer.write([flat(0.0, height=40)], tmp_path / "c.ome.tif", info=info)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ome.tif", "c.ome.tif"]


def micrographs(folder: Path) -> None:
    """Two images of one plane and a series of three times, with a pixel size of 0.325 µm where the format has one."""
    frame = np.random.default_rng(0).integers(0, 250, (3, 40, 50), dtype=np.uint8)
    size = {"PhysicalSizeX": 0.325, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.65, "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(folder / "ome.ome.tif", frame[0], ome=True, metadata={"axes": "YX", **size})
    # As ImageJ has them, in millionths: 0.3250000081 and 0.6500000162 if nothing is rounded.
    per_pixel = {"resolution": ((3_076_923, 1_000_000), (1_538_461, 1_000_000)), "imagej": True}
    tifffile.imwrite(folder / "ij.tif", frame[0], metadata={"unit": "um"}, **per_pixel)
    tifffile.imwrite(
        folder / "series.tif", frame, metadata={"axes": "TYX", "unit": "micron", "finterval": 5.0}, **per_pixel
    )
    stack = np.stack([frame, frame + 1])
    tifffile.imwrite(folder / "stack.tif", stack, metadata={"axes": "TZYX", "unit": "um", "spacing": 2.5}, **per_pixel)


def written(folder: Path, name: str, suffix: str) -> Path:
    """The mask of an image, written as ``predict`` writes it: every plane's own number as its values."""
    output = folder / f"{name}.{suffix}"
    model = replace(RECORD, class_map=ClassMap("binary", (0, 1), names=("foreground",)))
    with StackedReader([next(folder.glob(f"{name}*.tif"))]) as reader:
        info = reader.info
        ones = [
            Rows(plane, 0, np.full((1, info.height, info.width), float(plane % 2), np.float32))
            for plane in range(info.planes)
        ]
        with PredictionWriter(model, "labels") as writer:
            writer.write(ones, output, info=info)
    return output


@pytest.mark.parametrize(
    ("name", "times", "depth", "more"),
    [
        ("ome", 1, 1, ""),
        ("ij", 1, 1, ""),
        ("series", 3, 1, 'TimeIncrement="5.0" TimeIncrementUnit="s"'),
        ("stack", 2, 3, 'PhysicalSizeZ="2.5" PhysicalSizeZUnit="µm"'),
    ],
)
def test_a_mask_has_the_pixel_size_and_the_axes_of_its_image(
    tmp_path: Path, name: str, times: int, depth: int, more: str
) -> None:
    micrographs(tmp_path)
    with tifffile.TiffFile(written(tmp_path, name, "mask.ome.tif")) as file:
        described = file.ome_metadata or ""
        pixels = file.series[0].asarray().reshape(times, depth, 40, 50)
    for attribute in ('PhysicalSizeX="0.325"', 'PhysicalSizeXUnit="µm"', 'PhysicalSizeY="0.65"', more):
        assert attribute in described
    assert f'SizeT="{times}"' in described
    assert f'SizeZ="{depth}"' in described
    assert (pixels[:, :, 0, 0].reshape(-1) == np.arange(times * depth) % 2).all()


def test_an_ome_zarr_mask_has_them_too(tmp_path: Path) -> None:
    micrographs(tmp_path)
    mask = written(tmp_path, "stack", "mask.ome.zarr")
    image = cast(Any, zarr.open_group(mask, mode="r").attrs["multiscales"])[0]
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 1.0, 2.5, 0.65, 0.325]
    assert [axis.get("unit") for axis in image["axes"]] == [None, None, "micrometer", "micrometer", "micrometer"]
    with open_image(mask) as reader:
        assert (reader.info.planes, reader.info.times) == (6, 2)
        assert str(reader.info.calibration) == "0.325 µm × 0.65 µm"
