from __future__ import annotations

import logging
import math
import operator
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from tune_smp.data.processes import Workers
from tune_smp.errors import ResourceError


@pytest.mark.parametrize("count", [1, 2])
def test_results_come_in_the_order_of_the_items(count: int) -> None:
    with Workers(count) as workers:
        assert workers.map(operator.neg, range(100)) == [-item for item in range(100)]
        assert workers.map(math.sqrt, []) == []
        assert workers.map(abs, [-3]) == [3]


def test_the_work_is_done_elsewhere() -> None:
    with Workers(2) as workers:
        assert os.getpid() not in workers.map(operator.call, [os.getpid] * 8)


@pytest.mark.parametrize("count", [1, 2])
def test_an_exception_comes_back_as_it_was(count: int) -> None:
    with Workers(count) as workers, pytest.raises(ValueError, match="math domain error"):
        workers.map(math.sqrt, [4.0, 1.0, -1.0, 9.0])


def test_what_a_worker_prints_does_not_disturb_its_answers() -> None:
    with Workers(2) as workers:
        assert workers.map(print, ["to standard error", "please"]) == [None, None]


def test_what_a_library_warns_of_in_a_worker_is_logged_here_and_not_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO), Workers(2) as workers:
        workers.map(warnings.warn, ["a foreign warning"])
        workers.map(logging.warning, ["a foreign line"])
    assert "a foreign warning" in caplog.text
    assert "a foreign line" in caplog.text
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_dies_is_told() -> None:
    with Workers(2) as workers, pytest.raises(ResourceError, match="exit code 7"):
        workers.map(os._exit, [7, 7])


def test_workers_end_with_a_parent_that_is_killed() -> None:
    script = """
import time
from tune_smp.data.processes import Workers
with Workers(2) as workers:
    print(*(process.pid for process in workers._processes), flush=True)
    workers.map(time.sleep, [0.5, 0.5])
    time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.communicate()
    end = time.monotonic() + 20
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < end, "workers outlived their parent"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
