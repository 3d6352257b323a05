"""The output folder: who may write in it, and files that appear whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from tune_smp.errors import DataError, FolderBusyError, ResourceError, SettingsError
from tune_smp.results.folder import (
    RunFolder,
    claimed,
    read_csv,
    read_json,
    start_afresh,
    whole_file,
    whole_folder,
    write_csv,
    write_json,
)


def _hold(path: Path, ready: multiprocessing.synchronize.Event) -> None:
    with claimed(path):
        ready.set()
        signal.pause()


def _holder(path: Path) -> multiprocessing.Process:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(path, ready))
    process.start()
    assert ready.wait(60)
    return process  # type: ignore[return-value]  # a spawned process is a Process in all but its declared type


def test_a_second_program_is_refused_and_a_dead_one_is_forgotten(tmp_path: Path) -> None:
    process = _holder(tmp_path / "out")
    try:
        with pytest.raises(FolderBusyError, match=f"process {process.pid}") as refusal, claimed(tmp_path / "out"):
            pass
        assert refusal.value.exit_code == 5
    finally:
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()

    with claimed(tmp_path / "out") as folder:
        assert folder.path == tmp_path / "out"


def test_the_lock_is_free_after_the_block(tmp_path: Path) -> None:
    with claimed(tmp_path):
        pass
    with claimed(tmp_path) as folder:
        assert "process" in folder.owner.read_text()


def test_a_file_in_the_way_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="outputDir cannot be written"), claimed(tmp_path / "file"):
        pass


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"epoch": 1})

    with pytest.raises(KeyError), whole_file(path) as temporary:
        temporary.write_text("half of")
        raise KeyError

    assert read_json(path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model"
    for content in ("first", "second"):
        with whole_folder(path) as temporary:
            (temporary / "config.json").write_text(content)
    with pytest.raises(KeyError), whole_folder(path) as temporary:
        (temporary / "config.json").write_text("third")
        raise KeyError

    assert (path / "config.json").read_text() == "second"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_told_and_the_last_good_file_survives(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    write_csv(path, [{"epoch": 1}])
    with pytest.raises(ResourceError, match="No space left") as error, whole_file(path) as temporary:
        temporary.write_text("half of")
        raise OSError(28, "No space left on device")
    assert error.value.exit_code == 5
    assert read_csv(path) == [{"epoch": "1"}]


def test_what_is_no_json_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    for content in ("", "[1]", '{"half": '):
        path.write_text(content)
        with pytest.raises(DataError, match=r"settings\.json"):
            read_json(path)


@pytest.mark.parametrize(("state", "words"), [("completed", "finished run"), ("interrupted", "tune-smp resume")])
def test_an_earlier_run_is_kept_unless_told_otherwise(tmp_path: Path, state: str, words: str) -> None:
    folder = RunFolder(tmp_path)
    write_json(folder.settings, {})
    write_json(folder.summary, {"state": state})
    with pytest.raises(SettingsError, match=words):
        start_afresh(folder, overwrite=False)
    assert folder.settings.exists()


def test_overwrite_removes_a_run_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.settings, folder.summary, folder.checkpoint, tmp_path / "notes of mine.txt"):
        path.write_text("{}")
    folder.model.mkdir()
    start_afresh(folder, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes of mine.txt"]


def test_an_empty_folder_needs_no_permission(tmp_path: Path) -> None:
    start_afresh(RunFolder(tmp_path), overwrite=False)
    assert RunFolder(tmp_path).state() is None
