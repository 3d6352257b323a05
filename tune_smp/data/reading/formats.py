"""The formats of images, by their names and by their first bytes."""

from __future__ import annotations

from pathlib import Path

from tune_smp.data.reading.foreign_formats import foreign_format
from tune_smp.data.reading.image_reader import ImageFormat, ImageReader, Size
from tune_smp.data.reading.images import TIFF, ZARR
from tune_smp.data.reading.pictures import JPEG, PNG
from tune_smp.errors import DataError, Problem, listing
from tune_smp.texts import shown

FORMATS: dict[str, ImageFormat] = {row.name: row for row in (TIFF, ZARR, PNG, JPEG)}
"""By name: a new format is a reader that declares itself, and a row here."""

_JUNK_NAMES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx"})


def is_junk(path: Path) -> bool:
    """Hidden files, what desktops leave behind (``Thumbs.db``), editors' backups (``a.tif~``, ``~a.tif``), and the
    metadata of a set of OME-TIFF files (``a.companion.ome``), of which nothing is read.
    """
    name = path.name.casefold()
    return name.startswith((".", "~")) or name.endswith(("~", ".companion.ome")) or name in _JUNK_NAMES


def image_suffix(name: str) -> str:
    """The image suffix as it stands in the name (``.ome.tif``), or an empty string."""
    folded = name.lower()
    suffixes = (suffix for row in FORMATS.values() for suffix in row.suffixes)
    # The longest: the stem of "a.ome.tif" is "a".
    known = max((suffix for suffix in suffixes if folded.endswith(suffix)), key=len, default="")
    return name[len(name) - len(known) :]


def image_stem(name: str) -> str:
    """The file name without its image suffix: ``r1.ome.tif`` and ``r1.png`` have the same stem."""
    return name[: len(name) - len(image_suffix(name))]


def open_image(path: Path, *, size: Size | None = None) -> ImageReader:
    """Open an image file (or OME-Zarr folder) for reading.

    Of several images in one TIFF, the only one with this ``size`` (height, width) is read, else the first.

    Raises:
        DataError: it cannot be read; file and reason are named.
    """
    return image_format(path).open(path, size)


def image_format(path: Path) -> ImageFormat:
    """Return the format of the file, where name and first bytes agree.

    Raises:
        DataError: missing, unreadable, empty, not an image, or an image under a wrong suffix.
    """
    suffix = image_suffix(path.name)
    try:
        if path.is_dir():
            return _folder_format(path, suffix)
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise DataError(Problem(f"the file cannot be opened ({error.strerror})", shown(path))) from error
    return _file_format(path, suffix, start)


def _unknown(path: Path) -> Problem:
    known = foreign_format(path)
    if known is None:
        return Problem(f"the file is not an image that can be read, which are {listing(list(FORMATS))}", shown(path))
    problem = f"{known.name} are not read, but {listing(list(FORMATS))}: {known.way_out}"
    return Problem(problem, shown(path), known.way_out)


def is_zarr(path: Path) -> bool:
    """Whether a folder is a group or an array of Zarr, version 2 or 3."""
    return any((path / name).is_file() for name in (".zgroup", ".zarray", ".zattrs", "zarr.json"))


def _folder_format(path: Path, suffix: str) -> ImageFormat:
    if suffix.lower() not in ZARR.suffixes and not is_zarr(path):
        raise DataError(Problem("an image is due, this is a folder", shown(path), "OME-Zarr images end in .ome.zarr"))
    return ZARR


def _file_format(path: Path, suffix: str, start: bytes) -> ImageFormat:
    if not start:
        raise DataError(Problem("the file is empty (0 bytes)", shown(path), "copy the file again"))
    actual = next((row for row in FORMATS.values() if row.magic and start.startswith(row.magic)), None)
    if actual is None:
        raise DataError(_unknown(path))
    if suffix.lower() not in actual.suffixes:
        problem = f"the file holds a {actual.name} image, but its name ends in {path.suffix or 'no suffix'!r}"
        raise DataError(Problem(problem, shown(path), f"rename it to end in {actual.suffixes[0]}"))
    return actual
