"""What is found out before the first trial: nodes that are too small, and nodes that differ."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_smp.errors import Problem, ResourceError
from tune_smp.tuning.cluster import Node, connected_ray
from tune_smp.tuning.preflight import check_nodes, check_resources

if TYPE_CHECKING:
    from tests.tuning.conftest import RunningCluster

SMALL = Node("a" * 56, "10.0.0.6", cpus=4, gpus=0)
LARGE = Node("b" * 56, "10.0.0.7", cpus=16, gpus=2)


def test_the_nodes_that_can_hold_a_trial() -> None:
    assert check_resources([SMALL, LARGE], cpus=2, gpus=0) == (SMALL, LARGE)
    assert check_resources([SMALL, LARGE], cpus=2, gpus=0.5) == (LARGE,)
    assert check_resources([SMALL, LARGE], cpus=16, gpus=2) == (LARGE,)


def test_a_trial_that_fits_on_no_single_node_is_refused_with_what_each_has() -> None:
    with pytest.raises(ResourceError) as error:
        check_resources([SMALL, LARGE], cpus=1, gpus=4)
    assert error.value.exit_code == 5
    (problem,) = error.value.problems
    assert problem.problem == "no node can hold a trial with --gpusPerTrial 4 and --cpusPerTrial 1"
    assert problem.where == "node 10.0.0.6 has 0 GPUs and 4 CPUs, node 10.0.0.7 has 2 GPUs and 16 CPUs"


def test_what_two_nodes_have_together_does_not_count() -> None:
    with pytest.raises(ResourceError, match="--cpusPerTrial 6"):
        check_resources([SMALL, SMALL], cpus=6, gpus=0)


def test_a_cluster_without_nodes_is_refused() -> None:
    with pytest.raises(ResourceError, match="the cluster has no nodes"):
        check_resources([], cpus=1, gpus=0)


amounts = st.floats(0, 64)


@given(
    st.lists(st.builds(Node, st.text("0123456789abcdef", min_size=8), st.ip_addresses(v=4).map(str), amounts, amounts))
)
def test_whatever_is_returned_holds_the_trial_and_whatever_is_not_does_not(nodes: list[Node]) -> None:
    try:
        able = check_resources(nodes, cpus=2, gpus=1)
    except ResourceError:
        able = ()
    assert list(able) == [node for node in nodes if node.cpus >= 2 and node.gpus >= 1]


@dataclass(frozen=True)
class Folders:
    """Folders as a search has them: images that must be readable, and a storage."""

    images: Path
    storage: Path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    root = tmp_path_factory.mktemp("shared")
    found = Folders(root / "images", root / "storage")
    for folder in (found.images, found.storage):
        folder.mkdir()
    (found.images / "one.tif").touch()
    return found


def check(cluster: RunningCluster, folders: Folders, **options: float) -> tuple[Node, ...]:
    with connected_ray(cluster.address) as resources:
        check_nodes(resources.nodes, readable=[folders.images], storage=folders.storage, **options)
    return resources.nodes


def test_nodes_that_are_alike_pass_and_nothing_is_left_behind(own_token: RunningCluster, folders: Folders) -> None:
    assert len(check(own_token, folders)) == 2
    assert list(folders.storage.iterdir()) == []


def test_a_folder_that_is_missing_everywhere_is_not_a_difference_between_nodes(
    own_token: RunningCluster, folders: Folders
) -> None:
    """That is the driver's to tell, before it ever connects."""
    check(own_token, Folders(folders.images / "missing", folders.storage))


def test_a_storage_that_cannot_be_written_is_told_without_asking_the_nodes(folders: Folders) -> None:
    with pytest.raises(ResourceError, match=r"one\.tif"):
        check_nodes([SMALL], readable=[], storage=folders.images / "one.tif")


@pytest.fixture(scope="module")
def odd_node(
    cluster: RunningCluster, folders: Folders, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[psutil.Process]:
    """A third node: an old torch, a broken tune-smp, and where permitted folders of its own under the shared names."""
    installed = tmp_path_factory.mktemp("installed")
    for name in ("torch", "tune_smp"):
        metadata = installed / f"{name}-0.1.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n", "utf-8")
    (installed / "tune_smp.py").write_text("raise ImportError('broken')", "utf-8")
    before = own_folders(folders) if may_mount() else ()
    with cluster.another_node(before=before, environment={"PYTHONPATH": str(installed)}) as node:
        yield node


@dataclass(frozen=True)
class Refusal:
    """What was told of the odd node, and how long it took."""

    problems: tuple[Problem, ...]
    seconds: float

    def about(self, rule: str) -> Problem:
        (found,) = [problem for problem in self.problems if problem.problem.startswith(rule)]
        return found


@pytest.fixture(scope="module")
def refusal(cluster: RunningCluster, folders: Folders, odd_node: psutil.Process) -> Refusal:
    started = time.monotonic()
    with cluster.joinable(), pytest.raises(ResourceError) as error:
        check(cluster, folders)
    assert error.value.exit_code == 5
    return Refusal(error.value.problems, time.monotonic() - started)


def own_folders(folders: Folders) -> Sequence[str]:
    """A command line that runs what follows it where both folders are empty and its own."""
    mounts = " && ".join(f"mount -t tmpfs tmpfs {folder}" for folder in (folders.images, folders.storage))
    return ("unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh")


def may_mount() -> bool:
    attempt = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return (
        shutil.which("unshare") is not None and not subprocess.run(attempt, capture_output=True, check=False).returncode
    )


@pytest.mark.parametrize("name", ["torch", "tune-smp"])
def test_a_node_with_another_version_is_told_with_both_sides(refusal: Refusal, name: str) -> None:
    own = importlib.metadata.version(name)
    found = refusal.about(f"the versions of {name} differ: {own} here")
    assert re.fullmatch(r"node \S+ \([0-9a-f]{8}\) has 0\.1", found.where)


def test_a_node_with_other_files_is_told_with_both_sides(refusal: Refusal, folders: Folders) -> None:
    if not may_mount():
        pytest.skip("this machine does not permit file system namespaces")
    images = refusal.about(f"{folders.images} is not the same everywhere: 1 entries here")
    assert re.fullmatch(r"node \S+ \([0-9a-f]{8}\) has 0 entries", images.where)
    storage = refusal.about(f"the storage {folders.storage} is not shared")
    assert re.fullmatch(r"node \S+ \([0-9a-f]{8}\) cannot use it \(No such file or directory\)", storage.where)
    assert "--storagePath" in storage.fix


def test_a_refusal_takes_seconds_and_leaves_nothing_behind(refusal: Refusal, folders: Folders) -> None:
    assert refusal.seconds < 30
    assert list(folders.storage.iterdir()) == []


def test_a_node_that_does_not_answer_is_told_in_time(
    own_token: RunningCluster, folders: Folders, odd_node: psutil.Process
) -> None:
    with connected_ray(own_token.address) as resources:
        (raylet,) = [process for process in odd_node.children(recursive=True) if process.name() == "raylet"]
        raylet.suspend()
        started = time.monotonic()
        with pytest.raises(ResourceError) as error:
            check_nodes(resources.nodes, readable=[], storage=folders.storage, timeout_s=2)
        assert time.monotonic() - started < 10
    assert [problem.problem for problem in error.value.problems] == ["a node does not answer"]
    assert "gave no answer within 2 s" in str(error.value)
