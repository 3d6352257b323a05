"""What is begun once, and resumed in one program after the other: a search, or a train."""

from __future__ import annotations

import contextlib
import itertools
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from ruamel.yaml import YAML

from tune_smp.results.folder import RunFolder, read_csv, read_json
from tune_smp.results.history import row_of
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.training.run import TrainingRun
from tune_smp.workflows.preparation import reopen

History = list[dict[str, str]]

# Slow enough to be met in the middle, and every learning rate is another: it names a trial.
SPACE = """
fixed:
  {maxEpochs: 4, stepsPerEpoch: 3, tileSize: 64, batchSize: 4, device: cpu, precision: float32, modelName: Unet,
   encoderBaseVariantWeights: "Test,tu-test_efficientnet,random"}
search:
  learningRate: {low: 1e-4, high: 3e-2, log: true}
"""
REQUIRED = ("imagesDir", "labelsDir", "imagesPattern", "labelsPattern", "segmentationMode", "outputDir")
# Long enough that it can be interrupted three times.
TRAIN = ("--maxEpochs=12", "--stepsPerEpoch=3", "--patience=12")


class Sessions:
    """What is begun once, and resumed in one program after the other: a search."""

    begin_with: Sequence[str] = ("--numTrials=3",)
    more: Sequence[str] = ("--numTrials=4",)  # what the last session may ask for on top

    def __init__(self, folder: Any, begin: Sequence[str], environment: dict[str, str], patches: Any) -> None:
        self.folder = folder
        self.patches = patches
        self._begin = begin
        self._environment = environment

    @property
    def path(self) -> Path:
        """The output folder."""
        path: Path = self.folder.path
        return path

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return read_json(self.path / "summary.json")

    @contextlib.contextmanager
    def session(self, *extra: str) -> Iterator[subprocess.Popen[str]]:
        """The next program; it and all that it started are gone afterwards."""
        is_begun = (self.path / "settings.json").exists()
        words = ("resume", str(self.path)) if is_begun else self._begin
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

    def finish(self, *extra: str) -> str:
        """Run the next program to its end; what it printed."""
        with self.session(*extra) as program:
            printed, errors = program.communicate(timeout=280)
        assert program.returncode == 0, errors
        return printed + errors

    def runs(self) -> Iterator[tuple[RunSettings, History]]:
        """Settings and history of every trial."""
        settings = SearchSettings.from_json(read_json(self.path / "settings.json")["settings"])
        flags = {flag: settings.given_run_flags()[flag] for flag in REQUIRED}
        for trial in self.folder.study:
            point = YAML(typ="safe").load(SPACE)["fixed"] | trial.params
            yield RunSettings.from_flags({**flags, **point}), self.folder.history(trial.number)

    def epochs(self) -> int:
        """Epochs in all histories."""
        return sum(len(self.folder.history(number)) for number in range(30))

    def ended(self) -> dict[int, Any]:
        """When the trials that ended did so."""
        if not (self.path / "study.journal").exists():
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

    def assert_waiting(self) -> None:
        """Whatever has not ended waits to be resumed."""
        assert set(self.folder.told_as().values()) <= {"WAITING", "COMPLETE", "PRUNED"}

    def assert_complete(self, *, trials: int = 3) -> None:
        """Everything has ended, and all files say the same."""
        self.folder.assert_consistent(trials)

    def assert_nothing_shows(self) -> None:
        """Every epoch of every trial is what it is in a run that nothing happened to."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads())
        for settings, history in self.runs():
            data = reopen(settings, RunFolder(self.path))
            run = TrainingRun(settings, data.store, data.regions)
            for epoch in history:
                row = row_of(run.run_epoch())
                assert epoch == {name: str(row[name]) for name in epoch}
        torch.set_num_threads(threads)

    def threads(self) -> int:
        """Of a worker: the last digits of a float follow them."""
        return 1

    def assert_little_was_lost(self) -> None:
        """No trial went back by more than the epoch that was under way."""
        begun: defaultdict[float, list[int]] = defaultdict(list)
        for event in self.patches.events():
            if event["moment"] == "begin":
                begun[event["learning_rate"]].append(event["epoch"])
        for epochs in begun.values():
            assert all(later - earlier in (0, 1) for earlier, later in itertools.pairwise(epochs)), epochs


class TrainSessions(Sessions):
    """The same of a train."""

    begin_with: Sequence[str] = TRAIN
    more = ()

    def _settings(self) -> RunSettings:
        return RunSettings.from_json(read_json(self.path / "settings.json")["settings"])

    def _history(self) -> History:
        rows = read_csv(self.path / "history.csv") if (self.path / "history.csv").exists() else []
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]

    def runs(self) -> Iterator[tuple[RunSettings, History]]:
        yield self._settings(), self._history()

    def epochs(self) -> int:
        return len(self._history())

    def ended(self) -> dict[int, Any]:
        return {}

    def threads(self) -> int:
        return int(read_json(self.path / "settings.json")["used"]["threads"])

    def assert_waiting(self) -> None:
        assert self.summary["state"] == "interrupted"

    def assert_complete(self, *, trials: int = 1) -> None:
        epochs = [int(row["epoch"]) for row in self._history()]
        assert epochs == list(range(1, self._settings().max_epochs + 1)), "neither gaps nor doubles"
        assert (self.summary["state"], self.summary["epochs"]) == ("completed", len(epochs))
        best = self._history()[self.summary["best_epoch"] - 1]
        assert float(best["val_metric"]) == pytest.approx(self.summary["best_metric"], rel=1e-9)


class TimedSessions(TrainSessions):
    """The same of a train that is given a time: what it does in it depends on the machine."""

    begin_with = ("--timeBudget=12s", "--maxEpochs=8")

    def assert_complete(self, *, trials: int = 1) -> None:
        rows = read_csv(self.path / "history.csv")
        assert [int(row["epoch"]) for row in rows] == list(range(1, len(rows) + 1)), "neither gaps nor doubles"
        assert (self.summary["state"], self.summary["epochs"]) == ("completed", len(rows))
        best = max(float(row["val_metric"]) for row in rows)
        assert best == pytest.approx(self.summary["best_metric"], rel=1e-9)
        assert self.summary["evaluated_metric"] == pytest.approx(best, abs=1e-4)

    def seconds(self) -> float:
        """Seconds of all epochs."""
        return sum(float(row["seconds"]) for row in read_csv(self.path / "history.csv"))

    def rates(self) -> list[float]:
        """The learning rate of the last step of each epoch."""
        return [float(row["learning_rate"]) for row in read_csv(self.path / "history.csv")]


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
