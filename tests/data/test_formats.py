"""What is no image is named before any library sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_smp.data.reading.formats import is_junk, open_image
from tune_smp.errors import DataError


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tif", b"", "empty"),
        ("a.tif", b"hello, I am a text", "not an image"),
        ("a.png", b"<html></html>", "not an image"),
        ("a.tif", b"II*\0", "cannot be decoded"),
        ("a.tif", b"II*\0\x08\0\0\0\xff\xff", "cannot be decoded"),
        ("a.png", b"\x89PNG\r\n\x1a\n", "cannot be decoded"),
        ("a.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 40, "cannot be decoded"),
        ("a.png", b"II*\0\x08\0\0\0", "holds a TIFF image, but its name ends in '.png'"),
        ("a.tif", b"\x89PNG\r\n\x1a\n", "rename it to end in .png"),
        ("a.dat", b"\xff\xd8\xff", "rename it to end in .jpg"),
    ],
)
def test_no_images(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_image(tmp_path / name)
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "loop.tif").symlink_to("loop.tif")
    for name, message in (("folder.tif", "a folder"), ("loop.tif", "symbolic links"), ("no.tif", "No such file")):
        with pytest.raises(DataError, match=message):
            open_image(tmp_path / name)


def test_junk() -> None:
    assert all(
        is_junk(Path(name)) for name in (".DS_Store", "._a.tif", "Thumbs.db", "a.tif~", "~$a.tif", "a.companion.ome")
    )
    assert not any(is_junk(Path(name)) for name in ("a.tif", "-a.tif", "thumb.png", "a~b.tif"))


def test_messages_hold_no_control_characters(tmp_path: Path) -> None:
    (tmp_path / "line\nbreak\x1b[31m.tif").touch()
    with pytest.raises(DataError) as caught:
        open_image(tmp_path / "line\nbreak\x1b[31m.tif")
    (problem,) = caught.value.problems
    assert problem.where.endswith("line\\nbreak\\x1b[31m.tif'")
