"""Faults and bad input, as a user meets them: what a command answers, with which exit code, and what it leaves behind.

What is refused is refused before Ray starts, so ``main`` runs right here. The numbers are those of the table of faults.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tifffile
import torch
from numpy.typing import NDArray

from tests.end_to_end.small_data import TINY, colours, flags, prepared, tiny_run, write, write_pairs
from tune_smp.data.split import write_split
from tune_smp.data.synthetic import draw_nuclei
from tune_smp.results.folder import RunFolder, claimed, read_csv
from tune_smp.results.summary import write_settings
from tune_smp.training import checkpoint
from tune_smp.training.run import TrainingRun

Command = Callable[..., subprocess.CompletedProcess[str]]
Answer = Callable[..., tuple[int, str]]
Pixels = NDArray[Any]

NOBODY = 65534

pytestmark = pytest.mark.usefixtures("cache")


# 1: folders that are not there, closed or full

DROPPED = """
import os, sys
import tune_smp.settings.command_line, tune_smp.settings.folders, tune_smp.settings.run
from tune_smp.cli import main
if os.geteuid() == 0:  # to whom nothing is closed
    os.setgid({nobody})
    os.setuid({nobody})
code = main(sys.argv[1:])
sys.exit(code + 100 * ("torch" in sys.modules))
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    (folder / "closed").chmod(0o755)
    shutil.rmtree(folder)


def test_1_missing_closed_and_read_only_folders_are_told_before_torch_is_imported(open_folder: Path) -> None:
    (open_folder / "file").touch()
    for name, mode in (("closed", 0o000), ("read-only", 0o555)):
        (open_folder / name).mkdir(mode=mode)
    program = DROPPED.format(nobody=NOBODY)

    def refused(images: str, labels: str, output: str) -> str:
        folders = [f"--imagesDir={open_folder / images}", f"--labelsDir={open_folder / labels}"]
        words = [*flags(open_folder), *folders, f"--outputDir={open_folder / output}"]
        command = [sys.executable, "-c", program, "train", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done
        return done.stderr

    closed = refused("closed", "missing", "read-only")
    assert f"--imagesDir: this user may not read the folder\nwhere:   {open_folder / 'closed'}\nfix: " in closed
    assert f"--labelsDir: no such folder\nwhere:   {open_folder / 'missing'}\nfix: " in closed
    assert f"--outputDir: this user may not write there\nwhere:   {open_folder / 'read-only'}\nfix: " in closed
    files = refused("file", "file/below", "file")
    assert files.count(": a file, not a folder\n") == 2
    assert "--labelsDir: not a directory" in files


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that trained to its end and died before it exported: that is left to ``resume``."""
    data = tmp_path_factory.mktemp("trained")
    write_pairs(data, 4)
    settings = tiny_run(data, cacheDir=data / "cache", stepsPerEpoch=1)
    store, regions = prepared(settings)
    run = TrainingRun(settings, store, regions)
    run.run_epoch()
    with claimed(settings.output_dir) as folder:
        write_settings(folder, "train", settings.to_json())
        write_split(folder.split, regions, store.collection)
        checkpoint.save(run.state_dict(), folder.checkpoint)
    return folder.path


@pytest.fixture
def output(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy of that folder, to be worked on."""
    shutil.copytree(trained, tmp_path / "out")
    return RunFolder(tmp_path / "out")


@contextlib.contextmanager
def full_disk(left: int) -> Iterator[None]:
    """No file can grow beyond ``left`` bytes; what the system says then differs from a full disk in its words only."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_1_when_the_disk_fills_at_the_export_the_last_good_model_survives(answer: Answer, output: RunFolder) -> None:
    assert answer("resume", output.path)[0] == 0
    output.summary.unlink()  # as if it had died just before it said that it was done
    before = {path: path.read_bytes() for path in output.model.iterdir()}
    with full_disk(20_000):
        code, printed = answer("resume", output.path)
    assert code == 5
    assert str(output.model) in printed
    assert "free some space, then" in printed
    assert {path: path.read_bytes() for path in output.model.iterdir()} == before
    assert not list(output.path.glob(".*.tmp")) + list(output.path.glob(".*.old"))
    assert answer("resume", output.path)[0] == 0


def test_1_when_the_disk_fills_at_the_decoding_nothing_is_left(answer: Answer, tmp_path: Path, cache: Path) -> None:
    write_pairs(tmp_path, 2)
    with full_disk(1000):
        code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out", *TINY)
    assert code == 5
    assert str(cache) in printed
    assert not list(cache.glob("*/*.bin"))
    assert not RunFolder(tmp_path / "out").is_started()


# 8, 9 and 22: what is refused before a look at the data


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("--modelName=Unett", "did you mean 'Unet'?"),
        ("--modelName=PAN --encoderBaseVariantWeights=VGG,vgg16,imagenet", "vgg16 goes with Unet"),
        ("--encoderBaseVariantWeights=Test,tu-test_efficientnet,imagenet", "one of: random"),
        ("--encoderBaseVariantWeights=ResNet,resnet43,imagenet", "did you mean"),
        ("--lossName=SoftCrossEntropyLoss", "for binary, one of: JaccardLoss"),
        ("--optimizerName=Adams", "did you mean 'Adam"),
    ],
)
def test_8_unknown_and_unbuildable_choices(chosen: str, words: str, answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out", *chosen.split())
    assert code == 2
    assert words in printed
    assert not (tmp_path / "out").exists()


def test_9_wrong_values_are_told_all_at_once(answer: Answer, tmp_path: Path) -> None:
    wrong = {
        "batchSize": "0",
        "patience": "-1",
        "minDelta": "nan",
        "trainFraction": "1",
        "maxEpochs": "0",
        "colour": "1",
    }
    words = [f"--{flag}={value}" for flag, value in wrong.items()]
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out", *words)
    assert code == 2
    assert printed.count("problem: ") == len(wrong)
    for flag, value in wrong.items():
        assert f"--{flag} is not a flag" in printed if flag == "colour" else f"got {value}" in printed


DIES_WITH_THE_LOCK = """
import os, sys
from pathlib import Path
from tune_smp.results.folder import claimed
lock = claimed(Path(sys.argv[1]))
lock.__enter__()
os._exit(9)
"""


def test_22_the_second_program_is_refused_and_a_dead_one_is_forgotten(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    out = tmp_path / "out"
    words = ("train", *flags(tmp_path, pattern="no{i:d}.tif"), "--outputDir", out)
    with claimed(out):
        code, printed = answer(*words)
        assert code == 5
        assert "another tune-smp is at work in this folder (process " in printed
    died = subprocess.run([sys.executable, "-c", DIES_WITH_THE_LOCK, str(out)], check=False)
    assert died.returncode == 9
    assert (out / ".tune-smp.owner").exists()
    assert answer(*words)[0] == 3, "it went on to look at the data"


# 21 and 27: models from elsewhere


class Malicious:
    """Pickled code: to read it is to run it."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, (f"touch '{self.victim}'",)


Damage = Callable[[RunFolder, Path], object]


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def half_a_model(run: RunFolder, _: Path) -> None:
    run.checkpoint.unlink()
    half(run.model / "model.safetensors")


def no_weights(run: RunFolder, _: Path) -> None:
    run.checkpoint.unlink()
    (run.model / "model.safetensors").unlink()


def no_model(run: RunFolder, _: Path) -> None:
    run.checkpoint.unlink()
    shutil.rmtree(run.model)


def newer_format(run: RunFolder, _: Path) -> None:
    torch.save({"kind": checkpoint.KIND, "format": 99, "state": {}}, run.checkpoint)


BAD_MODELS: dict[str, tuple[Damage, str]] = {
    "whole module": (lambda run, _: torch.save(torch.nn.Conv2d(1, 1, 3), run.checkpoint), "nothing in it was executed"),
    "malicious": (lambda run, victim: torch.save(Malicious(victim), run.checkpoint), "nothing in it was executed"),
    "malicious, bare": (
        lambda run, victim: run.checkpoint.write_bytes(pickle.dumps(Malicious(victim), protocol=2)),
        "nothing in it was executed",
    ),
    "newer format": (newer_format, "(format 99, this program reads format 1)"),
    "half a checkpoint": (lambda run, _: half(run.checkpoint), "damaged"),
    "half a model": (half_a_model, "the weights are damaged"),
    "no weights": (no_weights, "model.safetensors is missing"),
    "no model": (no_model, "there is no model here"),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_21_bad_models_are_refused_and_nothing_is_executed(
    kind: str, answer: Answer, output: RunFolder, tmp_path: Path
) -> None:
    damage, words = BAD_MODELS[kind]
    answer("resume", output.path)
    damage(output, tmp_path / "victim")
    write_pairs(tmp_path, 2)
    new = ("--outputDir", tmp_path / "new", "--pretrainedModel", output.path)
    code, printed = answer("train", *flags(tmp_path), *new)
    assert code == 3
    assert words in printed
    assert str(output.path) in printed
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("--modelName=FPN", "this run needs FPN with"),
        ("--imagesPattern=rgb{i:d}.tif", "3 channels in"),
        ("--segmentationMode=multiclass", "2 classes out"),
    ],
)
def test_21_another_model_is_refused_naming_both(
    changes: str, words: str, answer: Answer, output: RunFolder, tmp_path: Path
) -> None:
    write_pairs(tmp_path, 2)
    for number in (1, 2):
        write(tmp_path / "images" / f"rgb{number}.tif", colours(3) // number, photometric="rgb")
    new = ("--outputDir", tmp_path / "new", "--pretrainedModel", output.path)
    code, printed = answer("train", *flags(tmp_path), *new, changes)
    assert code == 3
    assert "the earlier model is Linknet with tu-test_efficientnet, 1 channels in, 1 classes out" in printed
    assert words in printed


def test_27_an_exported_model_moves(answer: Answer, output: RunFolder, tmp_path: Path) -> None:
    """That it needs neither network nor this package is tested with a real run."""
    import segmentation_models_pytorch as smp

    assert answer("resume", output.path)[0] == 0
    moved = shutil.move(output.model, tmp_path / "-moved; $(here) 'x'")
    state = checkpoint.load(output.checkpoint)
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = smp.from_pretrained(moved).eval()(images)
        expected = smp.Linknet("tu-test_efficientnet", encoder_weights=None, in_channels=1)
        expected.load_state_dict(state["best_model"] or state["model"])
        torch.testing.assert_close(logits, expected.eval()(images))


# 24: names

ODD_NAMES = (
    *("with space", "quote\"and'quote", "semi;colon", "$(touch pwned)", "`touch pwned`", "-rf", "--help"),
    *("line\nbreak", "<script>alert(1)<", "µm·été·细胞", "%s{}[red]", "\x1b[31m", "a" * 251),
)


def test_24_loops_of_links_are_named(answer: Answer, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    for kind in ("images", "labels"):
        (tmp_path / kind / "i3.tif").symlink_to("i3.tif")
    code, printed = answer("train", *flags(tmp_path), "--outputDir", tmp_path / "out")
    assert code == 3
    for kind in ("images", "labels"):
        assert f"{kind}/i3.tif (the file cannot be opened (Too many levels of symbolic links))" in printed
    assert answer("check", *flags(tmp_path), "--skipCorrupt")[0] == 0
    (tmp_path / "loop").symlink_to("loop")
    code, printed = answer("train", *flags(tmp_path / "loop"), "--outputDir", tmp_path / "out")
    assert code == 2
    assert "too many levels of symbolic links" in printed


def test_24_a_command_to_copy_is_quoted(answer: Answer, output: RunFolder, tmp_path: Path) -> None:
    write_pairs(tmp_path, 2)
    odd = output.path.rename(tmp_path / "-o; $(touch pwned) 'x'")
    code, printed = answer("train", *flags(tmp_path), "--outputDir", odd)
    assert code == 2
    assert f"tune-smp resume {shlex.quote(str(odd))}" in printed
    code, printed = answer("resume", odd)
    assert code == 0
    assert f"--model {shlex.quote(str(odd))} " in printed


def test_7_24_odd_names_and_odd_sizes_all_the_way(tune_smp: Command, answer: Answer, tmp_path: Path) -> None:
    data, out = tmp_path / "-d; $(touch pwned) <b> 'é\n", tmp_path / '-o; `touch pwned` "x"'
    for number, name in enumerate(ODD_NAMES):
        image, label = draw_nuclei((33 + number, 57), seed=number)
        write(data / "images" / f"{name}.tif", image)
        write(data / "labels" / f"{name}.tif", label)
    words = flags(data, "--maxEpochs=1", "--stepsPerEpoch=1", "--batchSize=4", "--dashboard=false", pattern=".*")
    done = tune_smp("train", *words, f"--outputDir={out}", *TINY)
    assert done.returncode == 0, done.stderr
    assert {row["image"] for row in read_csv(out / "split.csv")} == {f"{name}.tif" for name in ODD_NAMES}
    masks = tmp_path / "-masks"
    predict = ("predict", "--model", out, "--imagesDir", data, "--imagesPattern", ".*", "--outputDir", masks)
    code, printed = answer(*predict, "--device", "cpu")
    assert code == 3
    assert f"1 predictions would have file names of more than 255 bytes\nwhere:   {ODD_NAMES[-1]}.tif" in printed
    (data / "images" / f"{ODD_NAMES[-1]}.tif").unlink()
    code, printed = answer(*predict, "--device", "cpu")
    assert code == 0
    assert {path.name for path in masks.iterdir()} == {f"{name}.ome.tif" for name in ODD_NAMES[:-1]}
    assert tifffile.imread(masks / "-rf.ome.tif").shape == (38, 57)
    assert "\x1b" not in done.stdout + printed
    assert not list(tmp_path.rglob("pwned")) + list(Path.cwd().glob("pwned"))
