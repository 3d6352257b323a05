"""The folders that a user names, and what lies in them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tune_smp.data.formats import is_junk, shown
from tune_smp.errors import Problem, SettingsError


@dataclass(frozen=True)
class Request:
    """A folder to search, as the user gave it; ``noun`` is "images" or "labels", as in --labelsPattern."""

    noun: str
    folder: Path
    pattern: str
    sub_folders: tuple[str, ...]

    @property
    def shown(self) -> str:
        """Flag, pattern and folder, for messages."""
        return f'--{self.noun}Pattern "{self.pattern}" in {shown(self.folder)}'


def used_folder(request: Request) -> Path:
    """The first of the sub-folders that there is, else the folder itself.

    Raises:
        SettingsError: there is no such folder.
    """
    where = f"--{request.noun}Dir {shown(request.folder)}"
    try:
        is_folder = stat.S_ISDIR(request.folder.stat().st_mode)
    except OSError as error:
        raise SettingsError(Problem(f"the folder of the {request.noun}: {error.strerror}", where)) from error
    if not is_folder:
        raise SettingsError(Problem(f"the {request.noun} must be in a folder, this is a file", where))
    inside = (request.folder / name for name in request.sub_folders)
    return next((folder for folder in inside if folder.is_dir()), request.folder)


def image_names(folder: Path, request: Request) -> list[str]:
    """Files and OME-Zarr folders, sorted; hidden files and other junk are skipped.

    Raises:
        SettingsError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not is_junk(Path(entry.name)) and _may_be_image(entry)]
    except OSError as error:
        where = f"--{request.noun}Dir {shown(folder)}"
        raise SettingsError(Problem(f"the folder cannot be read ({error.strerror})", where)) from error
    return sorted(names)


def _may_be_image(entry: os.DirEntry[str]) -> bool:
    try:
        return not entry.is_dir() or entry.name.lower().endswith(".zarr")
    except OSError:  # a loop of symbolic links: kept, so that it is named when it is opened
        return True
