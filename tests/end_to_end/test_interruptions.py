"""What a train and a search must survive, the one road of both: the death of the driver and of a worker, Ctrl-C,
SIGTERM, a full disk, the end of the time. Rows 13, 15, 16 and 22."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.sessions import (
    SPACE,
    TRAIN,
    Sessions,
    TimedSessions,
    TrainSessions,
    end_in_order,
    family_of,
)
from tune_smp.cli import main
from tune_smp.errors import InterruptedRunError
from tune_smp.results.folder import claimed, read_json, write_json

Arguments = Callable[..., Sequence[str]]

SLOWLY = """
def on_epoch(run, moment):
    time.sleep(0.15)
"""


@pytest.fixture(autouse=True)
def heeds_ctrl_c() -> Iterator[None]:
    """A shell lets what it runs in the background ignore Ctrl-C, these tests perhaps, and what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def same_cache(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the programs decoded is found in this process too."""
    monkeypatch.setenv("TUNE_SMP_CACHE", environment["TUNE_SMP_CACHE"])


Begin = Callable[..., Sessions]
KINDS = {"search": Sessions, "train": TrainSessions, "timed train": TimedSessions}


@pytest.fixture
def begin(
    nuclei: Path,
    arguments_of_train: Arguments,
    arguments_of_search: Arguments,
    environment: dict[str, str],
    patched: Callable[..., Any],
    search_folder: Callable[[Path], Any],
    tmp_path: Path,
) -> Begin:
    """A search that waits to be begun, or a train, with these flags or the usual ones."""

    def prepare(*extra: str, command: str = "search", code: str = SLOWLY) -> Sessions:
        patches, output = patched(code), tmp_path / "out"
        kind = KINDS[command]
        extra = extra or tuple(kind.begin_with)
        if command != "search":
            words = arguments_of_train(nuclei, output, *extra)
        else:
            words = arguments_of_search(nuclei, output, *extra, space=SPACE)
        return kind(search_folder(output), words, {**environment, **patches.environment}, patches)

    return prepare


def _views_in(output: Path) -> Any:
    return read_json(output / "model" / "preprocessing.json")["views"]


both = pytest.mark.parametrize("command", ["train", "search"])
# A minute each: the regular suite takes one of the two, which go the same road.
searched_first = pytest.mark.parametrize("command", ["search", pytest.param("train", marks=pytest.mark.slow)])
trained_first = pytest.mark.parametrize("command", ["train", pytest.param("search", marks=pytest.mark.slow)])


@searched_first
def test_15_16_22_whatever_ended_it_is_resumed(command: str, begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    task = begin(command=command)
    output = str(task.path)

    with task.session() as program:
        task.wait_for_epochs(2, program)
        task.kill(program)

    ended = task.ended()
    with task.session() as program:
        task.wait_for_epochs(1, program)
        assert main(["resume", output]) == 5
        assert f"process {program.pid}" in capsys.readouterr().err
        printed, errors = end_in_order(program, signal.SIGTERM)
    assert program.returncode == 130, errors
    assert printed.count("stopping after the epochs under way") == 1
    assert f"resume with: tune-smp resume {output}" in errors
    assert task.summary["state"] == "interrupted"
    assert task.summary["epochs"] == task.epochs(), "the epoch under way was paid for"
    assert (task.path / "model" / "model.safetensors").exists(), "the best so far is exported"
    assert _views_in(task.path) is None, "nothing is measured while somebody waits"

    task.finish(*task.more)
    task.assert_complete(trials=4)
    assert _views_in(task.path) is not None
    assert ended.items() <= task.ended().items(), "what has ended is not run again"
    task.assert_little_was_lost()
    task.assert_nothing_shows()


def test_40_a_time_budget_of_a_run_fits_also_after_its_driver_was_killed(begin: Begin) -> None:
    run = begin(command="timed train", code="def on_epoch(run, moment): pass")
    assert isinstance(run, TimedSessions)
    with run.session() as program:
        run.wait_for_epochs(2, program)
        run.kill(program)
    spent = run.seconds()
    assert 0 < spent < 12
    run.finish()
    run.assert_complete()
    assert run.seconds() == pytest.approx(12, abs=2.0)
    assert len(run.rates()) <= 9
    assert run.rates()[-1] < 0.1 * max(run.rates()), "the schedule came to its end"
    assert (run.path / "model" / "model.safetensors").exists()


WHILE_THE_DISK_IS_FULL = """
import resource

def on_epoch(run, moment):
    time.sleep(0.15)
    if moment == "end" and run.epoch == 2 and (FOLDER / "full").exists():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


@trained_first
def test_1_a_disk_that_fills_while_a_checkpoint_is_written(command: str, begin: Begin) -> None:
    """No file of the worker can grow; what the system says then differs from a full disk in its words only."""
    task = begin(command=command, code=WHILE_THE_DISK_IS_FULL)
    full = task.patches.folder / "full"
    full.touch()
    with task.session() as program:
        _, errors = program.communicate(timeout=200)
    assert program.returncode == 5, errors
    assert "free some space" in errors
    assert "Traceback" not in errors
    full.unlink()
    task.finish()
    task.assert_complete()
    task.assert_nothing_shows()


@both
@pytest.mark.slow  # test_search_faults kills workers in the regular suite
def test_13_a_worker_that_is_killed_is_tried_again(command: str, begin: Begin) -> None:
    task = begin(command=command)
    with task.session() as program:
        task.wait_for_epochs(1, program)
        worker = next(child for child in family_of(program) if "SmpTrainable" in " ".join(child.cmdline()))
        worker.kill()
        printed, errors = program.communicate(timeout=200)
    assert program.returncode == 0, errors
    assert "raylet" not in printed + errors, "Ray's own words stay in the log"
    logs = "".join(path.read_text("utf-8") for path in (task.path / "logs").glob("*.log"))
    assert "failed; it resumes from its last checkpoint" in logs
    task.assert_complete()
    task.assert_little_was_lost()
    task.assert_nothing_shows()


def test_16_ctrl_c_tells_how_to_resume_once_there_is_something(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path / "out"):
        raise KeyboardInterrupt
    with pytest.raises(InterruptedRunError, match="resume with: tune-smp resume"), claimed(tmp_path / "out") as folder:
        write_json(folder.settings, {})
        raise KeyboardInterrupt
    with claimed(tmp_path / "out"):
        pass  # and the lock is free


class Ending(io.StringIO):
    """A terminal that ends the program with the first word that it is given."""

    def write(self, text: str) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return len(text)


def test_16_sigterm_is_ctrl_c_for_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Ending())
        assert main(["show", "losses"]) == 130
    assert capsys.readouterr().err == "problem: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_16_a_time_budget_that_is_over_before_the_first_result(begin: Begin) -> None:
    search = begin("--numTrials=2", "--timeBudget=1")
    with search.session() as program:
        _, errors = end_in_order(program)
    assert program.returncode == 4, errors
    assert "the time was over before any trial had a result" in errors
    assert f"resume with: tune-smp resume {search.path}" in errors
    search.finish("--timeBudget=1h")
    search.assert_complete(trials=2)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("command", "seed", "words"),
    [
        ("search", 1, ("--numTrials=15", "--scheduler=none")),
        ("search", 2, ("--numTrials=15", "--scheduler=none")),
        ("train", 3, ("--maxEpochs=40", "--stepsPerEpoch=3", "--patience=40")),
    ],
)
def test_15_a_driver_that_is_killed_ten_times(command: str, seed: int, words: Sequence[str], begin: Begin) -> None:
    chance = random.Random(seed)
    task = begin(*words, command=command)
    ended: dict[int, Any] = {}
    for _ in range(10):
        with task.session() as program:
            if chance.random() < 0.6:
                task.wait_for_epochs(1, program)
                time.sleep(chance.uniform(0, 1.5))
            else:
                time.sleep(chance.uniform(1, 8))  # where it is slow to start, it is killed before it trains
            task.kill(program)
        assert ended.items() <= task.ended().items()
        ended = task.ended()
    task.finish()
    task.assert_complete(trials=15)
    assert ended.items() <= task.ended().items()
    task.assert_little_was_lost()
    task.assert_nothing_shows()


@both
@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "pause"),
    [
        ((signal.SIGINT,), 0.0),
        ((signal.SIGINT, signal.SIGINT), 0.05),
        ((signal.SIGINT, signal.SIGINT), 1.0),
        ((signal.SIGTERM, signal.SIGTERM), 0.3),
        ((signal.SIGTERM, signal.SIGINT, signal.SIGINT), 0.3),
    ],
)
def test_16_signals_end_it_in_order(
    command: str, signals: Sequence[signal.Signals], pause: float, begin: Begin
) -> None:
    task = begin(command=command)
    with task.session() as program:
        task.wait_for_epochs(2, program)
        _, errors = end_in_order(program, *signals, pause=pause)
    assert program.returncode == 130, errors
    assert f"resume with: tune-smp resume {task.path}" in errors
    assert "Traceback" not in errors
    task.assert_waiting()
    task.finish()
    task.assert_complete()
    task.assert_little_was_lost()


@both
@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "stop"), [(0.5, signal.SIGINT), (2, signal.SIGTERM), (4, signal.SIGINT), (8, signal.SIGTERM)]
)
def test_16_signals_while_it_starts(command: str, seconds: float, stop: signal.Signals, begin: Begin) -> None:
    task = begin(command=command)
    with task.session() as program:
        deadline = time.monotonic() + 60
        while not (task.path / "settings.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(seconds)
        _, errors = end_in_order(program, stop)
    assert program.returncode == 130, errors
    assert f"resume with: tune-smp resume {task.path}" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_15_a_search_that_is_killed_while_it_is_extended_is_not_finished(
    begin: Begin, finished_search: tuple[Path, Any]
) -> None:
    search = begin()
    shutil.copytree(finished_search[0], search.path)
    with search.session("--numTrials=9") as program:
        search.wait_for_epochs(1, program)
        search.kill(program)
    assert "nothing to resume" not in search.finish()
    search.assert_complete(trials=9)


AT_THE_EXPORT = (
    SLOWLY
    + """
def on_import():
    if "tune_smp" in sys.argv[0] and once("export"):
        os.kill(os.getpid(), signal.SIGTERM)  # by the driver alone, when it proves what it has exported
"""
)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "words"), [("search", ("--numTrials=1",)), ("train", TRAIN)])
def test_16_a_signal_at_the_export(command: str, words: Sequence[str], begin: Begin) -> None:
    task = begin(*words, command=command, code=AT_THE_EXPORT)
    with task.session() as program:
        _, errors = end_in_order(program)
    assert program.returncode == 130, errors
    assert f"resume with: tune-smp resume {task.path}" in errors
    task.finish()
    task.assert_complete(trials=1)
