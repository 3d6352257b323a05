"""The output folder of a run or search: its paths, who may write there, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shlex
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import filelock

from tune_smp import writing
from tune_smp.choices.states import trial_state
from tune_smp.errors import (
    DataError,
    FolderBusyError,
    InterruptedRunError,
    Problem,
    ResourceError,
    SettingsError,
)


class RunFolder:
    """The paths of OUTPUT_DIR, ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model"
        """The exported model of the best epoch."""
        self.checkpoint = path / "checkpoint.pth"
        """The final resumable state."""
        self.history = path / "history.csv"
        """One row per epoch."""
        self.settings = path / "settings.json"
        """Everything that was chosen, and versions."""
        self.split = path / "split.csv"
        """Which image went where."""
        self.summary = path / "summary.json"
        """What came out, for programs."""
        self.logs = path / "logs"
        """What ran, in words."""
        self.trials = path / "trials"
        """What ran, in detail: Ray's own files and the checkpoints of runs under way."""
        self.histories = self.trials / "histories"
        """One history per trial of a search."""
        self.trials_csv = path / "trials.csv"
        """One row per trial of a search, best first."""
        self.study = path / "study.journal"
        """The Optuna study of a search."""
        self.splits = self.trials / "splits"
        """The splits of the final of a search, by round."""
        self.refit = path / "refit"
        """A run on all labelled images, with the files of a run."""
        self.report = path / "report.html"
        """What came out, for people: one file that needs no other."""
        self.lock = path / ".tune-smp.lock"
        """Held by the program that works in this folder; the operating system lets go of it when that program dies."""
        self.owner = path / ".tune-smp.owner"
        """Who holds the lock, in words, for the message of whoever is refused."""

    def trial_history(self, number: int) -> Path:
        """One row per epoch of a trial; the columns are those of ``history``."""
        return self.histories / f"trial_{number:05d}.csv"

    def split_of_round(self, number: int) -> Path:
        """Which image went where in a round of the final."""
        return self.splits / f"round_{number}.csv"

    def trial_log(self, number: int) -> Path:
        """The traceback of a trial that failed."""
        return self.logs / f"trial_{number:05d}.log"

    def own_files(self) -> tuple[Path, ...]:
        """Everything that a run writes, so that ``--overwrite`` removes that and nothing else."""
        return (
            *(self.model, self.checkpoint, self.history, self.settings),
            *(self.split, self.summary, self.logs, self.trials),
            *(self.trials_csv, self.study, self.report, self.refit),
        )

    def state(self) -> str | None:
        """``state`` of summary.json; None when nothing came to an end here."""
        return str(read_json(self.summary).get("state")) if self.summary.exists() else None

    def is_finished(self) -> bool:
        """A run came to its orderly end here."""
        return trial_state(self.state()).is_final

    def is_started(self) -> bool:
        """A run was started here, whether or not it came to an end."""
        return self.settings.exists()

    def clear(self) -> None:
        """Remove what an earlier run wrote; files of others stay."""
        # The summary goes first: without it a half-cleared folder never looks finished.
        for path in (self.summary, *self.own_files()):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def start_afresh(folder: RunFolder, *, overwrite: bool) -> None:
    """Make the folder ready for a new run.

    Raises SettingsError when an earlier run is in it and ``overwrite`` is not asked for.
    """
    if not folder.is_started():
        return
    if overwrite:
        folder.clear()
        return
    if folder.is_finished():
        problem = Problem(
            "outputDir holds a finished run",
            f"--outputDir {folder.path}",
            "choose another folder, or pass --overwrite to replace that run",
        )
    else:
        problem = Problem(
            f"outputDir holds a run that {'failed' if folder.state() == 'failed' else 'was interrupted'}",
            f"--outputDir {folder.path}",
            f"resume it: tune-smp resume {shlex.quote(str(folder.path))}; or pass --overwrite to start again",
        )
    raise SettingsError(problem)


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[RunFolder]:
    """Create the folder and hold it for this program alone.

    The lock is the operating system's: one left by a dead program is free. Raises FolderBusyError when another program
    holds it, SettingsError when the folder cannot be written; InterruptedRunError where Ctrl-C ends the block, and a
    run that can be resumed is in the folder.
    """
    folder = RunFolder(path)
    lock = filelock.FileLock(folder.lock, mode=0o644)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        write_text(folder.owner, f"process {os.getpid()} on {socket.gethostname()}\n")
    except filelock.Timeout as error:
        raise FolderBusyError(
            Problem(
                f"another tune-smp is at work in this folder ({_owner(folder)})",
                f"--outputDir {path}",
                "wait for it, or choose another folder",
            )
        ) from error
    except OSError as error:
        lock.release()
        raise SettingsError(
            Problem(
                f"outputDir cannot be written: {error.strerror}",
                f"--outputDir {path}",
                "choose a folder you may write to",
            )
        ) from error
    try:
        yield folder
    except KeyboardInterrupt as error:
        if folder.is_started() and not folder.is_finished():
            go_on = f"resume with: tune-smp resume {shlex.quote(str(folder.path))}"
            raise InterruptedRunError(Problem("interrupted", str(folder.path), go_on)) from error
        raise
    finally:
        folder.owner.unlink(missing_ok=True)
        lock.release()


def _owner(folder: RunFolder) -> str:
    try:
        return folder.owner.read_text(encoding="utf-8").strip()
    except OSError:
        return "its process is unknown"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place when the block ends well.

    Raises ResourceError when the disk is full; what was at ``path`` before is then still there.
    """
    try:
        with writing.whole_file(path) as temporary:
            yield temporary
    except OSError as error:
        raise ResourceError(
            Problem(f"cannot write the file: {error.strerror}", str(path), "free some space, then: tune-smp resume")
        ) from error


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    retired = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _open_to_others(temporary)
        # A folder cannot be replaced in one call: the old one steps aside first.
        if path.exists():
            path.rename(retired)
        temporary.rename(path)
    except OSError as error:
        raise ResourceError(
            Problem(f"cannot write the folder: {error.strerror}", str(path), "free some space, then: tune-smp resume")
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def _open_to_others(folder: Path) -> None:
    """Files as open as the user's umask has them: some libraries write theirs for this user alone."""
    probe = folder / f".{os.getpid()}.mode"
    probe.touch()
    mode = probe.stat().st_mode
    probe.unlink()
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises DataError when the file is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(Problem(f"not a readable JSON file: {error}", str(path))) from error
    if not isinstance(content, dict):
        raise DataError(Problem("the file does not hold a JSON object", str(path)))
    return content


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] | None = None) -> None:
    """Write rows, whole or not at all; without ``columns``, with those of the first row, which then must exist."""
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns or list(rows[0]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none when there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
