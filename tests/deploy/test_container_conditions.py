"""Fault 19: what containers lack. No home, a user that no file knows, a read-only root, 64 MB of /dev/shm, no /tmp."""

from __future__ import annotations

import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tune_smp.results.folder import read_csv, read_json

if TYPE_CHECKING:
    from tests.deploy.conftest import Container

Words = Callable[..., list[str]]


@pytest.fixture
def entrypoint(repository: Path) -> str:
    return str(repository / "deploy" / "entrypoint.sh")


def assert_trained(container: Container, done: subprocess.CompletedProcess[str]) -> None:
    """The run ended well, and everything that it left is its user's own."""
    run = container.out / "run"
    assert done.returncode == 0, done.stdout + done.stderr
    assert "best IoU" in done.stdout
    assert done.stderr == ""
    assert read_json(run / "summary.json")["state"] == "completed"
    assert len(read_csv(run / "history.csv")) == 1
    assert {path.stat().st_uid for path in container.out.rglob("*")} == {12345}


@pytest.mark.slow  # test_wipp trains without a home in the regular suite
def test_wipp_s_flags_train_without_a_home_as_a_user_that_nobody_knows(
    container: Container, train_words: Words, entrypoint: str
) -> None:
    """All of it at once: uid 12345 of group 0, no HOME, read-only root, /dev/shm of 64 MB, a /tmp; as process 1."""
    done = container.run(entrypoint, *train_words())
    assert_trained(container, done)
    assert "its token is in /tmp/tune-smp-" in done.stdout
    assert sorted(path.name for path in container.out.iterdir()) == ["run"], "no folder of the name ~, no cache"


def test_without_a_folder_for_temporary_files_the_option_is_named(
    container: Container, train_words: Words, entrypoint: str
) -> None:
    done = container.run(entrypoint, *train_words(), tmp="")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "no folder for temporary files" in done.stderr
    assert "docker run --tmpfs /tmp" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("home", ["/", "/mnt/out"])
def test_a_home_that_cannot_be_written_and_one_that_is_a_volume(
    home: str, container: Container, train_words: Words, entrypoint: str
) -> None:
    assert_trained(container, container.run(entrypoint, *train_words(), home=home))
    token = container.out / ".ray" / "auth_token"
    assert token.exists() == (home == "/mnt/out")
    assert not token.exists() or stat.S_IMODE(token.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_tmp_that_is_too_small_is_named(container: Container, train_words: Words, entrypoint: str) -> None:
    done = container.run(entrypoint, *train_words(), tmp="16m")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "the decoded images need" in done.stderr
    assert "--cacheDir" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_neither_shared_memory_nor_tmp_for_ray_is_told_before_it_starts(
    container: Container, train_words: Words, entrypoint: str
) -> None:
    done = container.run(entrypoint, *train_words("--cacheDir=/mnt/out/cache"), tmp="16m")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "MB in /dev/shm and 1" in done.stderr
    assert "docker run --shm-size 2g" in done.stderr
    assert "worker died" not in done.stderr


@pytest.mark.slow
def test_sigterm_ends_a_run_that_is_process_1_in_order(
    container: Container, train_words: Words, entrypoint: str
) -> None:
    """What docker stop sends. A process 1 without an answer of its own would not even notice."""
    process = container.start(entrypoint, *train_words("--maxEpochs=500", "--patience=500"))
    history = container.out / "run" / "history.csv"
    deadline = time.monotonic() + 120
    while not (history.is_file() and len(read_csv(history)) >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (program,) = children(process.pid)
    subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(program)], check=True)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "tune-smp resume /mnt/out/run" in err
    assert read_json(container.out / "run" / "summary.json")["state"] == "interrupted"


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()))


@pytest.mark.slow
def test_a_search_runs_under_the_same_conditions(container: Container, train_words: Words, entrypoint: str) -> None:
    words = [word for word in train_words() if not word.startswith(("--max", "--steps", "--enc", "Test,", "--tile"))]
    space = container.out / "tiny.yaml"
    space.write_text(
        "description: tiny nets\n"
        "fixed: {maxEpochs: 2, stepsPerEpoch: 2, tileSize: 64,\n"
        '  encoderBaseVariantWeights: "Test,tu-test_efficientnet,random"}\n'
        "search:\n  learningRate: {low: 1e-4, high: 3e-2, log: true}\n",
        "utf-8",
    )
    space.chmod(0o644)
    done = container.run(entrypoint, "search", *words, "--searchSpace=/mnt/out/tiny.yaml", "--numTrials=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(read_json(container.out / "run" / "summary.json")["trials"].values()) == 3
