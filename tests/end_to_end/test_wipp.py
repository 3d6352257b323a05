"""The plugin as WIPP calls it: by what plugin.json says, and by nothing else that is known of the program.

WIPP mounts its collections for reading, makes an empty folder for each output, and hands every input of the form to the
container as ``--name value``; what was left empty comes as empty text. Only the program itself stands in for the image.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tune_smp.openmp import POLICY, SPINS
from tune_smp.results.folder import read_csv, read_json

SMALL_ENCODER = "MobileNet,timm-mobilenetv3_small_minimal_100,random"


@dataclass(frozen=True)
class Job:
    """One job of WIPP: the form, the mounted folders, and a container that may write to its output alone."""

    plugin: dict[str, Any]
    root: Path
    temporary: Path

    def form(self, **filled: str) -> dict[str, str]:
        """Every input by name, as the form hands it over: its default, or what was filled in, or nothing."""
        defaults = {field["key"].removeprefix("inputs."): field.get("default", "") for field in self.plugin["ui"]}
        inputs = {entry["name"]: str(defaults[entry["name"]]) for entry in self.plugin["inputs"]}
        assert filled.keys() <= inputs.keys()
        return {**inputs, **filled}

    def run(
        self, form: Mapping[str, str], *, joined: bool = False, command: bool = True, timeout: float = 240
    ) -> subprocess.CompletedProcess[str]:
        """Start the container with this form."""
        program, *words = self.plugin["baseCommand"] if command else self.plugin["baseCommand"][:1]
        assert program == "tune-smp"
        outputs = {entry["name"]: str(self.output(entry["name"])) for entry in self.plugin["outputs"]}
        for name, value in {**form, **outputs}.items():
            words += [f"--{name}={value}"] if joined else [f"--{name}", value]
        return subprocess.run(
            [sys.executable, "-m", "tune_smp", *words],
            env=self.environment,
            cwd=self.root / "work",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def output(self, name: str) -> Path:
        """The folder that WIPP has made for this output."""
        return self.root / "outputs" / name

    @property
    def environment(self) -> dict[str, str]:
        """No home that can be written to, not even by root, no network, and a temporary folder."""
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", POLICY, SPINS) if name in os.environ}
        home = {"HOME": str(self.root / "no-home" / "home"), "TMPDIR": str(self.temporary)}
        return {**kept, **home, "HF_HUB_OFFLINE": "1"}

    def listing(self) -> dict[str, tuple[int, int]]:
        """Everything but the outputs, by path: size and time of change."""
        paths = [path for path in self.root.rglob("*") if (self.root / "outputs") not in (path, *path.parents)]
        return {str(path.relative_to(self.root)): (s.st_size, s.st_mtime_ns) for path in paths for s in [path.stat()]}


def collection(folder: Path, files: Path) -> Path:
    """A collection as WIPP keeps it: the files, of images or of labels, in ``images/``."""
    shutil.copytree(files, folder / "images")
    return folder


@pytest.fixture(scope="session")
def plugin(repository: Path) -> dict[str, Any]:
    """plugin.json as WIPP read it."""
    manifest: dict[str, Any] = json.loads((repository / "plugin.json").read_text("utf-8"))
    return manifest


@pytest.fixture
def job(plugin: dict[str, Any], tmp_path: Path) -> Iterator[Job]:
    """A job without collections yet."""
    for name in ("work", *(f"outputs/{entry['name']}" for entry in plugin["outputs"])):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "no-home").touch()  # a file: nothing can be made below it
    # Longer than the paths of Ray's sockets allow.
    with tempfile.TemporaryDirectory(prefix="wipp-") as temporary:
        yield Job(plugin, tmp_path, Path(temporary))


@pytest.fixture
def filled(job: Job, nuclei: Path) -> dict[str, str]:
    """A form in which everything that is required is filled in."""
    return job.form(
        imagesDir=str(collection(job.root / "collections" / "images", nuclei / "images")),
        labelsDir=str(collection(job.root / "collections" / "labels", nuclei / "labels")),
        imagesPattern="nuclei_{i:d+}.tif",
        labelsPattern="nuclei_{i:d+}.tif",
        segmentationMode="binary",
        encoderBaseVariantWeights=SMALL_ENCODER,
        batchSize="4.0",
        maxEpochs="1",
    )


@pytest.mark.slow
def test_a_job_trains_and_writes_into_its_output_alone(
    job: Job, filled: dict[str, str], plugin: dict[str, Any]
) -> None:
    offered = next(entry for entry in plugin["inputs"] if entry["name"] == "encoderBaseVariantWeights")
    assert SMALL_ENCODER in offered["options"]["values"]
    assert filled["pretrainedModel"] == "", "what the form leaves empty comes as empty text"
    before = job.listing()
    done = job.run(filled)
    assert done.returncode == 0, done.stdout + done.stderr
    assert job.listing() == before

    output = job.output("outputDir")
    assert read_json(output / "summary.json")["state"] == "completed"
    assert len(read_csv(output / "history.csv")) == 1
    settings = read_json(output / "settings.json")["settings"]["values"]
    assert (settings["batchSize"], settings["minDelta"], settings["pretrainedModel"]) == (4, 1e-4, None)
    (model,) = output.glob("model/model.safetensors")
    assert model.stat().st_size > 1_000_000
    assert list((job.temporary / f"tune-smp-{os.getuid()}").glob("*/index.json")), "decoded images, for want of a home"


REQUIRED = ["imagesDir", "labelsDir", "imagesPattern", "labelsPattern", "segmentationMode"]


@pytest.mark.parametrize("joined", [False, True], ids=["apart", "joined"])
@pytest.mark.parametrize("command", [True, False], ids=["command", "flags"])
def test_every_empty_required_input_is_named(job: Job, command: bool, joined: bool) -> None:
    assert [entry["name"] for entry in job.plugin["inputs"] if entry["required"]] == REQUIRED
    done = job.run(job.form(), joined=joined, command=command)
    assert done.returncode == 2
    for name in REQUIRED:
        assert f"problem: --{name} is required" in done.stderr
    assert done.stderr.count("problem: ") == len(REQUIRED)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_input_that_is_left_out_is_named(job: Job, filled: dict[str, str], name: str) -> None:
    done = job.run({key: value for key, value in filled.items() if key != name})
    assert done.returncode == 2
    assert done.stderr.startswith(f"problem: --{name} is required\n")
    assert done.stderr.count("problem: ") == 1


def test_an_output_that_is_left_out_is_named(job: Job, filled: dict[str, str]) -> None:
    job.plugin["outputs"][:], outputs = [], list(job.plugin["outputs"])
    try:
        done = job.run(filled)
    finally:
        job.plugin["outputs"][:] = outputs
    assert done.returncode == 2
    assert done.stderr.startswith("problem: --outputDir is required\n")


def test_every_value_that_no_list_has_gets_its_nearest(job: Job, filled: dict[str, str]) -> None:
    lists = {entry["name"]: entry["options"]["values"] for entry in job.plugin["inputs"] if entry["type"] == "enum"}
    chosen = {name: filled[name] for name in lists}
    assert all(chosen[name] in values for name, values in lists.items())
    misspelt = {
        name: value + value[-1] if "," not in value else "MobileNet,mobilenet_v2x,random"
        for name, value in chosen.items()
    }
    done = job.run({**filled, **misspelt})
    assert done.returncode == 2
    assert done.stderr.count("problem: ") == len(lists)
    for name, value in chosen.items():
        nearest = value if "," not in value else "mobilenet_v2"
        assert f"did you mean {nearest!r}?" in done.stderr, name
    assert not list(job.output("outputDir").iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_job_on_real_nuclei_gives_a_good_model(job: Job, shared_data: Path) -> None:
    data = shared_data / "nuclei-binary"
    form = job.form(
        imagesDir=str(data / "images"),
        labelsDir=str(collection(job.root / "collections" / "labels", data / "labels")),
        imagesPattern="nuclei_{i:ddd}.tif",
        labelsPattern="nuclei_{i:ddd}_mask.tif",
        segmentationMode="binary",
        encoderBaseVariantWeights=SMALL_ENCODER,
        maxEpochs="3",
    )
    before, started = job.listing(), time.monotonic()
    done = job.run(form, joined=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert job.listing() == before
    summary = read_json(job.output("outputDir") / "summary.json")
    sys.stdout.write(f"IoU {summary['best_metric']:.3f} after {time.monotonic() - started:.0f} s\n")
    assert (job.output("outputDir") / "model" / "model.safetensors").is_file()
    # From random weights and in three epochs; everything called foreground gives 0.14.
    assert summary["best_metric"] > 0.5
