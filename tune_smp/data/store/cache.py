"""The cache of image stores: the folder, the name of a store in it, who may build it, and when it goes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tune_smp import __version__
from tune_smp.data.store.build import MORE_SPACE, StoreRequest
from tune_smp.data.store.format import FORMAT_VERSION, INDEX, collection_to_json
from tune_smp.data.temporary import temporary_folder
from tune_smp.errors import Problem, ResourceError

logger = logging.getLogger(__name__)

UNUSED_SECONDS = 30 * 24 * 3600  # a store that nothing opened for so long goes when another one is built
_ENDS_BYTES = 2**16  # read from both ends of a file to distinguish it from another one of the same name, size and time
_BUILDING = ".building-"


def cache_folder(cache_dir: Path | None) -> Path:
    """The folder for image stores, created if need be.

    ``cache_dir``, else $TUNE_SMP_CACHE, else $XDG_CACHE_HOME/tune-smp, else ~/.cache/tune-smp; where those last two
    cannot be written (no home in a container), the temporary folder.

    Raises:
        ResourceError: the folder that was asked for cannot be written, or there is none at all.
    """
    asked = cache_dir or os.environ.get("TUNE_SMP_CACHE")
    if asked:
        return _writable(Path(asked).absolute(), "--cacheDir" if cache_dir else "TUNE_SMP_CACHE")
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return _writable(Path(base).absolute() / "tune-smp", "XDG_CACHE_HOME")
    except (ResourceError, RuntimeError):  # RuntimeError: this user has no home
        return _temporary_folder()


def store_key(request: StoreRequest) -> str:
    """The name of the store: a hash of all that it depends on.

    Files count with path, size, time of change and the bytes at both ends; 20,000 files take about two seconds. One
    that cannot be read counts as that: building the store names it, with everything else that is wrong.
    """
    pairs = request.collection.pairs
    paths = sorted({path for pair in pairs for path in (*pair.images, *pair.labels)})
    with ThreadPoolExecutor() as threads:
        fingerprints = list(threads.map(_fingerprint, paths))
    # Stores are private to their user, as the images may be: in a shared cache each user has stores of their own.
    settings = (
        FORMAT_VERSION,
        __version__,
        os.getuid(),
        request.mode,
        request.ignore_value,
        request.skip_corrupt,
        request.label_colors,
    )
    described = json.dumps([settings, collection_to_json(request.collection), fingerprints], default=str)
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()


@contextmanager
def building_right(path: Path) -> Iterator[None]:
    """Wait until no other process builds the store ``path``; the right of a dead process ends with it."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process prepares these images, waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def fill(path: Path, build: Callable[[Path], None]) -> None:
    """Let ``build`` fill a folder that then becomes ``path``, whole or not at all. The caller has the building right.

    Raises:
        ResourceError: the disk is full or cannot be written.
    """
    sweep(path.parent, keep=path.name)
    for remains in path.parent.glob(f"{path.name}{_BUILDING}*"):  # of a process that died
        shutil.rmtree(remains, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{path.name}{_BUILDING}", dir=path.parent))
    try:
        build(folder)
        shutil.rmtree(path, ignore_errors=True)  # a damaged one
        folder.replace(path)
    except OSError as error:
        problem = f"the decoded images cannot be written: {error.strerror}"
        raise ResourceError(Problem(problem, str(path.parent), MORE_SPACE)) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def touch(path: Path) -> None:
    """Note that a store is in use; in a cache that cannot be written nothing is swept either."""
    with suppress(OSError):
        os.utime(path / INDEX)


def sweep(root: Path, *, keep: str) -> None:
    """Remove stores that nothing opened for UNUSED_SECONDS, and what dead processes left of theirs."""
    for folder in [folder for folder in root.iterdir() if folder.is_dir()]:
        key, is_unfinished, _ = folder.name.partition(_BUILDING)
        if key != keep and (is_unfinished or _unused_seconds(folder) > UNUSED_SECONDS):
            with suppress(Timeout, OSError), FileLock(root / f"{key}.lock", timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def _unused_seconds(store: Path) -> float:
    try:
        return time.time() - (store / INDEX).stat().st_mtime
    except OSError:
        return 0.0  # no store of ours


def _writable(folder: Path, named: str) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        problem = f"the folder for decoded images cannot be written: {error.strerror}"
        raise ResourceError(Problem(problem, f"{named} {folder}", "choose another folder with --cacheDir")) from error


def _temporary_folder() -> Path:
    """Of this user alone: another user could have made a folder of that name."""
    folder = temporary_folder() / f"tune-smp-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="tune-smp-"))
    return _writable(folder, "the temporary folder")


def _fingerprint(path: Path) -> list[str | int] | None:
    """None where the file cannot be read."""
    try:
        if path.is_dir():
            return _folder_fingerprint(path)
        status = path.stat()
        digest = hashlib.blake2b(digest_size=16)
        with path.open("rb") as file:
            digest.update(file.read(_ENDS_BYTES))
            if status.st_size > 2 * _ENDS_BYTES:
                file.seek(-_ENDS_BYTES, os.SEEK_END)
            digest.update(file.read(_ENDS_BYTES))
        return [status.st_size, status.st_mtime_ns, digest.hexdigest()]
    except OSError:
        return None


def _folder_fingerprint(path: Path) -> list[str | int]:
    """Of an OME-Zarr image: names, sizes and times of its chunks."""
    digest = hashlib.blake2b(digest_size=16)
    for folder, _, names in sorted(os.walk(path)):
        for name in sorted(names):
            status = (Path(folder) / name).stat()
            digest.update(f"{folder}\0{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return [digest.hexdigest()]
