"""Names in Unicode's several forms, files in sub-folders, formats that are not read, plates of OME-Zarr."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tune_smp.data.pairing.collection import find_images, find_pairs
from tune_smp.data.pairing.pairs import Collection
from tune_smp.data.reading.foreign_formats import FOREIGN_FORMATS
from tune_smp.data.reading.formats import open_image
from tune_smp.data.split import read_split, split_groups, split_regions, write_split
from tune_smp.data.store.image_store import open_or_build
from tune_smp.errors import DataError
from tune_smp.inference.outputs import plan_outputs

PIXELS = np.random.default_rng(0).integers(0, 250, (24, 32), dtype=np.uint8)


def touch(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, PIXELS + np.uint8(number))


def pairs_of(folder: Path, images: str, labels: str | None = None) -> Collection:
    return find_pairs(folder / "images", folder / "labels", images_pattern=images, labels_pattern=labels or images)


def names(collection: Collection) -> list[str]:
    return [pair.name for pair in collection.pairs]


# Unicode


@pytest.mark.parametrize("pattern", [".*", "Zürich_{i:d+}.tif"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_normal_forms_of_one_name_are_one_name(tmp_path: Path, pattern: str, written: Any) -> None:
    plain = [f"Zürich_{number}.tif" for number in range(4)]
    touch(tmp_path / "images", *(unicodedata.normalize("NFC", name) for name in plain))
    touch(tmp_path / "labels", *(unicodedata.normalize("NFD", name) for name in plain))
    collection = pairs_of(tmp_path, unicodedata.normalize(written, pattern))
    assert names(collection) == [unicodedata.normalize("NFC", name) for name in plain]
    assert all(pair.labels[0].exists() for pair in collection.pairs)


def test_values_of_variables_are_compared_alike(tmp_path: Path) -> None:
    touch(tmp_path / "images", unicodedata.normalize("NFC", "é/1.tif"))
    touch(tmp_path / "labels", unicodedata.normalize("NFD", "é/1_mask.tif"))
    collection = pairs_of(tmp_path, "é/{i:d}.tif", "é/{i:d}_mask.tif")
    assert [pair.name for pair in collection.pairs] == [unicodedata.normalize("NFC", "é/1.tif")]


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    touch(tmp_path / "images", *(unicodedata.normalize(form, "ü.tif") for form in ("NFC", "NFD")))
    touch(tmp_path / "labels", "ü.tif")
    with pytest.raises(DataError, match="1 names of images stand for two files each, equal but for their Unicode"):
        pairs_of(tmp_path, ".*")


# Sub-folders


def wells(folder: Path) -> None:
    for kind in ("images", "labels"):
        touch(folder / kind, *(f"W{number}/field.tif" for number in range(4)))


def test_sub_folders_are_named_with_a_pattern_that_works(tmp_path: Path) -> None:
    wells(tmp_path)
    with pytest.raises(DataError, match=r"4 sub-folders \(W0, W1, W2, W3\) with 4 images") as caught:
        pairs_of(tmp_path, ".*")
    assert len(caught.value.problems) == 2
    suggested = caught.value.problems[0].fix.split('"')[1]
    assert suggested == "W{r:d+}/field.tif"
    assert len(pairs_of(tmp_path, suggested).pairs) == 4


@pytest.mark.parametrize("pattern", ["W{w}/field.tif", "{w:c+}{n:d}/field.tif", ".*/.*", "W{w:d}/.*.tif"])
def test_patterns_reach_into_folders(tmp_path: Path, pattern: str) -> None:
    wells(tmp_path)
    assert names(pairs_of(tmp_path, pattern)) == [f"W{number}/field.tif" for number in range(4)]


def test_folders_of_images_pair_with_names_of_labels(tmp_path: Path) -> None:
    touch(tmp_path / "images", *(f"plate{p}/W{w}/f.tif" for p in range(2) for w in range(3)))
    touch(tmp_path / "labels", *(f"p{p}_w{w}.tif" for p in range(2) for w in range(3)))
    collection = pairs_of(tmp_path, "plate{p}/W{w}/f.tif", "p{p}_w{w}.tif")
    assert [(pair.name, pair.labels[0].name) for pair in collection.pairs] == [
        (f"plate{p}/W{w}/f.tif", f"p{p}_w{w}.tif") for p in range(2) for w in range(3)
    ]
    assert set(split_groups(collection, "p")) == {0, 1}


def test_a_dot_does_not_leave_its_folder(tmp_path: Path) -> None:
    wells(tmp_path)
    touch(tmp_path / "images", "W0/deeper/x.tif", "top.tif")
    touch(tmp_path / "labels", "top.tif")
    assert names(pairs_of(tmp_path, "W.*/.*")) == [f"W{number}/field.tif" for number in range(4)]
    collection = pairs_of(tmp_path, ".*")
    assert names(collection) == ["top.tif"]
    assert any("4 sub-folders of the images hold images too" in note for note in collection.notes)


def test_links_that_lead_back_end(tmp_path: Path) -> None:
    wells(tmp_path)
    (tmp_path / "images" / "W0" / "again").symlink_to(tmp_path / "images", target_is_directory=True)
    assert len(pairs_of(tmp_path, "{a:c+}{w}/field.tif").pairs) == 4


def test_the_split_tells_equal_names_apart(tmp_path: Path) -> None:
    wells(tmp_path)
    for path in (tmp_path / "labels").glob("*/*.tif"):
        tifffile.imwrite(path, (PIXELS > 100).astype(np.uint8))
    store = open_or_build(pairs_of(tmp_path, "W{w}/field.tif"), mode="binary", cache_dir=tmp_path / "cache")
    regions = split_regions(store.sizes, names=[pair.name for pair in store.pairs], train_fraction=0.5, seed=0)
    write_split(tmp_path / "split.csv", regions, store.collection)
    assert "W2/field.tif" in (tmp_path / "split.csv").read_text()
    assert read_split(tmp_path / "split.csv", store.keys) == regions


def test_predictions_keep_the_folders(tmp_path: Path) -> None:
    wells(tmp_path)
    images = find_images(tmp_path / "images", images_pattern="W{w}/field.tif")
    jobs = plan_outputs(images, tmp_path / "out", suffix="ome.tif", overwrite=False)
    assert [job.output for job in jobs] == [tmp_path / "out" / f"W{number}" / "field.ome.tif" for number in range(4)]


def test_labels_beside_the_folder_of_the_images(tmp_path: Path) -> None:
    """Images in ``D/images``, labels in ``D`` itself."""
    touch(tmp_path / "images", "a.tif", "b.tif")
    touch(tmp_path, "a_mask.tif", "b_mask.tif")
    collection = find_pairs(tmp_path, tmp_path, images_pattern="{i:c}.tif", labels_pattern="{i:c}_mask.tif")
    assert [(pair.images[0].parent.name, pair.labels[0].parent) for pair in collection.pairs] == [
        ("images", tmp_path)
    ] * 2


# Suggestions


def test_a_suggestion_keeps_the_users_variables_and_all_digits(tmp_path: Path) -> None:
    touch(tmp_path / "images", *(f"well{w}_0{i}.tif" for w in range(2) for i in range(10)))
    touch(tmp_path / "labels", "a.tif")
    with pytest.raises(DataError) as caught:
        pairs_of(tmp_path, "w{well:d}-{field:dd}.tif", ".*")
    assert 'try --imagesPattern "well{well:d+}_{field:d+}.tif"' in caught.value.problems[0].fix


@pytest.mark.parametrize(
    ("glob", "meant"), [("*.tif", ".*.tif"), ("img_*.tif", "img_.*.tif"), ("img_0?.tif", "img_0[^/].tif"), ("*", ".*")]
)
def test_a_glob_is_called_so_and_translated(tmp_path: Path, glob: str, meant: str) -> None:
    touch(tmp_path / "images", "img_01.tif", "img_02.tif")
    touch(tmp_path / "labels", "img_01.tif", "img_02.tif")
    with pytest.raises((DataError, Exception), match=r"glob, as shells have them") as caught:
        pairs_of(tmp_path, glob)
    assert f'--imagesPattern "{meant}"' in str(caught.value)
    assert len(pairs_of(tmp_path, meant).pairs) == 2


# Formats that are not read


@pytest.mark.parametrize("suffix", sorted({suffix for one in FOREIGN_FORMATS for suffix in one.suffixes}))
def test_a_folder_of_another_format_is_called_by_its_name(tmp_path: Path, suffix: str) -> None:
    known = next(one for one in FOREIGN_FORMATS if suffix in one.suffixes)
    for name in (f"a{suffix}", f"b{suffix}"):
        (tmp_path / name).write_bytes(b"something")
    with pytest.raises(DataError) as caught:
        find_images(tmp_path, images_pattern="{i:c}.tif")
    assert f"but 2 files are {known.name}" in caught.value.problems[0].problem
    assert caught.value.problems[0].fix == known.way_out
    with pytest.raises(DataError, match=known.name.split()[0]):
        open_image(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", sorted({suffix for one in FOREIGN_FORMATS for suffix in one.suffixes}))
def test_another_format_is_called_by_its_name_though_the_pattern_matches(tmp_path: Path, suffix: str) -> None:
    known = next(one for one in FOREIGN_FORMATS if suffix in one.suffixes)
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "labels").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "labels" / f"{name}.tif", PIXELS)
        (tmp_path / "images" / f"{name}{suffix}").write_bytes(b"something")
    with pytest.raises(DataError) as caught:
        find_pairs(tmp_path, tmp_path, images_pattern=".*", labels_pattern=".*")
    (problem,) = caught.value.problems
    assert problem.problem == f"there are no images that can be read for the images, but 2 files are {known.name}"
    assert problem.fix == known.way_out
    tifffile.imwrite(tmp_path / "images" / "b.tif", PIXELS)
    (tmp_path / "images" / f"b{suffix}").unlink()
    with pytest.raises(DataError) as caught:
        find_pairs(tmp_path, tmp_path, images_pattern=".*", labels_pattern=".*")
    assert caught.value.problems[0].problem == "1 of 2 images have no label"
    assert f"{known.name} are not read: {known.way_out}" in caught.value.problems[0].fix


@pytest.mark.parametrize("known", [one for one in FOREIGN_FORMATS if one.magic], ids=lambda one: one.name)
def test_content_says_what_the_name_hides(tmp_path: Path, known: Any) -> None:
    (tmp_path / "a.tif").write_bytes(b"\1" * known.offset + known.magic + b"\0" * 300)
    with pytest.raises(DataError, match="are not read, but TIFF, OME-Zarr, PNG, JPEG"):
        open_image(tmp_path / "a.tif")


# OME-Zarr plates


def write_image(group: Any, pixels: Any) -> None:
    group.create_array("0", shape=(1, 1, 1, *pixels.shape), dtype=pixels.dtype, chunks=(1, 1, 1, 16, 16))[0, 0, 0] = (
        pixels
    )
    axes = [{"name": name, "type": "space"} for name in "tczyx"]
    multiscales = [{"version": "0.4", "datasets": [{"path": "0"}], "axes": axes}]
    if group.metadata.zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    else:
        group.attrs["multiscales"] = multiscales


def write_plate(path: Path, zarr_format: Any, fields: int = 2) -> None:
    top = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    plate = {"version": "0.4", "columns": [{"name": "1"}], "rows": [{"name": "A"}], "wells": [{"path": "A/1"}]}
    top.attrs.put({"ome": {"plate": plate}} if zarr_format == 3 else {"plate": plate})
    well = top.create_group("A").create_group("1")
    images = {"images": [{"path": str(field)} for field in range(fields)]}
    well.attrs.put({"ome": {"well": images}} if zarr_format == 3 else {"well": images})
    for field in range(fields):
        write_image(well.create_group(str(field)), PIXELS + np.uint8(field))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plate_is_no_image_but_its_fields_are(tmp_path: Path, zarr_format: int) -> None:
    write_plate(tmp_path / "images" / "00.ome.zarr", zarr_format)
    with pytest.raises(
        DataError, match=r"this is an OME-Zarr plate: its fields are images, such as 00\.ome\.zarr/A/1/0"
    ):
        open_image(tmp_path / "images" / "00.ome.zarr")
    with pytest.raises(DataError, match=r"well of an OME-Zarr plate.*such as 1/0"):
        open_image(tmp_path / "images" / "00.ome.zarr" / "A" / "1")
    pattern = "{p:d+}.ome.zarr/{row:c}/{column:d+}/{field:d+}"
    images = find_images(tmp_path / "images", images_pattern=pattern)
    assert [image.name for image in images] == [f"00.ome.zarr/A/1/{field}" for field in range(2)]
    for field, image in enumerate(images):
        with open_image(image.paths[0]) as reader:
            assert (reader.read()[0] == PIXELS + np.uint8(field)).all()
    jobs = plan_outputs(images, tmp_path / "out", suffix="ome.zarr", overwrite=False)
    assert jobs[1].output == tmp_path / "out" / "00" / "A" / "1" / "1.ome.zarr"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_fields_of_a_plate_train_with_their_labels(tmp_path: Path, zarr_format: int) -> None:
    write_plate(tmp_path / "images" / "00.ome.zarr", zarr_format, fields=3)
    for field in range(3):
        (tmp_path / "labels").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "labels" / f"0_A1_{field}.tif", (PIXELS > 100).astype(np.uint8))
    collection = pairs_of(
        tmp_path, "{p:d+}.ome.zarr/{row:c}/{column:d+}/{field:d+}", "{p:d+}_{row:c}{column:d+}_{field:d+}.tif"
    )
    store = open_or_build(collection, mode="binary", cache_dir=tmp_path / "cache")
    assert [(store.image(field)[0] == PIXELS + np.uint8(field)).all() for field in range(3)] == [True] * 3


def test_several_images_of_bioformats2raw_are_named(tmp_path: Path) -> None:
    top = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    top.attrs["bioformats2raw.layout"] = 3
    write_image(top.create_group("0"), PIXELS)
    with pytest.raises(DataError, match=r"an OME-Zarr of several images, such as a\.zarr/0"):
        open_image(tmp_path / "a.zarr")
    (image,) = find_images(tmp_path, images_pattern="a.zarr/{i:d}")
    with open_image(image.paths[0]) as reader:
        assert (reader.read()[0] == PIXELS).all()
