"""Commands sent to a real cluster as Ray Jobs."""

from __future__ import annotations

import contextlib
import http.server
import shlex
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from tune_smp.errors import ResourceError
from tune_smp.tuning.submit import find_dashboard, submit_and_follow

if TYPE_CHECKING:
    from tests.tuning.conftest import RunningCluster

# Words as a shell would take them apart.
AWKWARD = "two words; $(false) 'quoted' \"twice\""


def test_the_dashboard_is_found_by_the_cluster_too(own_token: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_dashboard(own_token.address) == own_token.dashboard
    assert find_dashboard(f"{own_token.dashboard}/") == own_token.dashboard
    monkeypatch.setenv("RAY_ADDRESS", own_token.address)
    assert find_dashboard("auto") == own_token.dashboard


def test_a_command_runs_there_and_its_lines_and_exit_code_come_back(
    own_token: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")  # what is named on the command line counts
    program = "import os, sys; print(sys.argv[1]); print(os.environ['RAY_ADDRESS']); sys.exit(3)"
    lines: list[str] = []
    code = submit_and_follow([sys.executable, "-c", program, AWKWARD], address=own_token.dashboard, write=lines.append)
    assert code == 3
    assert lines[0].startswith(f"sent to {own_token.dashboard} as raysubmit_")
    assert AWKWARD in lines
    # So that --address auto means the cluster that the command was sent to.
    assert lines[-1].endswith(own_token.address.rpartition(":")[2])


def test_the_address_of_nobody_is_told(own_token: RunningCluster) -> None:
    for address in ("http://127.0.0.1:1", "127.0.0.1:1"):
        with pytest.raises(ResourceError, match=r"127\.0\.0\.1:1") as error:
            submit_and_follow(["true"], address=address, write=print)
        assert error.value.exit_code == 5


def test_a_wrong_token_is_told_and_not_shown(
    own_token: RunningCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("f" * 32, "utf-8")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(ResourceError, match="does not take the token of this side") as error:
        submit_and_follow(["true"], address=own_token.dashboard, write=print)
    assert "f" * 32 not in str(error.value)


def test_a_missing_token_is_told(own_token: RunningCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ResourceError, match="asks for a token, and this side has none"):
        submit_and_follow(["true"], address=own_token.dashboard, write=print)


def test_another_web_page_is_no_dashboard(own_token: RunningCluster) -> None:
    with web_server() as url, pytest.raises(ResourceError, match="is no Ray dashboard"):
        submit_and_follow(["true"], address=url, write=print)


@contextlib.contextmanager
def web_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


FOLLOW = """
import signal, sys
from tune_smp.errors import InterruptedRunError
from tune_smp.tuning.submit import submit_and_follow
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
try:
    submit_and_follow(sys.argv[2:], address=sys.argv[1], write=lambda line: print(line, flush=True))
except InterruptedRunError as error:
    print(error)
    sys.exit(error.exit_code)
"""
# Takes longer to end than Ray gives a job by itself (3 s).
PATIENT = """
import pathlib, signal, sys, time
def end(*_):
    time.sleep(4)
    pathlib.Path(sys.argv[1]).touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("running")
time.sleep(120)
"""


def test_ctrl_c_leaves_the_job_running_and_a_stopped_job_may_end_in_order(
    own_token: RunningCluster, tmp_path: Path
) -> None:
    ended = tmp_path / "ended in order"
    command = [sys.executable, "-c", textwrap.dedent(PATIENT), str(ended)]
    follower = subprocess.Popen(
        [sys.executable, "-c", FOLLOW, own_token.dashboard, *command], stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    job_id = follower.stdout.readline().split()[-1]
    while follower.stdout.readline() != "running\n":
        assert follower.poll() is None
    follower.send_signal(signal.SIGINT)
    message, _ = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert f"RAY_AUTH_MODE=token ray job stop --address {own_token.dashboard} {job_id}" in message
    assert f"ray job logs --follow --address {own_token.dashboard} {job_id}" in message

    find_dashboard(own_token.dashboard)  # from here on the token is sent
    jobs = JobSubmissionClient(own_token.dashboard)
    assert jobs.get_job_status(job_id) == JobStatus.RUNNING
    assert shlex.join(command) in jobs.get_job_info(job_id).entrypoint
    jobs.stop_job(job_id)
    deadline = time.monotonic() + 30
    while not jobs.get_job_status(job_id).is_terminal() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert jobs.get_job_status(job_id) == JobStatus.STOPPED
    assert ended.exists()
