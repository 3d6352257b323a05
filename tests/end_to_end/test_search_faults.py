"""What may befall a search, its trials and their workers; on the real program, with faults that are patched in.

The numbers are those of the table of faults.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tifffile

from tune_smp.cli import main
from tune_smp.data.synthetic import draw_nuclei

Arguments = Callable[..., Sequence[str]]
Command = Callable[..., subprocess.CompletedProcess[str]]
Reader = Callable[[Path], Any]

# `patience` changes no number of a run this short, and so it can say which fault befalls a trial.
FAULTY_SPACE = """
fixed:
  {maxEpochs: 3, stepsPerEpoch: 4, tileSize: 64, batchSize: 4, device: cpu,
   encoderBaseVariantWeights: "Test,tu-test_efficientnet,random"}
search:
  modelName: [Unet, Linknet]
  patience: {low: 10, high: 20}
  optimizerName: [Adam, SGD]
  learningRate: [1e-3, 1e8]
  gradientClip: [1.0, 0.0]
"""
NO_FAULT = 10
RAISES, PASSES, IS_KILLED, NEEDS_MEMORY, DIVERGES, CANNOT_BE_BUILT = range(11, 17)
EXITS, HANGS, NEVER_PASSES, ALWAYS_KILLED = range(17, 21)
FAULTS = """
def on_import():
    import segmentation_models_pytorch as smp
    import tune_smp.data.ahead

    create_model = smp.create_model

    def picky(arch, *arguments, **more):
        if arch == "Linknet":
            raise ValueError("<script>alert('no Linknet today')</script>")
        return create_model(arch, *arguments, **more)

    smp.create_model = picky
    tune_smp.data.ahead.SLOWEST_ITEM_S = 10.0

def exhausted(tiles):
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

def hang(tiles, plan):
    time.sleep(3600)

def on_epoch(run, moment):
    fault = run.settings.patience
    if fault == 14:
        run.step.attempt = exhausted
    if fault == 18 and moment == "begin" and run.epoch == 1 and once(fault):
        import tune_smp.data.batches

        tune_smp.data.batches.TrainingTiles._batch = hang
    if moment == "begin" or run.epoch != 2:
        return
    if fault == 11:
        raise TypeError("a slip in a library")
    if fault == 12 and once(fault) or fault == 19:
        raise OSError("stale file handle")
    if fault == 13 and once(fault) or fault == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == 17 and once(fault):
        os._exit(1)
"""


class Faulty:
    """A search that met faults: trial 0 met none."""

    def __init__(self, faults: Sequence[int], folder: Any, done: subprocess.CompletedProcess[str], events: Any) -> None:
        self.trial_of = {fault: number for number, fault in enumerate((NO_FAULT, *faults))}
        self.folder = folder
        self.done = done
        self._events = events

    def row(self, fault: int) -> dict[str, str]:
        """What trials.csv says of the trial that met this fault."""
        row: dict[str, str] = self.folder.rows[self.trial_of[fault]]
        return row

    def history(self, fault: int) -> list[dict[str, str]]:
        """The epochs of that trial."""
        rows: list[dict[str, str]] = self.folder.history(self.trial_of[fault])
        return rows

    def epochs_begun(self, fault: int) -> list[int]:
        """The epochs that it began, those of all its workers in order."""
        begun = (event for event in self._events if event["moment"] == "begin")
        return [event["epoch"] + 1 for event in begun if event["patience"] == fault]

    def workers(self, fault: int) -> int:
        """In how many processes epochs of it were begun."""
        begun = (event for event in self._events if event["moment"] == "begin")
        return len({event["pid"] for event in begun if event["patience"] == fault})


Search = Callable[..., Faulty]


@pytest.fixture(scope="module")
def search_with_faults(
    tmp_path_factory: pytest.TempPathFactory,
    tune_smp: Command,
    arguments_of_search: Arguments,
    earlier_search: Callable[..., Path],
    patched: Callable[..., Any],
    search_folder: Reader,
) -> Search:
    """A search of a trial without a fault and of one for each fault, in that order; in folders of odd names."""
    plain: dict[str, str | float] = {
        "modelName": "Unet",
        "optimizerName": "Adam",
        "learningRate": 1e-3,
        "gradientClip": 1.0,
    }
    odd: dict[int, dict[str, str | float]] = {
        DIVERGES: {"optimizerName": "SGD", "learningRate": 1e8, "gradientClip": 0.0},
        CANNOT_BE_BUILT: {"modelName": "Linknet"},
    }

    def search(faults: Sequence[int]) -> Faulty:
        folder = tmp_path_factory.mktemp("faulty")
        data, output = folder / "-d; $(touch pwned) <b> 'é", folder / '-o; `touch pwned` "<script>x" µ'
        write_oddly_named(data)
        points = [plain | odd.get(fault, {}) | {"patience": fault} for fault in faults]
        patches = patched(FAULTS)
        more = (f"--numTrials={1 + len(points)}", "--scheduler=none")
        earlier = f"--warmStart={earlier_search(folder / 'earlier', points)}"
        done = tune_smp(*arguments_of_search(data, output, *more, earlier, space=FAULTY_SPACE), **patches.environment)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not list(folder.rglob("pwned")) + list(Path.cwd().glob("pwned"))
        return Faulty(faults, search_folder(output), done, patches.events())

    return search


def write_oddly_named(data: Path) -> None:
    for number, name in enumerate(("a b", "<script>alert(1)<", "quote\"and'quote", "细胞", "e", "f")):
        for kind, pixels in zip(("images", "labels"), draw_nuclei((64, 80 + number), seed=number), strict=True):
            path = data / kind / f"{name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, pixels)


@pytest.fixture(scope="module")
def faulty(search_with_faults: Search) -> Faulty:
    """A search that met most faults."""
    return search_with_faults((RAISES, PASSES, IS_KILLED, NEEDS_MEMORY, DIVERGES, CANNOT_BE_BUILT))


@pytest.fixture(scope="module")
def more_faulty(search_with_faults: Search) -> Faulty:
    """A search that met the others, which take longer."""
    return search_with_faults((EXITS, HANGS, NEVER_PASSES, ALWAYS_KILLED))


# 11, 12, 13: bad trials in a good search


def test_11_12_13_every_fault_is_recorded_and_the_search_succeeds(faulty: Faulty) -> None:
    faulty.folder.assert_consistent(7)
    reasons = {fault: (faulty.row(fault)["state"], faulty.row(fault)["reason"]) for fault in faulty.trial_of}
    memory = "out of memory with 1 tiles of 64 px at a time: CUDA out of memory. Tried to allocate 20.00 GiB"
    build = "segmentation-models-pytorch cannot build Linknet with tu-test_efficientnet"
    assert reasons == {
        **dict.fromkeys((NO_FAULT, PASSES, IS_KILLED), ("completed", "")),
        RAISES: ("failed", "TypeError: a slip in a library"),
        NEEDS_MEMORY: ("failed", f"out_of_memory: {memory}"),
        DIVERGES: ("diverged", "the loss was not finite in epoch 1"),
        CANNOT_BE_BUILT: ("failed", f"{build}: <script>alert('no Linknet today')</script>"),
    }
    assert faulty.folder.summary["state"] == "completed"
    assert "7 trials: 3 completed, 1 diverged, 3 failed" in faulty.done.stdout


def test_12_a_diverged_trial_ends_within_one_epoch_and_is_told_as_failed(faulty: Faulty) -> None:
    assert faulty.epochs_begun(DIVERGES) == [1]
    (epoch,) = faulty.history(DIVERGES)
    assert epoch["train_loss"] == "nan"
    told = faulty.folder.study[faulty.trial_of[DIVERGES]]
    assert (told.state.name, told.value, told.intermediate_values) == ("FAIL", None, {})


def test_13_what_passes_is_tried_again_from_the_last_checkpoint(faulty: Faulty) -> None:
    for fault in (PASSES, IS_KILLED):
        assert faulty.epochs_begun(fault) == [1, 2, 2, 3], "one epoch was lost"
        assert faulty.workers(fault) == 2
        assert faulty.history(fault) == faulty.history(NO_FAULT)
    assert len(re.findall("the worker of trial . failed; it resumes from its last checkpoint", faulty.done.stderr)) == 2
    assert len(faulty.done.stderr.splitlines()) == 2, "nothing of Ray's own"


def test_13_what_fails_on_every_try_is_not_tried_again(faulty: Faulty) -> None:
    assert faulty.epochs_begun(RAISES) == [1, 2]
    assert faulty.epochs_begun(NEEDS_MEMORY) == [1]
    assert faulty.epochs_begun(CANNOT_BE_BUILT) == []
    for fault in (RAISES, NEEDS_MEMORY, CANNOT_BE_BUILT):
        log = faulty.folder.path / "logs" / f"trial_{faulty.trial_of[fault]:05d}.log"
        assert log.read_text("utf-8").startswith("Traceback")


def test_what_an_earlier_search_found_best_is_tried_first(faulty: Faulty) -> None:
    study = faulty.folder.study
    assert [trial.params["patience"] for trial in study] == list(faulty.trial_of)
    assert "the 6 best trials of" in faulty.done.stdout


class Scripts(HTMLParser):
    """The scripts of a page, the names of its elements, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_24_the_report_shows_odd_names_and_runs_none(faulty: Faulty, finished_search: Any) -> None:
    pages = {}
    for name, folder in (("odd", faulty.folder.path), ("plain", finished_search[0])):
        pages[name] = Scripts()
        pages[name].feed((folder / "report.html").read_text("utf-8"))
    assert pages["odd"].scripts == pages["plain"].scripts, "the page's own"
    for shown in ("<script>alert(1)<.tif", "<script>alert('no Linknet today')</script>"):
        assert shown in pages["odd"].text


@pytest.mark.slow
def test_13_a_worker_that_leaves_or_hangs_is_tried_again(more_faulty: Faulty) -> None:
    more_faulty.folder.assert_consistent(5)
    for fault in (EXITS, HANGS):
        assert more_faulty.row(fault)["state"] == "completed"
        assert more_faulty.epochs_begun(fault) == [1, 2, 2, 3]
        assert more_faulty.workers(fault) == 2
        assert more_faulty.history(fault) == more_faulty.history(NO_FAULT)


@pytest.mark.slow
def test_13_what_never_passes_is_tried_three_times(more_faulty: Faulty) -> None:
    for fault, reason in ((NEVER_PASSES, "OSError: stale file handle"), (ALWAYS_KILLED, "its worker process has died")):
        row = more_faulty.row(fault)
        assert (row["state"], row["epochs"]) == ("failed", "1")
        assert reason in row["reason"]
        assert more_faulty.epochs_begun(fault) == [1, 2, 2, 2]
        log = more_faulty.folder.path / "logs" / f"trial_{more_faulty.trial_of[fault]:05d}.log"
        assert "Failure # 3" in log.read_text("utf-8")


# 23: nothing works

BROKEN = """
def on_epoch(run, moment):
    raise (TypeError if run.settings.patience == 10 else AssertionError)("<b>broken</b>")
"""


@pytest.mark.slow
def test_23_when_all_trials_fail_the_reasons_are_grouped_and_a_log_is_named(
    nuclei: Path,
    tune_smp: Command,
    arguments_of_search: Arguments,
    patched: Callable[..., Any],
    search_folder: Reader,
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    more = ("--numTrials=4", "--modelName=Unet", "--maxConcurrentTrials=1")
    done = tune_smp(*arguments_of_search(nuclei, output, *more, space=FAULTY_SPACE), **patched(BROKEN).environment)
    assert done.returncode == 4, done.stderr
    folder = search_folder(output)
    folder.assert_consistent(4)
    assert folder.told_as() == dict.fromkeys(range(4), "FAIL")
    assert folder.summary["state"] == "failed"
    counts = {text: int(count) for text, count in re.findall(r"(\w+): <b>broken</b> \((\d) of 4\)", done.stderr)}
    assert sum(counts.values()) == 4
    assert list(counts.values()) == sorted(counts.values(), reverse=True), "the most frequent first"
    log = Path(re.findall(r"^where:   (.*)$", done.stderr, re.MULTILINE)[0])
    assert log == output / "logs" / "trial_00000.log"
    assert "TypeError: <b>broken</b>" in log.read_text("utf-8")
    assert "Traceback" not in done.stderr
    assert not (output / "model").exists()
    assert "&lt;b&gt;broken&lt;/b&gt;" in (output / "report.html").read_text("utf-8")


# 17: more than there is


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--gpusPerTrial=1", "no node can hold a trial with --gpusPerTrial 1"),
        pytest.param("--device=gpu", "--device gpu", marks=pytest.mark.slow),
        pytest.param("--cpusPerTrial=999", "no node can hold a trial with --cpusPerTrial 999", marks=pytest.mark.slow),
    ],
)
def test_17_what_no_machine_has_is_refused_within_seconds(
    flag: str, named: str, nuclei: Path, tune_smp: Command, arguments_of_search: Arguments, tmp_path: Path
) -> None:
    space = FAULTY_SPACE.replace(", device: cpu", "")
    words = arguments_of_search(nuclei, tmp_path / "out", space=space)
    words = [word for word in words if not word.startswith(flag.partition("=")[0])]
    done = tune_smp(*words, flag, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 5, done.stderr
    assert named in done.stderr
    assert "\nfix:     " in done.stderr
    assert not list((tmp_path / "out" / "trials").glob("trial_*")), "no trial was started"
    assert not (tmp_path / "out" / "settings.json").exists(), "another try needs no --overwrite"


# 8, 20 and 22: what is refused before Ray starts


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("modelName: [Unet, Unett]", "did you mean 'Unet'?"),
        ("lossName: [JaccardLoss, SoftCrossEntropyLoss]", "SoftCrossEntropyLoss"),
        ("encoderBaseVariantWeights: ['VGG,vgg16,random']\n  modelName: [PAN]", "PAN"),
        ("encoderBaseVariantWeights: ['Test,tu-test_efficientnet,imagenet', 'ResNet,resnet99,random']", "resnet99"),
        ("batchSize: {low: 8, high: 4}", "low must be below high"),
        ("learningRat: [1e-3]", "did you mean 'learningRate'?"),
        ("optimizerName: []", "the list is empty"),
        ("batchSize: ['4']", "write it without quotes"),
    ],
)
def test_8_bad_choices_are_found_before_anything_starts(
    line: str,
    words: str,
    nuclei: Path,
    arguments_of_search: Arguments,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    assert main(arguments_of_search(nuclei, output, space=f"search:\n  {line}\n  gradientClip: [1.0, 0.0]\n")) == 2
    errors = capsys.readouterr().err
    assert words in errors
    assert str(tmp_path / "out.yaml") in errors
    assert not output.exists()


@pytest.mark.parametrize("network", ["offline", "refuses"])
def test_20_weights_that_cannot_be_had_are_told_before_any_trial(
    network: str, nuclei: Path, tune_smp: Command, arguments_of_search: Arguments, tmp_path: Path
) -> None:
    space = FAULTY_SPACE.replace("Test,tu-test_efficientnet,random", "ResNet,resnet18,imagenet")
    # Port 9 of this machine: nobody listens there.
    ways = {"offline": {"HF_HUB_OFFLINE": "1"}, "refuses": {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}}
    started = time.monotonic()
    done = tune_smp(
        *arguments_of_search(nuclei, tmp_path / "out", space=space), HF_HOME=str(tmp_path / "hub"), **ways[network]
    )
    assert done.returncode == 5, done.stderr
    assert 'the weights "ResNet,resnet18,imagenet" are in no cache' in done.stderr
    assert "HF_HOME" in done.stderr
    assert "ResNet,resnet18,random" in done.stderr
    assert time.monotonic() - started < 60, "not the minutes of the client's retries"
    assert not list((tmp_path / "out").glob("trials*"))


def test_a_folder_without_a_search_is_no_warm_start(
    nuclei: Path, arguments_of_search: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    output = tmp_path / "out"
    assert main(arguments_of_search(nuclei, output, f"--warmStart={tmp_path / 'empty'}", space=FAULTY_SPACE)) == 2
    assert f"--warmStart {tmp_path / 'empty'}" in capsys.readouterr().err
    assert not (output / "settings.json").exists(), "another try is not refused"
