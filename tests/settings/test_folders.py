"""Folders: what is found out before anything heavy is imported."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tune_smp.errors import SettingsError
from tune_smp.settings.folders import check_folders, resolve_folder
from tune_smp.settings.run import RunSettings

NOBODY = 65534


@pytest.fixture
def run(tmp_path: Path) -> RunSettings:
    """Settings whose folders are all right; the output folder is still to be made."""
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    return RunSettings(
        images_dir=tmp_path / "images",
        labels_dir=tmp_path / "labels",
        images_pattern=".*",
        labels_pattern=".*",
        segmentation_mode="binary",
        output_dir=tmp_path / "not" / "yet" / "there",
    )


def told(run: RunSettings) -> str:
    with pytest.raises(SettingsError) as caught:
        check_folders(run)
    return str(caught.value)


def test_good_folders(run: RunSettings) -> None:
    check_folders(run)
    run.output_dir.mkdir(parents=True)
    check_folders(run)
    assert not list(run.output_dir.iterdir()), "looking leaves nothing behind"


def test_all_folders_at_once(run: RunSettings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = told(
        run.with_changes(
            images_dir=tmp_path / "missing",
            labels_dir=tmp_path / "file",
            output_dir=tmp_path / "file",
            cache_dir=tmp_path / "file" / "below",
            pretrained_model=tmp_path / "no model",
        )
    )
    assert "problem: --imagesDir: no such folder" in message
    assert "problem: --labelsDir: a file, not a folder" in message
    assert "problem: --outputDir: a file, not a folder" in message
    assert f"problem: --cacheDir: cannot be created, {tmp_path / 'file'}: a file, not a folder" in message
    assert "problem: --pretrainedModel: no such folder" in message
    assert message.count("problem: ") == 5
    for name in ("missing", "file", "no model"):
        assert f"where:   {tmp_path / name}\n" in message
    assert message.count("fix:     pass --") == 5


def test_links(run: RunSettings, tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "good").symlink_to(tmp_path / "images")
    check_folders(run.with_changes(images_dir=tmp_path / "good"))
    assert "--imagesDir: a link to nothing" in told(run.with_changes(images_dir=tmp_path / "dangling"))
    assert "--outputDir: a link to nothing" in told(run.with_changes(output_dir=tmp_path / "dangling"))
    assert "--imagesDir: too many levels of symbolic links" in told(run.with_changes(images_dir=tmp_path / "loop"))
    assert "too many levels of symbolic links" in told(run.with_changes(output_dir=tmp_path / "loop" / "x"))


def test_names_that_are_too_long(run: RunSettings, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    assert "--imagesDir: file name too long" in told(run.with_changes(images_dir=long))
    assert "--outputDir: file name too long" in told(run.with_changes(output_dir=long))


def test_odd_names_stay_on_one_line(run: RunSettings, tmp_path: Path) -> None:
    message = told(run.with_changes(images_dir=tmp_path / "new\nline; $(x)"))
    assert "new\\nline; $(x)" in message


@pytest.mark.parametrize("flag", ["images_dir", "labels_dir"])
def test_reading_and_writing_one_folder(run: RunSettings, flag: str, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(getattr(run, flag))
    message = told(run.with_changes(output_dir=alias))
    assert f"--outputDir is the folder that --{flag.removesuffix('_dir')}Dir reads from" in message


def test_the_sub_folder_of_that_name_is_used(run: RunSettings, tmp_path: Path) -> None:
    assert resolve_folder(tmp_path, "images") == tmp_path / "images"
    assert resolve_folder(tmp_path, "masks") == tmp_path
    (tmp_path / "images" / "images").touch()
    assert resolve_folder(tmp_path / "images", "images") == tmp_path / "images", "a file of that name is none"
    both = run.with_changes(images_dir=tmp_path, labels_dir=tmp_path)
    assert (both.images_folder, both.labels_folder) == (tmp_path / "images", tmp_path / "labels")
    check_folders(both.with_changes(output_dir=tmp_path))  # beside the two is a folder of its own
    assert "--imagesDir reads from" in told(both.with_changes(output_dir=tmp_path / "images"))


def test_labels_that_wipp_keeps_as_a_collection_of_images(run: RunSettings, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name / "images").mkdir(parents=True)
    collections = run.with_changes(images_dir=tmp_path / "first", labels_dir=tmp_path / "second")
    assert collections.labels_folder == tmp_path / "second" / "images"
    check_folders(collections)
    assert "--labelsDir reads from" in told(collections.with_changes(output_dir=tmp_path / "second" / "images"))
    (tmp_path / "second" / "labels").mkdir()
    assert collections.labels_folder == tmp_path / "second" / "labels", "its own name goes first"


@pytest.mark.parametrize("images", ["first", "first/images", "second/../first"])
def test_images_are_never_their_own_labels(run: RunSettings, tmp_path: Path, images: str) -> None:
    (tmp_path / "first" / "images").mkdir(parents=True)
    (tmp_path / "second").mkdir()
    both = run.with_changes(images_dir=tmp_path / images, labels_dir=tmp_path / "first")
    assert both.images_folder.samefile(tmp_path / "first" / "images")
    assert both.labels_folder == tmp_path / "first"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def told_to_a_plain_user(run: RunSettings) -> str:
    """What `told` gives, but to root, to whom nothing is closed: then a child process that is nobody asks."""
    if os.geteuid() != 0:
        return told(run)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, told(run).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:  # noqa: PTH123 - a descriptor, not a path
        message = answer.read().decode()
    os.waitpid(child, 0)
    return message


def test_closed_folders(run: RunSettings, open_folder: Path) -> None:
    closed, locked = open_folder / "closed", open_folder / "locked"
    closed.mkdir()
    (closed / "inner").mkdir()
    closed.chmod(0o000)
    locked.mkdir()
    locked.chmod(0o555)
    message = told_to_a_plain_user(
        run.with_changes(
            images_dir=closed,
            labels_dir=closed / "inner",
            output_dir=locked / "new",
            cache_dir=locked,
        )
    )
    closed.chmod(0o755)
    assert "--imagesDir: this user may not read the folder" in message
    assert "--labelsDir: permission denied" in message
    assert f"--outputDir: cannot be created, {locked}: this user may not write there" in message
    assert "--cacheDir: this user may not write there" in message
