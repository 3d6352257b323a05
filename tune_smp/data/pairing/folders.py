"""The folders that a user names, and what lies in them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tune_smp.data.reading.formats import is_junk, is_zarr
from tune_smp.errors import Problem, SettingsError
from tune_smp.texts import shown

MOST_FOLDERS = 100_000  # that are looked into: a pattern of several levels in the wrong place would search for hours


@dataclass(frozen=True)
class Request:
    """A folder to search, as the user gave it, and the one in it that is used.

    ``noun`` is "images" or "labels", as in --labelsPattern.
    """

    noun: str
    folder: Path
    pattern: str
    used: Path

    @property
    def shown(self) -> str:
        """Flag, pattern and folder, for messages."""
        return f'--{self.noun}Pattern "{self.pattern}" in {shown(self.folder)}'


def require_folder(request: Request) -> None:
    """Raise SettingsError where there is no such folder."""
    where = f"--{request.noun}Dir {shown(request.folder)}"
    try:
        is_folder = stat.S_ISDIR(request.folder.stat().st_mode)
    except OSError as error:
        raise SettingsError(Problem(f"the folder of the {request.noun}: {error.strerror}", where)) from error
    if not is_folder:
        raise SettingsError(Problem(f"the {request.noun} must be in a folder, this is a file", where))


def image_names(request: Request, levels: int = 0) -> list[str]:
    """Files and OME-Zarr images so many folders below, by their paths from there, sorted; junk is skipped.

    Raises:
        SettingsError: the folder cannot be read, or holds too many others.
    """
    try:
        folders = [""]
        for _ in range(levels):
            folders = [f"{above}{name}/" for above in folders for name in _entries(request.used / above, is_level=True)]
            if len(folders) > MOST_FOLDERS:
                fix = "name a folder further down, or a narrower pattern"
                raise SettingsError(Problem(f"there are more than {MOST_FOLDERS:,} folders", request.shown, fix))
        return sorted(f"{above}{name}" for above in folders for name in _entries(request.used / above, is_level=False))
    except OSError as error:
        where = f"--{request.noun}Dir {shown(request.folder)}"
        raise SettingsError(Problem(f"the folder cannot be read ({error.strerror})", where)) from error


def sub_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder that are no images and no junk, sorted; none where it cannot be read."""
    try:
        return [name for name in sorted(_entries(folder, is_level=True)) if not name.lower().endswith(".zarr")]
    except OSError:
        return []


def _entries(folder: Path, *, is_level: bool) -> Iterator[str]:
    """Folders to go down into, or what may be images; inside an OME-Zarr plate its wells and fields are both."""
    in_plate = any(part.lower().endswith(".zarr") for part in folder.parts)
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_junk(Path(entry.name)):
                continue
            is_folder = _is_folder(entry)
            if is_level:
                if is_folder:
                    yield entry.name
            elif not in_plate:
                if not is_folder or entry.name.lower().endswith(".zarr"):
                    yield entry.name
            elif is_folder and is_zarr(Path(entry.path)):
                yield entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of symbolic links: kept, so that it is named when it is opened
        return False
