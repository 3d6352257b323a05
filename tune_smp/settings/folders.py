"""Folders that settings name: made absolute when given, looked at before anything heavy is imported."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BeforeValidator

from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.base import Settings
from tune_smp.settings.fields import Flag, flags_of
from tune_smp.texts import shown


def _absolute(value: Any) -> Any:
    # Here and not in pydantic: file names need not be valid UTF-8, and pydantic takes only text that is.
    if not isinstance(value, str | Path) or "\0" in str(value) or str(value) == "":
        raise ValueError("not a path")
    path = Path(value)
    return (path.expanduser() if path.parts[:1] == ("~",) else path).absolute()


AbsolutePath = BeforeValidator(_absolute)
"""For fields of type Path: relative to the working directory, ``~/`` is the home folder. Nothing has to exist."""


def resolve_folder(path: Path, *names: str) -> Path:
    """The first of the sub-folders ``names`` that is there, else ``path`` itself."""
    inner = (path / name for name in names)
    # Not Path.is_dir, which raises where this user may not look.
    return next((folder for folder in inner if os.path.isdir(folder)), path)  # noqa: PTH112


def collection_folders(images_dir: Path, labels_dir: Path) -> tuple[Path, Path]:
    """The folders that hold images and labels (looks at the disk). Applied to its own result, it changes nothing.

    ``images`` inside ``images_dir`` where there is one; ``labels`` inside ``labels_dir`` where there is one, else
    ``images``, as in WIPP, where labels are a collection of images too: unless the images themselves lie there.
    """
    images, labels = resolve_folder(images_dir, "images"), resolve_folder(labels_dir, "labels", "images")
    return images, labels_dir if os.path.realpath(labels) == os.path.realpath(images) else labels


def check_folders(settings: Settings) -> None:
    """See that folders to read are there and that folders to write can be written.

    Raises:
        SettingsError: with every folder that is missing, not a folder, closed to this user, or both read and written.
    """
    read = [(flag, folder) for flag, folder in _folders(settings) if flag.about.folder == "read"]
    written = [(flag, folder) for flag, folder in _folders(settings) if flag.about.folder == "written"]
    problems = [_problem(flag, folder, _why_not_read(folder)) for flag, folder in read]
    problems += [_problem(flag, folder, _why_not_written(folder)) for flag, folder in written]
    problems += [_both(flags, folder) for flags, folder in _read_and_written(read, written)]
    found = [problem for problem in problems if problem is not None]
    if found:
        raise SettingsError(found)


def _folders(settings: Settings) -> Iterator[tuple[Flag, Path]]:
    for flag in flags_of(type(settings)):
        path = getattr(settings, flag.field)
        if flag.about.folder and path is not None:
            yield flag, resolve_folder(path, *flag.about.subfolders)


def _problem(flag: Flag, folder: Path, reason: str) -> Problem | None:
    if not reason:
        return None
    fix = f"pass {flag.option} with a folder that {_PURPOSE[flag.about.folder]}: {flag.description}"
    return Problem(f"{flag.option}: {reason}", where=shown(folder), fix=fix)


_PURPOSE = {"read": "exists and can be read", "written": "can be written"}


def _why_not_read(folder: Path) -> str:
    reason = _why_no_folder(folder)
    if reason or os.access(folder, os.R_OK | os.X_OK):
        return reason
    return "this user may not read the folder"


def _why_not_written(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.parents) if not _is_absent(path))
    reason = _why_no_folder(existing)
    if not reason and not os.access(existing, os.W_OK | os.X_OK):
        reason = "this user may not write there"
    return reason if existing == folder or not reason else f"cannot be created, {shown(existing)}: {reason}"


def _why_no_folder(path: Path) -> str:
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        return "a link to nothing" if path.is_symlink() else "no such folder"
    except OSError as error:
        return str(error.strerror).lower()
    return "" if is_folder else "a file, not a folder"


def _is_absent(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False  # there or not, it cannot be used, and _why_no_folder says why
    return False


Place = tuple[Flag, Path]


def _read_and_written(read: list[Place], written: list[Place]) -> Iterator[tuple[tuple[Flag, Flag], Path]]:
    for source, source_folder in read:
        for target, target_folder in written:
            if os.path.isdir(target_folder) and os.path.isdir(source_folder) and target_folder.samefile(source_folder):  # noqa: PTH112
                yield (source, target), target_folder


def _both(flags: tuple[Flag, Flag], folder: Path) -> Problem:
    source, target = flags
    return Problem(
        f"{target.option} is the folder that {source.option} reads from",
        where=shown(folder),
        fix=f"pass {target.option} with a folder of its own",
    )
