"""What must survive: the death of the driver, the death of a worker, Ctrl-C and SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from tune_smp.results.folder import read_csv, read_json

Arguments = Callable[..., Sequence[str]]
Command = Callable[..., subprocess.CompletedProcess[str]]
Undisturbed = tuple[Path, subprocess.CompletedProcess[str]]

SAME_RUN = ("--maxEpochs", "4", "--stepsPerEpoch", "12", "--seed", "5")


def _history(output: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_csv(output / "history.csv")]


def _start(arguments: Sequence[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tune_smp", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_epoch(output: Path, process: subprocess.Popen[str], epochs: int) -> None:
    """Until this many epochs have ended and their checkpoint is on disk: the next epoch is then under way."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        written = list(output.glob(f"trials/**/checkpoint_{epochs - 1:06d}/checkpoint.pth"))
        if written and len(read_csv(output / "history.csv")) >= epochs:
            return
        time.sleep(0.02)
    raise AssertionError(f"no epoch {epochs}: {process.communicate()}")


def _worker_of(process: subprocess.Popen[str]) -> psutil.Process:
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "SmpTrainable" in " ".join(child.cmdline())
    ]
    assert len(workers) == 1
    return workers[0]


def test_a_killed_driver_is_resumed_to_the_very_same_history(
    undisturbed: Undisturbed,
    tune_smp: Command,
    nuclei: Path,
    arguments_of_train: Arguments,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    process = _start(arguments_of_train(nuclei, output, *SAME_RUN), environment)
    _wait_for_epoch(output, process, 2)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    # Two agents of Ray's own outlive it by up to a minute; nothing that trains may.
    _, alive = psutil.wait_procs([child for child in children if "Agent" not in child.name()], timeout=30)
    assert not alive

    resumed = tune_smp("resume", output)

    assert resumed.returncode == 0, resumed.stderr
    assert _history(output) == _history(undisturbed[0])
    ours, theirs = (read_json(folder / "summary.json") for folder in (output, undisturbed[0]))
    assert (ours["best_metric"], ours["best_epoch"]) == (theirs["best_metric"], theirs["best_epoch"])


@pytest.mark.slow  # a search's workers are killed in the regular suite
def test_a_killed_worker_is_tried_again(
    undisturbed: Undisturbed, nuclei: Path, arguments_of_train: Arguments, environment: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = _start(arguments_of_train(nuclei, output, *SAME_RUN), environment)
    _wait_for_epoch(output, process, 1)
    os.kill(_worker_of(process).pid, signal.SIGKILL)
    printed, errors = process.communicate(timeout=200)

    assert process.returncode == 0, errors
    assert _history(output) == _history(undisturbed[0])
    assert "raylet" not in printed + errors, "Ray's own words stay in the log"
    assert "the worker of trial 0 failed; it resumes" in (output / "logs" / "train.log").read_text()


@pytest.mark.slow  # a search is ended so in the regular suite
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_run_ends_in_order_and_can_be_resumed(
    stop: signal.Signals,
    undisturbed: Undisturbed,
    tune_smp: Command,
    nuclei: Path,
    arguments_of_train: Arguments,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    process = _start(arguments_of_train(nuclei, output, *SAME_RUN), environment)
    _wait_for_epoch(output, process, 1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(stop)
    printed, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    epochs = len(_history(output))
    assert epochs >= 2, "the epoch under way was paid for"
    assert all(f"epoch {number}" in printed for number in range(1, epochs + 1)), printed
    assert read_json(output / "summary.json")["epochs"] == epochs
    assert f"tune-smp resume {output}" in errors
    assert read_json(output / "summary.json")["state"] == "interrupted"
    assert (output / "model" / "model.safetensors").exists(), "the best so far is exported"
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive

    assert tune_smp("resume", output).returncode == 0
    assert _history(output) == _history(undisturbed[0])


@pytest.mark.slow  # a search has two programs on its folder in the regular suite
def test_a_second_program_on_one_folder_is_refused(
    tune_smp: Command, nuclei: Path, arguments_of_train: Arguments, environment: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    process = _start(arguments_of_train(nuclei, output, *SAME_RUN), environment)
    try:
        _wait_for_epoch(output, process, 1)
        second = tune_smp(*arguments_of_train(nuclei, output))
        assert second.returncode == 5
        assert f"process {process.pid}" in second.stderr
    finally:
        process.kill()
        process.communicate()
    # The lock of the dead one is free: what is in the way now is its unfinished run.
    third = tune_smp(*arguments_of_train(nuclei, output))
    assert third.returncode == 2
    assert "tune-smp resume" in third.stderr


@pytest.mark.slow
def test_a_second_ctrl_c_leaves_a_summary_and_a_run_to_resume(
    undisturbed: Undisturbed,
    tune_smp: Command,
    nuclei: Path,
    arguments_of_train: Arguments,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    output = tmp_path / "out"
    process = _start(arguments_of_train(nuclei, output, *SAME_RUN), environment)
    _wait_for_epoch(output, process, 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    assert read_json(output / "summary.json")["state"] == "interrupted"
    assert tune_smp("resume", output, "--dashboard", "false").returncode == 0
    assert _history(output) == _history(undisturbed[0])
