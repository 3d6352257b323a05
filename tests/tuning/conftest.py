"""Real clusters on this machine, started with ``ray start`` and ended by process id."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray

from tune_smp.errors import ResourceError
from tune_smp.tuning.gcs import ask_cluster

RAY = str(Path(sys.executable).parent / "ray")
TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
TOKEN = "0123456789abcdef" * 2
START_TIMEOUT_S = 60


@dataclass(frozen=True)
class RunningCluster:
    """Where the cluster is, and how another node of it is started."""

    address: str
    dashboard: str
    token: str
    environment: Mapping[str, str]
    folder: Path

    @contextlib.contextmanager
    def another_node(
        self, *, before: Sequence[str] = (), resources: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Iterator[psutil.Process]:
        """A further node; ``before`` is a command line that ends by running what follows it."""
        command = [*before, RAY, "start", f"--address={self.address}", "--num-cpus=1", *resources, *_ports(), "--block"]
        with self.joinable():
            known = len(ask_cluster(self.address).nodes)
        with _running(command, {**self.environment, **(environment or {})}, self.folder / f"node_{known}.log") as node:
            with self.joinable():
                _wait(node, lambda: len(ask_cluster(self.address).nodes) > known, self.folder)
            yield node

    @contextlib.contextmanager
    def joinable(self) -> Iterator[pytest.MonkeyPatch]:
        """This process has the cluster's token in its environment, and no other word of any cluster."""
        with pytest.MonkeyPatch.context() as patched:
            for name in TOKEN_VARIABLES:
                patched.delenv(name, raising=False)
            patched.setenv("RAY_AUTH_TOKEN_PATH", self.environment["RAY_AUTH_TOKEN_PATH"])
            _read_environment_anew()
            try:
                yield patched
            finally:
                patched.undo()
                _read_environment_anew()


@pytest.fixture
def own_token(cluster: RunningCluster) -> Iterator[RunningCluster]:
    """The cluster, with its token in this process's environment while the test runs."""
    with cluster.joinable():
        yield cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[RunningCluster]:
    """Two nodes, two cores and one core, no GPU, behind a token; metrics are reported every second."""
    environment = {"RAY_AUTH_MODE": "token", "RAY_metrics_report_interval_ms": "1000"}
    with _started_head(environment) as found, found.another_node():
        yield found


@pytest.fixture(scope="module")
def open_cluster() -> Iterator[RunningCluster]:
    """One node that asks nobody for a token."""
    with _started_head({"RAY_AUTH_MODE": "disabled"}, "--include-dashboard=false") as found:
        yield found


class NotStartedError(Exception):
    """What a node that did not start has written so far, and how its processes fare."""


@contextlib.contextmanager
def _started_head(environment: Mapping[str, str], *options: str) -> Iterator[RunningCluster]:
    """A head; another where the first does not start: a port that was free may be another program's by then."""
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(_head(environment, *options))
        except NotStartedError as reason:
            warnings.warn(f"a second try, since {reason}", stacklevel=2)
            found = stack.enter_context(_head(environment, *options))
        yield found


@contextlib.contextmanager
def _head(environment: Mapping[str, str], *options: str) -> Iterator[RunningCluster]:
    folder = Path(tempfile.mkdtemp(prefix="smp-", dir="/tmp"))  # sockets need a short path
    (folder / "token").write_text(TOKEN, "utf-8")
    environment = {
        **{name: value for name, value in os.environ.items() if name not in TOKEN_VARIABLES},
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_memory_monitor_refresh_ms": "0",
        **environment,
    }
    gcs, dashboard, client = _free_ports(3)
    command = [
        *(RAY, "start", "--head", "--num-cpus=2", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
        *(f"--temp-dir={folder / 'ray'}", *_ports(), *options),
    ]
    found = RunningCluster(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", TOKEN, environment, folder)
    try:
        with _running(command, environment, folder / "head.log") as head:
            with found.joinable():
                _wait(head, lambda: bool(ask_cluster(found.address).nodes), folder)
            yield found
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_environment_anew() -> None:
    """Ray reads it once per process."""
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def _ports() -> Sequence[str]:
    return ("--num-gpus=0", "--object-store-memory=80000000", "--dashboard-agent-listen-port=0")


@contextlib.contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[psutil.Process]:
    with log.open("wb") as output:
        started = psutil.Popen(command, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
    family: list[psutil.Process] = []
    try:
        yield started
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = [started, *started.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)


def _wait(started: psutil.Process, ready: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and started.is_running() and started.status() != psutil.STATUS_ZOMBIE:
        with contextlib.suppress(ResourceError):
            if ready():
                return
        time.sleep(0.1)
    raise NotStartedError(f"the cluster did not start within {START_TIMEOUT_S} s:\n{_state(started, folder)}")


def _state(started: psutil.Process, folder: Path) -> str:
    lines = []
    with contextlib.suppress(psutil.NoSuchProcess):
        lines = [f"{p.name()} {p.status()} {p.cpu_times()}" for p in (started, *started.children(recursive=True))]
    logs = [*folder.glob("*.log"), *folder.glob("ray/session_[0-9]*/logs/gcs_server.*")]
    return "\n".join([*lines, *(f"{path.name}:\n{path.read_text('utf-8')[-2000:]}" for path in logs)])


def _free_ports(count: int) -> list[int]:
    """Below Ray's own ports for workers, which start at 10002; others than those of the tests beside these."""
    free: list[int] = []
    for port in range(7000 + os.getpid() * 50 % 2900, 10000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            free.append(port)
        if len(free) == count:
            break
    return free
