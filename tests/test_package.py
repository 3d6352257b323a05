"""What is shipped: the wheel's content, and search spaces of which every point is a legal configuration."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.flags import REQUIRED
from tune_smp.choices.losses import MODES
from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.space_checks import check_space
from tune_smp.tuning.space_file import named_spaces, parse_space

SPACES = sorted((Path(__file__).resolve().parent.parent / "search_spaces").glob("*.yaml"))


def dependencies(repository: Path) -> list[Requirement]:
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    return [Requirement(text) for text in (*project["dependencies"], *project["optional-dependencies"]["onnx"])]


def pinned(file: Path) -> dict[str, Version]:
    """Versions by name, as packages are compared."""
    lines = [line for line in file.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def test_the_lowest_versions_are_those_that_are_declared(repository: Path) -> None:
    lowest = pinned(repository / "constraints-lowest.txt")
    declared = {
        canonicalize_name(need.name): Version(bound.version)
        for need in dependencies(repository)
        for bound in need.specifier
        if bound.operator == ">="
    }
    assert lowest == declared


def test_the_tested_versions_are_allowed(repository: Path) -> None:
    tested = pinned(repository / "constraints.txt")
    for need in dependencies(repository):
        assert need.specifier.contains(tested[canonicalize_name(need.name)]), need


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
    assert {f"tune_smp/search_spaces/portfolio/{space.name}" for space in SPACES} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_shipped_spaces_are_legal(path: Path, mode: str) -> None:
    space = parse_space(path.read_text(encoding="utf-8"), name=path.name)
    check_space(space.with_flags({**REQUIRED, "segmentationMode": mode}))


def test_shipped_spaces_are_found_by_name() -> None:
    assert named_spaces() == {path.stem: path for path in SPACES}
    assert SearchSettings.model_fields["search_space"].default in named_spaces()
