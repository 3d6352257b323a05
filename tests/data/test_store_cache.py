from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from tests.data.made import WriteCollection, binary_label, ordinary, random_image
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.pairing.pairs import Collection
from tune_smp.data.store import cache as store_cache
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.errors import DataError, ResourceError


def leftovers(cache: Path) -> list[str]:
    return [path.name for path in cache.glob("*.building-*")]


# When a store is used again


def test_a_store_is_used_again_until_anything_changes(write_collection: WriteCollection, cache: Path) -> None:
    collection = ordinary(write_collection)
    first = open_or_build(collection, mode="binary", cache_dir=cache)
    built = (first.path / "images.bin").stat()
    assert open_or_build(collection, mode="binary", cache_dir=cache).path == first.path
    assert (first.path / "images.bin").stat().st_ino == built.st_ino
    others = [
        open_or_build(collection, mode="multiclass", cache_dir=cache),
        open_or_build(collection, mode="binary", ignore_value=1, cache_dir=cache),
        open_or_build(Collection(collection.pairs[1:]), mode="binary", cache_dir=cache),
    ]
    changed = collection.pairs[0].images[0]
    before = changed.stat()
    changed.write_bytes(changed.read_bytes()[:-1] + b"\7")  # same name, same size …
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))  # … and same time
    others.append(open_or_build(collection, mode="binary", cache_dir=cache))
    assert len({store.path for store in (first, *others)}) == 5
    assert others[-1].image(0)[0, -1, -1] == 7


def test_a_damaged_store_is_built_anew(write_collection: WriteCollection, cache: Path) -> None:
    collection = ordinary(write_collection)
    path = open_or_build(collection, mode="binary", cache_dir=cache).path
    for damage in (
        lambda: os.truncate(path / "images.bin", 100),
        (path / "statistics.npy").unlink,
        lambda: (path / "index.json").write_text("{}"),
        lambda: (path / "collection.json").write_text("{}"),
        lambda: os.truncate(path / "masks.bin", 100),
        lambda: (path / "totals.npy").write_bytes(b"no array"),
    ):
        damage()
        with pytest.raises(DataError, match="missing or damaged"):
            ImageStore.open(path)
        store = open_or_build(collection, mode="binary", cache_dir=cache)
        np.testing.assert_array_equal(store.image(2)[0], random_image(seed=2))


def test_a_collection_of_other_bytes_is_noticed_when_it_is_read_and_built_anew(
    write_collection: WriteCollection, cache: Path
) -> None:
    collection = ordinary(write_collection)
    path = open_or_build(collection, mode="binary", cache_dir=cache).path
    file = path / "collection.json"
    file.write_bytes(b" " * file.stat().st_size)

    with pytest.raises(DataError, match=r"missing or damaged[\s\S]*run the same command again"):
        _ = open_or_build(collection, mode="binary", cache_dir=cache).pairs

    assert open_or_build(collection, mode="binary", cache_dir=cache).pairs == collection.pairs


def test_a_store_travels_as_its_path_and_cannot_be_written(write_collection: WriteCollection, cache: Path) -> None:
    store = open_or_build(ordinary(write_collection), mode="binary", cache_dir=cache)
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)  # noqa: S301  our own bytes
    np.testing.assert_array_equal(again.image(1), store.image(1))
    assert (again.pairs, again.notes, again.class_map) == (store.pairs, store.notes, store.class_map)
    for array in (store.image(0), store.mask(0)):
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1


BUILD = """
import logging, sys
from pathlib import Path
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.store.image_store import open_or_build
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
folder = Path(sys.argv[1])
collection = find_pairs(folder, folder, images_pattern="{n:c+}.tif", labels_pattern="{n:c+}.tif")
print(open_or_build(collection, mode="binary", cache_dir=folder / "cache").path)
"""


def builder(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILD, str(folder)], stdout=subprocess.PIPE, text=True)


def test_of_two_processes_one_builds_and_the_other_waits(
    write_collection: WriteCollection, tmp_path: Path, cache: Path
) -> None:
    names = [f"{letter}{other}" for letter in "abcdefgh" for other in "abcd"]
    write_collection({name: random_image(300) for name in names}, {name: binary_label(300) for name in names})
    answers = [process.communicate()[0] for process in [builder(tmp_path) for _ in range(3)]]
    assert len({answer.splitlines()[-1] for answer in answers}) == 1
    assert sum("decoding 32 images" in answer for answer in answers) == 1
    assert leftovers(cache) == []


def test_what_a_killed_process_left_is_cleaned_up_and_built_again(
    write_collection: WriteCollection, tmp_path: Path, cache: Path
) -> None:
    names = [f"{letter}{other}" for letter in "abcdefgh" for other in "abcde"]
    write_collection({name: random_image(1000) for name in names}, {name: binary_label(1000) for name in names})
    process = builder(tmp_path)
    while not list(cache.glob("*.building-*/masks.bin")):
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(leftovers(cache)) == 1
    assert not list(cache.glob("*/index.json"))
    collection = find_pairs(tmp_path, tmp_path, images_pattern="{n:c+}.tif", labels_pattern="{n:c+}.tif")
    store = open_or_build(collection, mode="binary", cache_dir=cache)
    np.testing.assert_array_equal(store.image(39)[0], random_image(1000))
    assert leftovers(cache) == []


# Where stores are


def test_unused_stores_go_when_another_is_built(write_collection: WriteCollection, cache: Path) -> None:
    collection = ordinary(write_collection)
    unused, used = (open_or_build(collection, mode=mode, cache_dir=cache).path for mode in ("binary", "multiclass"))
    dead, busy = cache / "dead.building-x", cache / "busy.building-x"
    for folder in (dead, busy):
        folder.mkdir()
    long_ago = time.time() - store_cache.UNUSED_SECONDS - 60
    for path in (unused, used):
        os.utime(path / "index.json", (long_ago, long_ago))
    ImageStore.open(used)
    with FileLock(cache / "busy.lock"):
        open_or_build(Collection(collection.pairs[:1]), mode="binary", cache_dir=cache)
    assert [path.exists() for path in (unused, used, dead, busy)] == [False, True, False, True]


def test_the_cache_is_where_the_user_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)  # forget what TMPDIR was
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TUNE_SMP_CACHE", raising=False)
    assert store_cache.cache_folder(None) == tmp_path / "home" / ".cache" / "tune-smp"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store_cache.cache_folder(None) == tmp_path / "xdg" / "tune-smp"
    monkeypatch.setenv("TUNE_SMP_CACHE", str(tmp_path / "own"))
    assert store_cache.cache_folder(None) == tmp_path / "own"
    assert store_cache.cache_folder(tmp_path / "flag") == tmp_path / "flag"


def test_without_a_home_that_can_be_written_the_cache_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a file"
    blocked.touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked / "cache"))
    monkeypatch.delenv("TUNE_SMP_CACHE", raising=False)
    folder = store_cache.cache_folder(None)
    assert folder == tmp_path / f"tune-smp-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    folder.symlink_to(tmp_path)  # someone else's trap
    assert store_cache.cache_folder(None).name.startswith("tune-smp-")
    assert store_cache.cache_folder(None) != folder


@pytest.mark.parametrize("named", ["--cacheDir", "TUNE_SMP_CACHE"])
def test_a_cache_that_was_asked_for_and_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    blocked = tmp_path / "a file"
    blocked.touch()
    monkeypatch.setenv("TUNE_SMP_CACHE", str(blocked / "cache"))
    with pytest.raises(ResourceError, match=f"{named} .*a file"):
        store_cache.cache_folder(blocked / "cache" if named == "--cacheDir" else None)


def test_too_small_a_disk_is_told_before_anything_is_decoded(
    write_collection: WriteCollection, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(ResourceError, match=r"need 0\.02 GB, 0\.00 GB are free[\s\S]*--cacheDir"):
        open_or_build(ordinary(write_collection), mode="binary", cache_dir=cache)
    assert leftovers(cache) == []


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk does, but only to files that grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_on_the_way_leaves_nothing_behind(write_collection: WriteCollection, cache: Path) -> None:
    collection = write_collection({"a": random_image(1200)}, {"a": binary_label(1200)})
    with files_of_at_most(2**20), pytest.raises(ResourceError, match=os.strerror(errno.EFBIG)):
        open_or_build(collection, mode="binary", cache_dir=cache)
    assert leftovers(cache) == []
    assert open_or_build(collection, mode="binary", cache_dir=cache).sizes == ((1200, 1200),)
