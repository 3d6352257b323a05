"""What lies in a folder: junk is skipped, odd names work, bad folders are named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tune_smp.data.pairing.collection import find_images, find_pairs
from tune_smp.errors import DataError, SettingsError

ODD_NAMES = (
    "with space.tif",
    "quote\"and'quote.tif",
    "semi;colon.tif",
    "$(touch pwned).tif",
    "-rf.tif",
    "line\nbreak.tif",
    "<script>alert(1)</script>.tif".replace("/", ""),
    "µm·été·细胞.tif",
    "%s{}.tif",
    "a" * 251 + ".tif",
)


def found(folder: Path, names: Sequence[str]) -> list[str]:
    for name in names:
        (folder / name).touch()
    return [group.name for group in find_images(folder, images_pattern=".*")]


def test_junk_is_skipped(tmp_path: Path) -> None:
    assert found(tmp_path, ["a.tif", ".DS_Store", "._a.tif", "Thumbs.db", "a.tif~", "~a.tif", "desktop.ini"]) == [
        "a.tif"
    ]


def test_folders_are_no_images_unless_they_are_zarr(tmp_path: Path) -> None:
    (tmp_path / "1.ome.zarr").mkdir()
    (tmp_path / "thumbnails").mkdir()
    assert found(tmp_path, ["b.tif"]) == ["1.ome.zarr", "b.tif"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_pair_with_themselves(tmp_path: Path, name: str) -> None:
    for side in ("images", "labels"):
        (tmp_path / side).mkdir()
        for each in (name, "b.tif"):
            (tmp_path / side / each).touch()
    collection = find_pairs(tmp_path, tmp_path, images_pattern=".*", labels_pattern=".*")
    assert {pair.images[0].name for pair in collection.pairs} == {name, "b.tif"}
    assert all(pair.images[0].name == pair.labels[0].name for pair in collection.pairs)
    assert all(pair.images[0].exists() for pair in collection.pairs)
    assert not Path("pwned").exists()


def test_odd_names_are_printable_in_messages(tmp_path: Path) -> None:
    name = "line\nbreak\x1b[31m.tif"
    (tmp_path / name).touch()
    with pytest.raises(DataError) as caught:
        find_images(tmp_path, images_pattern="a.tif")
    assert name not in str(caught.value)
    assert "'line\\nbreak\\x1b[31m.tif'" in str(caught.value)


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.tif")
    assert found(tmp_path, [name]) == [name]


def test_loops_of_links_are_kept_to_be_named_when_read(tmp_path: Path) -> None:
    (tmp_path / "loop.tif").symlink_to("loop.tif")
    assert found(tmp_path, ["a.tif"]) == ["a.tif", "loop.tif"]


def test_all_bad_folders_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SettingsError) as caught:
        find_pairs(tmp_path / "file", tmp_path / "loop", images_pattern=".*", labels_pattern=".*")
    image, label = map(str, caught.value.problems)
    assert "this is a file" in image
    assert f"--imagesDir {tmp_path / 'file'}" in image
    assert f"--labelsDir {tmp_path / 'loop'}" in label
    with pytest.raises(SettingsError, match="No such file"):
        find_images(tmp_path / "missing", images_pattern=".*")


def test_empty_folders_are_named_both_at_once(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / ".DS_Store").touch()
    with pytest.raises(DataError) as caught:
        find_pairs(tmp_path, tmp_path, images_pattern=".*", labels_pattern=".*")
    image, label = map(str, caught.value.problems)
    assert "no files for the images" in image
    assert "no files for the labels" in label
