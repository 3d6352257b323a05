"""What is shipped: the wheel's content, and search spaces of which every point is a legal configuration."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.flags import REQUIRED
from tune_smp.choices.losses import MODES
from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.space_checks import check_space
from tune_smp.tuning.space_file import named_spaces, parse_space

SPACES = sorted((Path(__file__).resolve().parent.parent / "search_spaces").glob("*.yaml"))


def test_the_wheel_holds_all_that_is_read_at_run_time(repository: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=repository, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "tune_smp/cli.py",
        "tune_smp/py.typed",
        "tune_smp/choices/encoders.txt",
        "tune_smp/results/model_card.md.j2",
    } <= names
    assert {f"tune_smp/search_spaces/{space.name}" for space in SPACES} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_shipped_spaces_are_legal(path: Path, mode: str) -> None:
    space = parse_space(path.read_text(encoding="utf-8"), name=path.name)
    check_space(space.with_flags({**REQUIRED, "segmentationMode": mode}))


def test_shipped_spaces_are_found_by_name() -> None:
    assert named_spaces() == {path.stem: path for path in SPACES}
    assert SearchSettings.model_fields["search_space"].default in named_spaces()
