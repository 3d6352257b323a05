"""Joining a real cluster, and being refused by one."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray
from ray._private.grpc_utils import init_grpc_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from tune_smp.errors import ResourceError, SettingsError
from tune_smp.openmp import waiting
from tune_smp.tuning import worker_environment
from tune_smp.tuning.cluster import connected_ray
from tune_smp.tuning.gcs import ask_cluster, find_address

if TYPE_CHECKING:
    from tests.tuning.conftest import RunningCluster

SECONDS_TO_REFUSE = 10


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def refusal(address: str, **options: Any) -> str:
    """What joining is refused with; it must not take long."""
    started = time.monotonic()
    with pytest.raises(ResourceError) as error, connected_ray(address, **options):
        pass
    assert error.value.exit_code == 5
    assert time.monotonic() - started < SECONDS_TO_REFUSE
    assert not ray.is_initialized()
    return str(error.value)


def imports_of_a_worker() -> Callable[[], tuple[dict[str, str], list[str], bool]]:
    """What says how OpenMP's threads wait in a worker, and where it imports from."""
    return lambda: (dict(os.environ), sys.path, sys.flags.safe_path)


def test_workers_import_what_is_installed_and_neither_spin_nor_starve(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep)
    for name in (
        "OMP_WAIT_POLICY",
        "GOMP_SPINCOUNT",
        "PYTHONSAFEPATH",
        "RAY_worker_niceness",
    ):  # as in a script that torch was imported in first
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(worker_environment, "is_installed", lambda: False)
    with connected_ray(None, device="cpu"):
        assert "PYTHONSAFEPATH" not in os.environ, "the program's own environment is left as it was"
        assert os.environ["PYTHONPATH"] == os.pathsep
        environment, path, is_safe = ray.get(ray.remote(imports_of_a_worker()).remote(), timeout=30)
        own = ray.get(ray.remote(lambda: importlib.import_module("tune_smp").__file__).remote(), timeout=30)
        niceness = ray.get(ray.remote(lambda: os.nice(0)).remote(), timeout=30)
    assert niceness == os.nice(0)
    assert waiting({}).items() <= environment.items()
    assert is_safe
    assert not {"", str(tmp_path), str(Path(sys.argv[0]).resolve().parent)} & set(path)
    # Not installed, it is found alone, without what lies beside it.
    assert own.endswith("/package/tune_smp/__init__.py")
    assert path[0] == own.removesuffix("/tune_smp/__init__.py")


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265", "head", "head:", ":6379", "head:port"])
def test_an_address_of_another_form_is_refused_with_the_form(address: str) -> None:
    with pytest.raises(SettingsError, match="host:6379") as error:
        find_address(address)
    assert address in str(error.value)


def test_auto_means_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    assert find_address("auto") == "10.0.0.7:6379"
    assert find_address("10.0.0.8:6379") == "10.0.0.8:6379"


def test_a_cluster_that_is_not_there_is_told_at_once() -> None:
    address = f"127.0.0.1:{closed_port()}"
    assert f"no Ray cluster answers at {address}" in refusal(address)


def test_without_an_address_ray_is_our_own_and_for_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed_port()}")
    with connected_ray(None, device="cpu") as resources:
        (node,) = resources.nodes
        monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
        with pytest.raises(ResourceError, match="started by another program for itself"), connected_ray("auto"):
            pass
    assert (node.cpus, node.gpus) == (len(os.sched_getaffinity(0)), 0)
    assert resources.cpus == node.cpus


def test_a_joined_cluster_tells_its_nodes_and_goes_on_after_us(
    own_token: RunningCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = ask_cluster(own_token.address)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # as Ray does in jobs
    with connected_ray(own_token.address) as resources:
        environment, path, is_safe = ray.get(ray.remote(num_cpus=0)(imports_of_a_worker()).remote(), timeout=30)
        assert waiting(os.environ).items() <= environment.items()
        assert is_safe
        assert not {"", str(tmp_path), str(Path(sys.argv[0]).resolve().parent)} & set(path)
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert sorted(node.cpus for node in resources.nodes) == [1, 2]
    assert {node.id: node.address for node in resources.nodes} == before.nodes
    assert (resources.cpus, resources.gpus) == (3, 0)
    assert resources.dashboard_url == own_token.dashboard
    assert resources.notes == ()
    assert ask_cluster(own_token.address) == before


def test_a_cluster_that_is_open_to_all_is_joined_and_that_is_told(open_cluster: RunningCluster) -> None:
    with open_cluster.joinable(), connected_ray(open_cluster.address) as resources:
        assert ray.get(ray.remote(num_cpus=0)(lambda: 7).remote(), timeout=30) == 7
    (note,) = resources.notes
    assert note.startswith(f"the cluster at {open_cluster.address} asks for no token")


def test_auto_is_refused_where_it_could_mean_several(own_token: RunningCluster, open_cluster: RunningCluster) -> None:
    message = refusal("auto")
    assert "several Ray clusters run on this machine" in message
    for running in (own_token, open_cluster):
        assert running.address.rpartition(":")[2] in message


def test_no_gpu_in_the_cluster_is_told(own_token: RunningCluster) -> None:
    assert "the 2 nodes of the cluster have no GPU" in refusal(own_token.address, device="gpu")


def test_a_dashboard_is_no_cluster(own_token: RunningCluster) -> None:
    message = refusal(own_token.dashboard.removeprefix("http://"))
    assert "write http:// before it and add --submit" in message


def test_a_missing_token_is_told(own_token: RunningCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    message = refusal(own_token.address)
    assert f"the cluster at {own_token.address} asks for a token, and this side has none" in message
    assert "~/.ray/auth_token" in message


def test_a_token_file_that_is_not_there_is_named(own_token: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/no/such/file")
    assert "/no/such/file (RAY_AUTH_TOKEN_PATH)" in refusal(own_token.address)


def test_a_wrong_token_is_told_and_no_token_is_shown(
    own_token: RunningCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("f" * 32, "utf-8")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    message = refusal(own_token.address)
    assert f"the cluster at {own_token.address} does not take the token of this side" in message
    assert str(tmp_path / "token") in message
    assert "f" * 32 not in message
    assert own_token.token not in message


def test_a_forbidden_token_is_not_sent(own_token: RunningCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "RAY_AUTH_MODE=disabled forbids one" in refusal(own_token.address)


@pytest.fixture
def of_another_version(own_token: RunningCluster) -> Iterator[RunningCluster]:
    """The cluster, saying of itself that it runs another Ray and another Python."""
    ask_cluster(own_token.address)  # from here on the token is sent
    true = cluster_says(own_token.address, None)
    told = {**json.loads(true), "ray_version": "2.56.1", "python_version": "3.12.0"}
    cluster_says(own_token.address, json.dumps(told).encode())
    yield own_token
    cluster_says(own_token.address, true)


def cluster_says(address: str, value: bytes | None) -> bytes:
    """Read, or replace, what a cluster says of itself."""
    key = {"namespace": b"cluster", "key": b"CLUSTER_METADATA"}
    with init_grpc_channel(address) as channel:
        values = gcs_service_pb2_grpc.InternalKVGcsServiceStub(channel)
        if value is not None:
            values.InternalKVPut(gcs_service_pb2.InternalKVPutRequest(**key, value=value, overwrite=True))
        return bytes(values.InternalKVGet(gcs_service_pb2.InternalKVGetRequest(**key)).value)


def test_other_versions_are_told_with_both_sides(of_another_version: RunningCluster) -> None:
    message = refusal(of_another_version.address)
    assert f"Ray differ: {ray.__version__} here, 2.56.1 in the cluster" in message
    assert "Python differ: 3.11" in message or "here, 3.12.0 in the cluster" in message


JOIN = """
import sys
from tune_smp.openmp import waiting
from tune_smp.tuning import worker_environment
from tune_smp.tuning.cluster import connected_ray
with connected_ray(sys.argv[1]) as resources:
    print(len(resources.nodes))
"""


def test_joining_is_silent(own_token: RunningCluster) -> None:
    joined = run([sys.executable, "-c", JOIN, own_token.address])
    assert (joined.stdout, joined.stderr) == ("2\n", "")


def test_a_machine_outside_the_cluster_is_told_so(own_token: RunningCluster) -> None:
    """A process that sees no other process is on a machine without a node of the cluster."""
    alone = ["unshare", "--pid", "--fork", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not permit process namespaces")
    joined = run([*alone, sys.executable, "-c", JOIN, own_token.address])
    assert "this machine is none of the cluster" in joined.stderr
    assert "--submit" in joined.stderr


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
