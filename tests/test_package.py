"""What is shipped: the wheel's content, and search spaces whose every key and value is a legal flag."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tune_smp.settings.fields import flags_of
from tune_smp.settings.run import RunSettings

SPACES = sorted((Path(__file__).resolve().parent.parent / "search_spaces").glob("*.yaml"))
REQUIRED = {
    "imagesDir": "images",
    "labelsDir": "labels",
    "imagesPattern": ".*",
    "labelsPattern": ".*",
    "segmentationMode": "binary",
    "outputDir": "out",
}


def test_the_wheel_holds_all_that_is_read_at_run_time(repository: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=repository, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"tune_smp/cli.py", "tune_smp/py.typed", "tune_smp/results/model_card.md.j2"} <= names
    assert {f"tune_smp/search_spaces/{space.name}" for space in SPACES} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


def _values(domain: Any) -> list[Any]:
    """What a domain can take: its choices, or the ends of its range."""
    return domain if isinstance(domain, list) else [domain["low"], domain["high"]]


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_value_of_a_search_space_is_a_legal_setting(path: Path) -> None:
    space = yaml.safe_load(path.read_text(encoding="utf-8"))
    flags = {flag.name for flag in flags_of(RunSettings)}
    assert space["fixed"].keys() | space["search"].keys() <= flags
    for name, domain in space["search"].items():
        (condition,) = [domain.get("when", {})] if isinstance(domain, dict) else [{}]
        needed = {other: values[0] for other, values in condition.items()}
        for value in _values(domain):
            RunSettings.from_flags({**REQUIRED, **space["fixed"], **needed, name: value})
