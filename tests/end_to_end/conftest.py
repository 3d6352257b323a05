"""The program as a user runs it: a command line, real files, a real Ray, a tiny encoder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution
from optuna.storages.journal import JournalFileBackend

from tune_smp.cli import main
from tune_smp.data.synthetic import write_nuclei
from tune_smp.results.folder import read_csv, read_json

Command = Callable[..., subprocess.CompletedProcess[str]]
Answer = Callable[..., tuple[int, str]]
TINY_NET = ("--modelName", "Unet", "--encoderBaseVariantWeights", "Test,tu-test_efficientnet,random")
# Numbers are compared to the sixth digit, on CPUs that are faster in bfloat16 too.
EXACT = ("--device", "cpu", "--precision", "float32")
TINY_RUN = (*TINY_NET, "--tileSize", "64", "--batchSize", "4", "--dashboard", "false", *EXACT)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user with a cache of their own and no network worth trying."""
    cache = tmp_path_factory.mktemp("cache")
    return {**os.environ, "TUNE_SMP_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def tune_smp(environment: dict[str, str]) -> Command:
    """Run ``tune-smp`` with these arguments; the exit code is the caller's to look at."""

    def run(*arguments: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tune_smp", *map(str, arguments)],
            env={**environment, **extra},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def nuclei(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small synthetic images with labels, of two sizes."""
    folder = tmp_path_factory.mktemp("nuclei")
    write_nuclei(folder, count=10, size=[(96, 96), (64, 130)], seed=3)
    return folder


def train_arguments(data: Path, output: Path, *extra: str) -> Sequence[str]:
    """``train`` on a folder with images/ and labels/ of the synthetic names."""
    pattern = "nuclei_{i:d+}.tif"
    return (
        "train",
        *("--imagesDir", str(data), "--labelsDir", str(data), "--imagesPattern", pattern, "--labelsPattern", pattern),
        *("--segmentationMode", "binary", "--outputDir", str(output), *TINY_RUN, *extra),
    )


@pytest.fixture(scope="session")
def arguments_of_train() -> Callable[..., Sequence[str]]:
    """See ``train_arguments``."""
    return train_arguments


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tune_smp: Command, nuclei: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The output folder of a run of four epochs that nothing happened to, and what it printed."""
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    done = tune_smp(*train_arguments(nuclei, output, "--maxEpochs", "4", "--stepsPerEpoch", "12", "--seed", "5"))
    assert done.returncode == 0, done.stderr
    return output, done


TINY_SPACE = """
description: tiny nets for tests
fixed:
  {maxEpochs: 3, stepsPerEpoch: 4, tileSize: 64, batchSize: 4, device: cpu, precision: float32, modelName: Unet,
   encoderBaseVariantWeights: "Test,tu-test_efficientnet,random"}
search:
  optimizerName: [Adam, SGD]
  learningRate: {low: 1e-4, high: 3e-2, log: true}
  lossName: [JaccardLoss, DiceLoss, FocalLoss]
"""


def search_arguments(data: Path, output: Path, *extra: str, space: str = TINY_SPACE) -> Sequence[str]:
    """``search`` on a folder with images/ and labels/, in the space of this text: a core per trial, two at once."""
    file = output.with_name(f"{output.name}.yaml")
    file.write_text(space, "utf-8")
    return (
        "search",
        *(f"--imagesDir={data}", f"--labelsDir={data}", "--imagesPattern=.*", "--labelsPattern=.*"),
        *("--segmentationMode=binary", f"--outputDir={output}", f"--searchSpace={file}", "--dashboard=false"),
        *("--cpusPerTrial=1", *([] if "--maxConcurrentTrials=1" in extra else ["--maxConcurrentTrials=2"]), *extra),
    )


@pytest.fixture(scope="session")
def arguments_of_search() -> Callable[..., Sequence[str]]:
    """See ``search_arguments``."""
    return search_arguments


@pytest.fixture(scope="session")
def finished_search(
    tmp_path_factory: pytest.TempPathFactory, tune_smp: Command, nuclei: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The output folder of a search of six trials that nothing happened to, and what it printed."""
    output = tmp_path_factory.mktemp("finished") / "out"
    done = tune_smp(*search_arguments(nuclei, output, "--numTrials=6"))
    assert done.returncode == 0, done.stdout + done.stderr
    return output, done


@dataclass(frozen=True)
class SearchFolder:
    """What a search left, for tests: everything is read from the files anew."""

    path: Path

    @property
    def rows(self) -> dict[int, dict[str, str]]:
        """trials.csv by number."""
        return {int(row["trial"]): row for row in read_csv(self.path / "trials.csv")}

    @property
    def study(self) -> list[optuna.trial.FrozenTrial]:
        """The study's trials, as any program with optuna alone can read them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(self.path / "study.journal")))
        (name,) = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=name, storage=storage).trials

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return read_json(self.path / "summary.json")

    def history(self, number: int) -> list[dict[str, str]]:
        """The epochs of a trial, without what the clock says."""
        rows = read_csv(self.path / "trials" / "histories" / f"trial_{number:05d}.csv")
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]

    def told_as(self) -> dict[int, str]:
        """The states that Optuna was told, by number; none of a trial that has not ended."""
        return {trial.number: trial.state.name for trial in self.study}

    def assert_consistent(self, trials: int) -> None:
        """So many trials, all of them ended; table, study, summary and histories say the same of each."""
        rows, study, summary = self.rows, self.study, self.summary
        assert sorted(rows) == [trial.number for trial in study] == list(range(trials))
        assert summary["trials"] == dict(Counter(row["state"] for row in rows.values()))
        assert summary["epochs"] == sum(int(row["epochs"]) for row in rows.values())
        for trial in study:
            row, epochs = rows[trial.number], [int(epoch["epoch"]) for epoch in self.history(trial.number)]
            assert trial.state.name == TOLD_AS[row["state"]]
            assert sorted(trial.intermediate_values) == list(range(1, int(row["epochs"]) + 1))
            assert epochs == list(range(1, len(epochs) + 1)), "neither gaps nor doubles"
            if row["state"] not in ("failed", "diverged"):
                assert len(epochs) == int(row["epochs"])
                assert trial.value == float(row["best_metric"])
                best = self.history(trial.number)[int(row["best_epoch"]) - 1]
                assert float(best["val_metric"]) == pytest.approx(trial.value, rel=1e-9)
            assert {name: str(value) for name, value in trial.params.items()}.items() <= row.items()


TOLD_AS = {
    **{"completed": "COMPLETE", "early_stopped": "COMPLETE", "pruned": "PRUNED"},
    **{"diverged": "FAIL", "failed": "FAIL"},
}


@pytest.fixture(scope="session")
def search_folder() -> type[SearchFolder]:
    """See ``SearchFolder``."""
    return SearchFolder


def write_earlier_search(folder: Path, points: Sequence[Mapping[str, str | int | float]]) -> Path:
    """A folder for ``--warmStart``: an earlier search whose best trials were these points, best first."""
    folder.mkdir()
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    study = optuna.create_study(study_name="earlier", storage=storage, direction="maximize")
    for place, point in enumerate(points):
        metric = 1 - place / 100
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(point),
                distributions={name: CategoricalDistribution([value]) for name, value in point.items()},
                value=metric,
                intermediate_values={1: metric},
                user_attrs={"outcome": {"state": "completed", "seconds": 1.0, "reason": ""}},
            )
        )
    return folder


@pytest.fixture(scope="session")
def earlier_search() -> Callable[..., Path]:
    """See ``write_earlier_search``."""
    return write_earlier_search


# Read by every Python process that has its folder on PYTHONPATH, Ray's workers too. Every epoch is noted, and begins
# and ends with the test's own code.
PATCHES = """
import importlib.abc, importlib.util, json, os, pathlib, signal, sys, time

FOLDER = pathlib.Path(__file__).parent

def note(run, moment, **more):
    numbers = {"patience": run.settings.patience, "learning_rate": run.settings.resolved_learning_rate}
    about = {**numbers, "epoch": run.epoch, "pid": os.getpid(), "at": time.time()}
    with (FOLDER / "events.jsonl").open("a") as events:
        events.write(json.dumps({"moment": moment, **about, **more}) + "\\n")

def once(name):
    try:
        (FOLDER / str(name)).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True

def on_epoch(run, moment):
    pass

def on_import():
    pass

def patch(module):
    on_import()
    run_epoch, build = module.TrainingRun.run_epoch, module.TrainingRun.__init__

    def noted_epoch(self):
        note(self, "begin")
        on_epoch(self, "begin")
        report = run_epoch(self)
        on_epoch(self, "end")
        note(self, "end")
        return report

    def noted_build(self, *arguments, **more):
        begun = time.time()
        build(self, *arguments, **more)
        note(self, "built", seconds=time.time() - begun)

    module.TrainingRun.run_epoch, module.TrainingRun.__init__ = noted_epoch, noted_build

class Patching(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "tune_smp.training.run":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module
        return spec

sys.meta_path.insert(0, Patching())
"""


@dataclass(frozen=True)
class Patches:
    """What happens in every process of a program besides its own doing."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What to add to the program's environment."""
        return {"PYTHONPATH": str(self.folder)}

    def events(self) -> list[dict[str, Any]]:
        """What was noted, in order: a run was built, an epoch began or ended."""
        lines = (self.folder / "events.jsonl").read_text("utf-8").splitlines()
        return sorted(map(json.loads, lines), key=lambda event: float(event["at"]))


@pytest.fixture(scope="session")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Patches]:
    """Patches with this code: ``on_epoch(run, moment)`` and ``on_import()``; ``once(name)`` is true the first time."""

    def write(code: str = "") -> Patches:
        folder = tmp_path_factory.mktemp("patches")
        (folder / "sitecustomize.py").write_text(PATCHES + code, "utf-8")
        return Patches(folder)

    return write


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of decoded images; tiny models train on one thread, two would wait for each other."""
    monkeypatch.setenv("TUNE_SMP_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path / "cache"
    torch.set_num_threads(before)


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Answer:
    """Run a command; its exit code, and all that it printed. Never a traceback."""

    def run(*words: str | Path) -> tuple[int, str]:
        code = main([str(word) for word in words])
        printed = "".join(capsys.readouterr())
        assert "Traceback" not in printed
        return code, printed

    return run
