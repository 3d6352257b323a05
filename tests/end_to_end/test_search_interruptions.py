"""What a search must survive: the death of its driver, Ctrl-C, SIGTERM, the end of its time. Rows 15, 16 and 22."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from ruamel.yaml import YAML

from tune_smp.cli import main
from tune_smp.errors import InterruptedRunError
from tune_smp.results.folder import RunFolder, claimed, read_json, write_json
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.training.run import TrainingRun
from tune_smp.workflows.preparation import reopen

Arguments = Callable[..., Sequence[str]]
Command = Callable[..., subprocess.CompletedProcess[str]]

# Slow enough to be met in the middle, and every learning rate is another: it names a trial.
SPACE = """
fixed:
  {maxEpochs: 4, stepsPerEpoch: 3, tileSize: 64, batchSize: 4, device: cpu, modelName: Unet,
   encoderBaseVariantWeights: "Test,tu-test_efficientnet,random"}
search:
  learningRate: {low: 1e-4, high: 3e-2, log: true}
"""
REQUIRED = ("imagesDir", "labelsDir", "imagesPattern", "labelsPattern", "segmentationMode", "outputDir")
SLOWLY = """
def on_epoch(run, moment):
    time.sleep(0.15)
"""


class Sessions:
    """A search that is begun once, and goes on in one program after the other."""

    def __init__(self, folder: Any, begin: Sequence[str], environment: dict[str, str], patches: Any) -> None:
        self.folder = folder
        self._begin = begin
        self._environment = environment
        self._patches = patches

    @contextlib.contextmanager
    def session(self, *extra: str) -> Iterator[subprocess.Popen[str]]:
        """The next program; it and all that it started are gone afterwards."""
        is_begun = (self.folder.path / "settings.json").exists()
        words = ("resume", str(self.folder.path)) if is_begun else self._begin
        program = subprocess.Popen(
            [sys.executable, "-m", "tune_smp", *words, *extra],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield program
        finally:
            if program.poll() is None:
                self.kill(program)

    def kill(self, program: subprocess.Popen[str]) -> None:
        """SIGKILL the driver; what Ray leaves for a while ends here."""
        family = family_of(program)
        program.kill()
        program.communicate()
        _, alive = psutil.wait_procs([child for child in family if "Agent" not in child.name()], timeout=30)
        # One that was just being started had no name of its own yet.
        assert not [child for child in alive if "Agent" not in child.name()], "nothing that trains outlives its driver"
        for child in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def epochs(self) -> int:
        """Epochs in all histories."""
        return sum(len(self.folder.history(number)) for number in range(30))

    def ended(self) -> dict[int, Any]:
        """When the trials that ended did so."""
        if not (self.folder.path / "study.journal").exists():
            return {}
        return {trial.number: trial.datetime_complete for trial in self.folder.study if trial.state.is_finished()}

    def wait_for_epochs(self, more: int, program: subprocess.Popen[str]) -> None:
        """Until so many more epochs have ended."""
        aim = self.epochs() + more
        deadline = time.monotonic() + 150
        while self.epochs() < aim:
            assert time.monotonic() < deadline
            assert program.poll() is None, program.communicate()
            time.sleep(0.02)

    def assert_nothing_shows(self) -> None:
        """Every epoch of every trial is what it is in a run that nothing happened to."""
        settings = SearchSettings.from_json(read_json(self.folder.path / "settings.json")["settings"])
        data = reopen(settings, RunFolder(self.folder.path))
        flags = {flag: settings.given_run_flags()[flag] for flag in REQUIRED}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as the workers
        for trial in self.folder.study:
            point = YAML(typ="safe").load(SPACE)["fixed"] | trial.params
            run = TrainingRun(RunSettings.from_flags({**flags, **point}), data.store, data.regions)
            for epoch in self.folder.history(trial.number):
                report = dict[str, Any](run.run_epoch())
                assert epoch == {name: str(report[name]) for name in epoch}
        torch.set_num_threads(threads)

    def assert_little_was_lost(self) -> None:
        """No trial went back by more than the epoch that was under way."""
        begun: defaultdict[float, list[int]] = defaultdict(list)
        for event in self._patches.events():
            if event["moment"] == "begin":
                begun[event["learning_rate"]].append(event["epoch"])
        for epochs in begun.values():
            assert all(later - earlier in (0, 1) for earlier, later in itertools.pairwise(epochs)), epochs


def family_of(program: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return list(psutil.Process(program.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def end_in_order(program: subprocess.Popen[str], *signals: signal.Signals, pause: float = 0.3) -> tuple[str, str]:
    """Send the signals; what was printed. Nothing is left of the program and all that it started."""
    family = family_of(program)
    for number in signals:
        program.send_signal(number)
        time.sleep(pause)
    family += [child for child in family_of(program) if child not in family]
    printed, errors = program.communicate(timeout=100)
    # Two agents of Ray's own may outlive it by up to a minute, where it was still starting.
    _, alive = psutil.wait_procs(family, timeout=90)
    assert not alive
    assert "SIGTERM received at" not in errors, "what Ray makes of it below Python"
    return printed, errors


@pytest.fixture(autouse=True)
def heeds_ctrl_c() -> Iterator[None]:
    """A shell lets what it runs in the background ignore Ctrl-C, these tests perhaps, and what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


Begin = Callable[..., Sessions]


@pytest.fixture
def begin(
    nuclei: Path,
    arguments_of_search: Arguments,
    environment: dict[str, str],
    patched: Callable[..., Any],
    search_folder: Callable[[Path], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Begin:
    """A search that waits to be begun, with these flags."""

    monkeypatch.setenv("TUNE_SMP_CACHE", environment["TUNE_SMP_CACHE"])

    def prepare(*extra: str, code: str = SLOWLY) -> Sessions:
        patches = patched(code)
        words = arguments_of_search(nuclei, tmp_path / "out", *extra, space=SPACE)
        return Sessions(search_folder(tmp_path / "out"), words, {**environment, **patches.environment}, patches)

    return prepare


def test_15_16_22_a_search_goes_on_after_whatever_ended_it(begin: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    search = begin("--numTrials=3")
    output = str(search.folder.path)

    with search.session() as program:
        search.wait_for_epochs(2, program)
        search.kill(program)

    ended = search.ended()
    with search.session() as program:
        search.wait_for_epochs(1, program)
        assert main(["resume", output]) == 5
        assert f"process {program.pid}" in capsys.readouterr().err
        printed, errors = end_in_order(program, signal.SIGTERM)
    assert program.returncode == 130, errors
    assert printed.count("stopping after the epochs under way") == 1
    assert f"resume with: tune-smp resume {output}" in errors
    assert search.folder.summary["state"] == "interrupted"
    assert (search.folder.path / "model" / "model.safetensors").exists(), "the best so far is exported"

    with search.session("--numTrials=4") as program:
        _, errors = program.communicate(timeout=200)
    assert program.returncode == 0, errors
    search.folder.assert_consistent(4)
    assert ended.items() <= search.ended().items(), "what has ended is not run again"
    search.assert_little_was_lost()
    search.assert_nothing_shows()


@pytest.mark.slow
def test_16_a_time_budget_that_is_over_before_the_first_result(begin: Begin) -> None:
    search = begin("--numTrials=2", "--timeBudget=1")
    with search.session() as program:
        _, errors = end_in_order(program)
    assert program.returncode == 4, errors
    assert "the time was over before any trial had a result" in errors
    assert f"resume with: tune-smp resume {search.folder.path}" in errors
    with search.session("--timeBudget=1h") as program:
        _, errors = program.communicate(timeout=200)
    assert program.returncode == 0, errors
    search.folder.assert_consistent(2)


def test_16_ctrl_c_tells_how_to_go_on_once_there_is_something(tmp_path: Path) -> None:
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
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2])
def test_15_a_driver_that_is_killed_ten_times(seed: int, begin: Begin) -> None:
    chance = random.Random(seed)
    search = begin("--numTrials=15", "--scheduler=none")
    ended: dict[int, Any] = {}
    for _ in range(10):
        with search.session() as program:
            if chance.random() < 0.6:
                search.wait_for_epochs(1, program)
                time.sleep(chance.uniform(0, 1.5))
            else:
                time.sleep(chance.uniform(1, 8))  # where it is slow to start, it is killed before it trains
            search.kill(program)
        assert ended.items() <= search.ended().items()
        ended = search.ended()
    with search.session() as program:
        _, errors = program.communicate(timeout=280)
    assert program.returncode == 0, errors
    search.folder.assert_consistent(15)
    assert ended.items() <= search.ended().items()
    search.assert_little_was_lost()
    search.assert_nothing_shows()


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
def test_16_signals_end_a_search_in_order(signals: Sequence[signal.Signals], pause: float, begin: Begin) -> None:
    search = begin("--numTrials=4")
    with search.session() as program:
        search.wait_for_epochs(2, program)
        _, errors = end_in_order(program, *signals, pause=pause)
    assert program.returncode == 130, errors
    assert f"resume with: tune-smp resume {search.folder.path}" in errors
    assert "Traceback" not in errors
    assert set(search.folder.told_as().values()) <= {"WAITING", "COMPLETE", "PRUNED"}
    with search.session() as program:
        _, errors = program.communicate(timeout=200)
    assert program.returncode == 0, errors
    search.folder.assert_consistent(4)
    search.assert_little_was_lost()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "stop"), [(0.5, signal.SIGINT), (2, signal.SIGTERM), (4, signal.SIGINT), (8, signal.SIGTERM)]
)
def test_16_signals_while_it_starts(seconds: float, stop: signal.Signals, begin: Begin) -> None:
    search = begin("--numTrials=2")
    with search.session() as program:
        deadline = time.monotonic() + 60
        while not (search.folder.path / "settings.json").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(seconds)
        _, errors = end_in_order(program, stop)
    assert program.returncode == 130, errors
    assert f"resume with: tune-smp resume {search.folder.path}" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_15_a_search_that_is_killed_while_it_is_extended_is_not_finished(
    begin: Begin, finished_search: tuple[Path, Any]
) -> None:
    search = begin()
    shutil.copytree(finished_search[0], search.folder.path)
    with search.session("--numTrials=9") as program:
        search.wait_for_epochs(1, program)
        search.kill(program)
    with search.session() as program:
        printed, errors = program.communicate(timeout=200)
    assert program.returncode == 0, errors
    assert "nothing to resume" not in printed
    search.folder.assert_consistent(9)


AT_THE_EXPORT = (
    SLOWLY
    + """
def on_import():
    if "tune_smp" in sys.argv[0] and once("export"):
        os.kill(os.getpid(), signal.SIGTERM)  # by the driver alone, when it proves what it has exported
"""
)


@pytest.mark.slow
def test_16_a_signal_at_the_export(begin: Begin) -> None:
    search = begin("--numTrials=1", code=AT_THE_EXPORT)
    with search.session() as program:
        _, errors = end_in_order(program)
    assert program.returncode == 130, errors
    assert f"resume with: tune-smp resume {search.folder.path}" in errors
    assert search.folder.told_as() == {0: "COMPLETE"}
    with search.session() as program:
        _, errors = program.communicate(timeout=100)
    assert program.returncode == 0, errors
    search.folder.assert_consistent(1)
