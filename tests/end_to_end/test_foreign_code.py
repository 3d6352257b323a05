"""Code that lies where the program runs, reads and writes is never imported, by none of its processes. Row 36."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tune_smp.data.synthetic import write_nuclei
from tune_smp.results.folder import read_json

TRAP = """
with open({marks!r}, "a") as marks:
    marks.write(__file__ + "\\n")
raise RuntimeError("imported from a folder of data")
"""
# What some library imports if it is there, and need not be.
OPTIONAL = ("sitecustomize", "usercustomize", "triton", "cupy", "accimage", "apex", "pudb", "ipdb", "uvloop", "cucim")
# ``python -m`` reads these from the working folder before it finds any program: nothing can be done about it.
READ_BY_PYTHON = ("importlib", "warnings", "contextlib", "types", "collections", "functools", "keyword", "operator")
PATTERN = "nuclei_{i:d+}.tif"
NET = ("--modelName=Unet", "--encoderBaseVariantWeights=Test,tu-test_efficientnet,random", "--tileSize=64")
SHORT = (*NET, "--batchSize=4", "--device=cpu", "--maxEpochs=1", "--stepsPerEpoch=2")
# As somebody uses the Python API, from a folder with nothing else in it.
SCRIPT = """
import sys
from pathlib import Path
from tune_smp.settings.command_line import settings_from
from tune_smp.settings.search import SearchSettings
from tune_smp.workflows import search

if __name__ == "__main__":
    search(settings_from(SearchSettings, sys.argv[1:]))
    assert str(Path(__file__).parent) in sys.path, "the path of somebody's own script is not ours to change"
"""


TUNE_SMP = Path(sys.executable).with_name("tune-smp")


@dataclass(frozen=True)
class Trapped:
    """A working folder with a folder of data and an output folder in it, each with a trap for every module there is."""

    path: Path
    marks: Path
    environment: dict[str, str]

    def run(self, *command: str | Path, cwd: str = ".", **extra: str) -> str:
        """What a command prints in the folder, or in one below it; it has to succeed, and spring no trap."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.path / cwd,
            env={**self.environment, **extra},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert self.sprung() == []
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def sprung(self) -> list[str]:
        """The traps that were imported."""
        return self.marks.read_text().splitlines() if self.marks.exists() else []

    def data_words(self, data: str = "data") -> Sequence[str]:
        """The flags that name the data."""
        folders = (f"--imagesDir={data}", f"--labelsDir={data}", "--segmentationMode=binary")
        return (*folders, f"--imagesPattern={PATTERN}", f"--labelsPattern={PATTERN}")


@pytest.fixture(scope="module")
def trapped(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Trapped:
    """See ``Trapped``."""
    path = tmp_path_factory.mktemp("trapped")
    marks = path / "marks.txt"
    write_nuclei(path / "data", count=6, size=[(96, 96)], seed=3)
    packages = {name for name in importlib.metadata.packages_distributions() if name.isidentifier()}
    for folder in (path, path / "data", path / "data" / "images", path / "out"):
        folder.mkdir(exist_ok=True)
        for name in packages | set(OPTIONAL) | sys.stdlib_module_names | {"tune_smp"}:
            (folder / f"{name}.py").write_text(TRAP.format(marks=str(marks)))
    return Trapped(path, marks, environment)


def test_36_the_traps_are_sprung_where_python_looks_there(trapped: Trapped) -> None:
    for name in ("torch", "random", "numpy"):
        found = [sys.executable, "-c", f"import {name}"]
        assert subprocess.run(found, cwd=trapped.path, capture_output=True, check=False).returncode == 1
    assert [Path(trap).stem for trap in trapped.sprung()] == ["torch", "random", "numpy"]
    trapped.marks.unlink()


def test_36_a_run_in_a_folder_of_traps_trains_and_springs_none(trapped: Trapped) -> None:
    trapped.run(TUNE_SMP, "train", *trapped.data_words(), "--outputDir=out", *SHORT)
    assert read_json(trapped.path / "out" / "summary.json")["state"] == "completed"
    assert (trapped.path / "out" / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_36_no_command_and_no_way_to_start_it_springs_a_trap(trapped: Trapped, tmp_path: Path) -> None:
    if not (trapped.path / "out" / "model").exists():
        trapped.run(TUNE_SMP, "train", *trapped.data_words(), "--outputDir=out", *SHORT)
    trapped.run(TUNE_SMP, "check", *trapped.data_words("."), cwd="data")
    images = ("--imagesDir=images", f"--imagesPattern={PATTERN}", "--device=cpu")
    trapped.run(TUNE_SMP, "predict", "--model=../out", *images, "--outputDir=masks", cwd="data")
    assert len(list((trapped.path / "data" / "masks").glob("*.tif"))) == 6

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    found = ("--numTrials=2", "--cpusPerTrial=1", "--maxConcurrentTrials=1", "--searchSpace=quick", "--dashboard=false")
    words = (*trapped.data_words("data"), "--outputDir=found", *SHORT, *found)
    trapped.run(sys.executable, script, *words)
    assert read_json(trapped.path / "found" / "summary.json")["trials"]

    # python -m and an empty entry of PYTHONPATH put the working folder in front of everything else.
    for name in (*READ_BY_PYTHON, "reprlib", "runpy", "tune_smp"):
        (trapped.path / f"{name}.py").unlink()
    trapped.run(sys.executable, "-m", "tune_smp", "train", *trapped.data_words(), "--outputDir=again", *SHORT)
    # Python itself imports these before the program, some of them for files *.pth among the installed packages.
    nothing_yet = [sys.executable, "-c", "import sys; print(*sys.modules)"]
    loaded = subprocess.run(nothing_yet, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    for trap in trapped.path.glob("*.py"):
        if trap.stem in {*loaded, *sys.stdlib_module_names} or trap.stem.endswith("customize"):
            trap.unlink()
    trapped.run(TUNE_SMP, "train", *trapped.data_words(), "--outputDir=oncemore", *SHORT, PYTHONPATH=os.pathsep)
