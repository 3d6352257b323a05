"""Nothing is imported from the folders of the user: packages of our own names lie there as traps, and leave a mark."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tune_smp.data.synthetic import write_nuclei

PACKAGES = (
    *("torch", "timm", "numpy", "segmentation_models_pytorch", "ray", "optuna", "filepattern", "bfio", "tifffile"),
    *("pydantic", "safetensors", "scipy", "rich", "psutil", "PIL", "zarr", "tune_smp_plugins"),
)
MODULES = ("sitecustomize", "usercustomize", "json", "random", "logging", "queue", "types", "copy", "pickle", "socket")

Arguments = Callable[..., Sequence[str]]


def set_traps(folder: Path, marks: Path) -> None:
    for name in PACKAGES:
        (folder / name).mkdir()
        spring(folder / name / "__init__.py", marks / f"{folder.name}-{name}")
    for name in MODULES:
        spring(folder / f"{name}.py", marks / f"{folder.name}-{name}")


def spring(file: Path, mark: Path) -> None:
    file.write_text(f"open({str(mark)!r}, 'w').close()\nraise RuntimeError('imported from the working folder')\n")


@pytest.fixture
def trapped(tmp_path: Path, environment: dict[str, str]) -> Callable[..., list[str]]:
    """Run commands in a folder full of traps, with traps among images and labels too; the marks that they left."""
    work, marks = tmp_path / "work", tmp_path / "marks"
    marks.mkdir()
    write_nuclei(work, count=6, size=[(64, 64)], seed=3)
    for folder in (work, work / "images", work / "labels"):
        set_traps(folder, marks)

    def run(*commands: Sequence[str], program: Sequence[str]) -> list[str]:
        for command in commands:
            done = subprocess.run(
                [*program, *command],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        return sorted(mark.name for mark in marks.iterdir())

    run.work = work  # type: ignore[attr-defined]
    return run


def of_predict() -> Sequence[str]:
    folders = ("--model", "out", "--imagesDir", "images", "--outputDir", "masks")
    return ("predict", *folders, "--imagesPattern", "nuclei_{i:d+}.tif", "--device", "cpu")


@pytest.mark.parametrize("way", ["script", pytest.param("module", marks=pytest.mark.slow)])
def test_a_run_among_traps_springs_none(
    trapped: Callable[..., list[str]], arguments_of_train: Arguments, way: str
) -> None:
    script = [str(Path(sys.executable).with_name("tune-smp"))]
    program = script if way == "script" else [sys.executable, "-m", "tune_smp"]
    if way == "module":  # Python itself needs modules of these names before any line of ours runs
        for trap in (trapped.work / f"{name}.py" for name in MODULES):  # type: ignore[attr-defined]
            trap.unlink()
    train = arguments_of_train(Path(), Path("out"), "--maxEpochs", "1")
    assert trapped(train, of_predict(), program=program) == []


@pytest.mark.slow
def test_a_search_among_traps_springs_none(trapped: Callable[..., list[str]], arguments_of_train: Arguments) -> None:
    flags = arguments_of_train(Path(), Path("out"), "--maxEpochs", "1", "--numTrials", "2")[1:]
    search = ("search", "--searchSpace", "quick", *flags)
    assert trapped(search, program=[str(Path(sys.executable).with_name("tune-smp"))]) == []


def test_the_traps_work(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    set_traps(tmp_path, tmp_path / "marks")
    done = subprocess.run([sys.executable, "-c", "import torch"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0
    assert (tmp_path / "marks" / f"{tmp_path.name}-torch").exists()
