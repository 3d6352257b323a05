"""The program as a user runs it: a command line, real files, a real Ray, a tiny encoder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tune_smp.data.synthetic import write_nuclei

Command = Callable[..., subprocess.CompletedProcess[str]]
TINY_NET = ("--modelName", "Unet", "--encoderBaseVariantWeights", "Test,tu-test_efficientnet,random")
TINY_RUN = (*TINY_NET, "--tileSize", "64", "--batchSize", "4", "--dashboard", "false", "--device", "cpu")


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
