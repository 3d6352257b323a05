"""The image, without an engine to build it: its recipe, what goes into it, its entrypoint, and its version."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tune_smp import __version__
from tune_smp.cli import COMMANDS
from tune_smp.data.synthetic import write_nuclei

WIPP_FLAGS = ("--imagesDir=/images", "--outputDir=/out put")


@dataclass(frozen=True)
class Step:
    """One instruction of the Dockerfile, with its lines joined."""

    instruction: str
    words: str

    @property
    def copied(self) -> list[str]:
        """What a COPY takes from the build's folder; nothing of one that takes from another stage."""
        if self.instruction != "COPY" or "--from=" in self.words:
            return []
        return [word for word in self.words.split() if not word.startswith("--")][:-1]


@pytest.fixture(scope="module")
def steps(repository: Path) -> list[Step]:
    lines = (repository / "Dockerfile").read_text("utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = text.replace("\\\n", "").splitlines()
    return [Step(*line.split(maxsplit=1)) for line in joined if line.strip()]


def words_of(steps: list[Step], instruction: str) -> list[str]:
    return [step.words for step in steps if step.instruction == instruction]


# The recipe


@pytest.mark.parametrize(
    ("program", "files"), [("hadolint", ["Dockerfile"]), ("shellcheck", ["build-docker.sh", "deploy/entrypoint.sh"])]
)
def test_linters_have_nothing_to_say(program: str, files: list[str], repository: Path) -> None:
    found = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{program} is not installed")
    done = subprocess.run([found, *files], cwd=repository, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_and_the_same_for_all_stages(steps: list[Step]) -> None:
    base, *others = words_of(steps, "FROM")
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-bookworm AS base", base)
    assert {other.split()[0] for other in others} == {"base"}
    assert base.startswith("python:3.11."), "that of the versions in constraints.txt"


def test_no_step_does_what_images_should_not(steps: list[Step]) -> None:
    assert words_of(steps, "ADD") == []
    for run in words_of(steps, "RUN"):
        assert not re.search(r"\bsudo\b|\bcurl\b|\s\|\s", run), "a pipe would hide the failure of its left side"
        assert ("apt-get install" in run) == ("--no-install-recommends" in run) == ("rm -rf /var/lib/apt/lists" in run)
        assert run.count("pip install") == run.count("--no-cache-dir")
    assert all(folder.startswith("/") for folder in words_of(steps, "WORKDIR"))
    named = " ".join([*words_of(steps, "ARG"), *words_of(steps, "ENV")])
    assert not re.search(r"token|secret|password|key", named, re.IGNORECASE)


def test_packages_are_those_that_the_tests_ran_with(steps: list[Step]) -> None:
    installs = [run for run in words_of(steps, "RUN") if "pip install" in run]
    assert len(installs) == 3
    assert all("--constraint" in run or "--no-deps" in run for run in installs)


def test_it_runs_as_nobody_in_particular_and_takes_signals(steps: list[Step]) -> None:
    assert re.fullmatch(r"[1-9]\d*:0", words_of(steps, "USER")[-1]), "a number: Kubernetes looks whether it is root's"
    (entrypoint,), (command,) = words_of(steps, "ENTRYPOINT"), words_of(steps, "CMD")
    assert json.loads(entrypoint) == ["tini", "-s", "--", "tune-smp-entrypoint"]
    assert json.loads(command) == ["--help"]
    names = dict(word.split("=", 1) for word in " ".join(words_of(steps, "ENV")).split())
    assert {names["HOME"], names["XDG_CACHE_HOME"]} <= set(
        next(run for run in words_of(steps, "RUN") if "chmod 1777" in run).split()
    )


def test_what_clusters_look_for_is_installed(steps: list[Step]) -> None:
    """KubeRay starts pods with bash, which the base has, and asks after them with wget; ray up copies with rsync."""
    (install,) = (run for run in words_of(steps, "RUN") if "apt-get install" in run)
    assert {"rsync", "tini", "wget"} <= set(install.split())


# What goes in


def is_ignored(path: str, patterns: list[str]) -> bool:
    """As docker decides it: the last pattern that fits the path, or a folder that it lies in, says."""
    ignored = False
    for pattern in patterns:
        plain = pattern.removeprefix("!")
        parts = Path(path).parts
        places = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        if plain.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, plain.removeprefix("**/")) for part in parts)
        else:
            fits = any(fnmatch.fnmatch(place, plain) and place.count("/") == plain.count("/") for place in places)
        if fits:
            ignored = not pattern.startswith("!")
    return ignored


@pytest.fixture(scope="module")
def ignored(repository: Path) -> list[str]:
    lines = (repository / ".dockerignore").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def build_context(repository: Path, ignored: list[str]) -> set[str]:
    """All files of the repository that an engine would see."""
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    if not files:
        pytest.skip("not a git checkout")
    return {file for file in files if not is_ignored(file, ignored)}


def test_the_build_sees_what_it_copies_and_nothing_else(
    repository: Path, steps: list[Step], ignored: list[str]
) -> None:
    copied = {source for step in steps for source in step.copied}
    seen = build_context(repository, ignored)
    for source in copied:
        assert (repository / source).exists()
        assert any(file == source or file.startswith(f"{source}/") for file in seen), source
    needless = [file for file in seen if not any(file == one or file.startswith(f"{one}/") for one in copied)]
    assert needless == []
    for private in ("deploy/auth_token", ".git/config", "tests/conftest.py", ".venv/pyvenv.cfg"):
        assert is_ignored(private, ignored)
    assert is_ignored("tune_smp/tuning/__pycache__/space.cpython-311.pyc", ignored)


@pytest.fixture
def built(repository: Path, steps: list[Step], ignored: list[str], tmp_path: Path) -> Path:
    """The build stage's own commands, in a folder with only what it copied by then; of their pip, this Python's."""
    folder = tmp_path / "build"
    seen = build_context(repository, ignored)
    stage = steps[2 : [step.words for step in steps].index("base")]  # between FROM base AS build and the next FROM
    for step in stage:
        for source in step.copied:
            for file in (file for file in seen if file == source or file.startswith(f"{source}/")):
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / file, folder / file)
        if step.instruction == "RUN":
            command = step.words.rpartition("hatchling     && ")[2].replace("python ", f"{sys.executable} ", 1)
            subprocess.run(["sh", "-c", command], cwd=folder, check=True, capture_output=True)
    return folder


def test_the_wheel_is_built_from_what_the_build_copies(built: Path) -> None:
    requirements = (built / "requirements.txt").read_text("utf-8").splitlines()
    assert any(line.startswith("torch>=") for line in requirements)
    assert any(line.startswith("onnxruntime") for line in requirements), "every flag works in the image"
    (wheel,) = (built / "dist").glob("*.whl")
    assert wheel.name == f"tune_smp-{__version__}-py3-none-any.whl"
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {"tune_smp/VERSION", "tune_smp/search_spaces/quick.yaml", "tune_smp/py.typed"} <= inside


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_last_stage_installs_a_program_that_trains(
    repository: Path, built: Path, steps: list[Step], tmp_path: Path
) -> None:
    """Its copies and its pip, in order, with an empty environment for the image's Python: 6 GB, removed at the end."""
    image, python = tmp_path / "image", tmp_path / "python"
    (image / "opt").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", python], check=True)
    environment = {**os.environ, "PATH": f"{python / 'bin'}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    try:
        for step in steps[[step.words for step in steps].index("base") :]:
            if step.instruction == "COPY" and "--from=build" in step.words:
                *sources, target = step.words.removeprefix("--from=build ").split()
                into = image / target.lstrip("/")
                into.mkdir(exist_ok=True)
                found = [path for source in sources for path in built.glob(source.removeprefix("/build/"))]
                assert len(found) == len(sources)
                for path in found:
                    shutil.copy(path, into)
            if step.instruction == "RUN" and step.words.startswith("pip install"):
                command = step.words.replace("/opt/tune-smp", str(image / "opt" / "tune-smp"))
                subprocess.run(["sh", "-c", command], env=environment, check=True, capture_output=True)
        write_nuclei(tmp_path / "data", count=4, size=[(64, 64)], seed=1)
        flags = (
            *(f"--imagesDir={tmp_path / 'data'}", f"--labelsDir={tmp_path / 'data'}", "--segmentationMode=binary"),
            *("--imagesPattern=nuclei_{i:d+}.tif", "--labelsPattern=nuclei_{i:d+}.tif", "--maxEpochs=1"),
            *("--encoderBaseVariantWeights=Test,tu-test_efficientnet,random", "--tileSize=64", "--batchSize=2"),
            *(
                "--device=cpu",
                "--dashboard=false",
                f"--cacheDir={tmp_path / 'cache'}",
                f"--outputDir={tmp_path / 'out'}",
            ),
        )
        done = subprocess.run(
            [repository / "deploy" / "entrypoint.sh", *flags],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "out" / "model" / "model.safetensors").exists()
    finally:
        shutil.rmtree(python)


# The entrypoint


@pytest.fixture
def started(repository: Path, tmp_path: Path) -> Path:
    """A folder of programs that tell how they were started; beside them, the system's own."""
    for name in ("tune-smp", "ray"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "${0##*/}" "$@"\nexit 7\n', "utf-8")
        program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ([*WIPP_FLAGS], ["tune-smp", "train", *WIPP_FLAGS]),
        (["search", "--numTrials", "3"], ["tune-smp", "search", "--numTrials", "3"]),
        (["tune-smp", "train", *WIPP_FLAGS], ["tune-smp", "train", *WIPP_FLAGS]),
        (["ray", "start", "--head", "--block"], ["ray", "start", "--head", "--block"]),
        (["--help"], ["tune-smp", "--help"]),
        (["--version"], ["tune-smp", "--version"]),
        (["-h"], ["tune-smp", "-h"]),
        (["serach"], ["tune-smp", "serach"]),
        ([], ["tune-smp"]),
    ],
    ids=lambda words: " ".join(words) or "nothing",
)
def test_the_entrypoint_knows_what_is_meant(
    given: list[str], becomes: list[str], started: Path, repository: Path
) -> None:
    done = subprocess.run(
        [repository / "deploy" / "entrypoint.sh", *given],
        env={"PATH": f"{started}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()) == (7, becomes), done.stderr


def test_no_command_has_the_name_of_a_program(repository: Path) -> None:
    """Words that are programs are run as such: our commands must not be among those that every Debian has."""
    for command in COMMANDS:
        found = subprocess.run(["sh", "-c", f"PATH=/usr/sbin:/usr/bin:/sbin:/bin command -v {command}"], check=False)
        assert found.returncode != 0, command


# The script and the version


def test_the_script_builds_with_the_version_as_tag_from_any_folder(repository: Path, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n', "utf-8")
    engine.chmod(0o755)
    done = subprocess.run(
        [repository / "build-docker.sh", "--pull"],
        cwd=tmp_path,
        env={**os.environ, "ENGINE": str(engine), "IMAGE": "registry.example.org/lab/tune-smp"},
        capture_output=True,
        text=True,
        check=True,
    )
    folder, command, *words = done.stdout.splitlines()
    assert (folder, command) == (str(repository), "build")
    assert words[-3:] == ["--pull", ".", f"registry.example.org/lab/tune-smp:{__version__}"]
    assert f"VERSION={__version__}" in words
    tags = [words[place + 1] for place, word in enumerate(words) if word == "--tag"]
    assert tags == [f"registry.example.org/lab/tune-smp:{tag}" for tag in (__version__, "latest")]


def test_a_version_that_is_no_tag_is_refused(repository: Path, tmp_path: Path) -> None:
    shutil.copy(repository / "build-docker.sh", tmp_path)
    (tmp_path / "VERSION").write_text("0.1.0+dirty\n", "utf-8")
    done = subprocess.run([tmp_path / "build-docker.sh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "0.1.0+dirty" in done.stderr


def version_of(folder: Path) -> str:
    """What ``tune-smp --version`` says where this folder holds the only installed packages."""
    code = "import site, sys; site.addsitedir(sys.argv.pop()); from tune_smp.cli import main; main(['--version'])"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(folder)],
        cwd="/",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_working_copy_wheel_and_editable_install_have_the_version_of_one_file(repository: Path, tmp_path: Path) -> None:
    assert (repository / "VERSION").read_text("utf-8") == f"{__version__}\n"
    copy, installed, editable = (tmp_path / name for name in ("copy", "installed", "editable"))
    for folder in ("tune_smp", "search_spaces"):
        shutil.copytree(repository / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(repository / file, copy)
    (copy / "VERSION").write_text("7.8.9\n", "utf-8")
    assert version_of(copy) == "tune-smp 7.8.9"
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    zipfile.ZipFile(tmp_path / "tune_smp-7.8.9-py3-none-any.whl").extractall(installed)
    assert version_of(installed) == "tune-smp 7.8.9"
    editable.mkdir()
    (editable / "tune_smp.pth").write_text(f"{copy}\n", "utf-8")  # all that an editable install is
    assert version_of(editable) == "tune-smp 7.8.9"
