"""A whole search on a real cluster of three nodes, of which one dies on the way, while another one joins late."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from optuna.storages.journal import JournalFileBackend

from tune_smp.data.synthetic import write_nuclei
from tune_smp.results.folder import read_csv, read_json
from tune_smp.tuning.gcs import ask_cluster

SPACE = """
fixed: {maxEpochs: 4, stepsPerEpoch: 6, tileSize: 64, batchSize: 4, device: cpu,
        encoderBaseVariantWeights: "Test,tu-test_efficientnet,random"}
search:
  learningRate: {low: 1e-4, high: 3e-2, log: true}
  lossName: [JaccardLoss, DiceLoss, FocalLoss]
"""
TRIALS = 10
PATIENCE_S = 240


def arguments(folder: Path, address: str, *extra: str) -> Sequence[str]:
    (folder / "space.yaml").write_text(SPACE, "utf-8")
    return (
        *(sys.executable, "-m", "tune_smp", "search", f"--imagesDir={folder}", f"--labelsDir={folder}"),
        *("--imagesPattern=.*", "--labelsPattern=.*", "--segmentationMode=binary", "--dashboard=false"),
        *(f"--searchSpace={folder / 'space.yaml'}", f"--outputDir={folder / 'out'}", f"--address={address}"),
        *("--storagePath", str(folder / "storage"), "--scheduler=none", "--debug", *extra),
    )


def own_cache(cache: Path) -> Sequence[str]:
    """A command line that runs what follows it where the driver's cache cannot be seen, as on another machine."""
    return ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs tmpfs {cache} && exec "$@"', "sh")


def only_live_nodes(cluster: Any, count: int) -> None:
    """Wait until the cluster has noticed that nodes of earlier tests are dead: a node that is silent is refused."""
    deadline = time.monotonic() + PATIENCE_S
    with cluster.joinable():
        while len(ask_cluster(cluster.address).nodes) != count:
            assert time.monotonic() < deadline, "dead nodes stay in the cluster's list"
            time.sleep(0.5)


def wait_for(condition: Callable[[], bool], search: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert search.poll() is None, search.communicate()
        assert time.monotonic() < deadline, "the search does not get on"
        time.sleep(0.2)


def ended(folder: Path) -> int:
    """Trials of which an epoch is in the table of histories, four each: those that ended."""
    histories = (folder / "out" / "trials" / "histories").glob("*.csv")
    return sum(len(read_csv(path)) == 4 for path in histories)


@pytest.mark.slow
@pytest.mark.timeout(3 * PATIENCE_S)
def test_a_node_dies_and_another_joins(cluster: Any, tmp_path: Path) -> None:
    write_nuclei(tmp_path, count=8, size=[(96, 96)], seed=3)
    cache, late_cache = tmp_path / "cache", tmp_path / "late"
    cache.mkdir()
    environment = {**cluster.environment, "TUNE_SMP_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    may_mount = (
        shutil.which("unshare")
        and not subprocess.run(
            ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, check=False
        ).returncode
    )
    before = own_cache(cache) if may_mount else ()

    with cluster.another_node() as third:
        only_live_nodes(cluster, 3)
        command = arguments(tmp_path, cluster.address, f"--numTrials={TRIALS}")
        search = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: ended(tmp_path) >= 1, search)
            for process in [*third.children(recursive=True), third]:
                process.kill()
            psutil.wait_procs([third], timeout=10)
            late_environment = {"TUNE_SMP_CACHE": str(late_cache)}
            with cluster.another_node(before=before, environment=late_environment):
                output, errors = search.communicate(timeout=PATIENCE_S)
        finally:
            search.kill()

    assert search.returncode == 0, output + errors
    summary, rows = read_json(tmp_path / "out" / "summary.json"), read_csv(tmp_path / "out" / "trials.csv")
    assert summary["trials"] == {"completed": TRIALS}, output
    assert sorted(int(row["trial"]) for row in rows) == list(range(TRIALS))
    for number in range(TRIALS):
        history = read_csv(tmp_path / "out" / "trials" / "histories" / f"trial_{number:05d}.csv")
        assert [row["epoch"] for row in history] == ["1", "2", "3", "4"], "no epoch is missing or doubled"
    assert all(trial.state.is_finished() for trial in study_in(tmp_path / "out"))
    if may_mount:
        assert list(late_cache.rglob("*.npy")) or any(late_cache.iterdir()), "the late node ran nothing"


def test_what_no_node_has_is_refused_at_once(cluster: Any, tmp_path: Path) -> None:
    write_nuclei(tmp_path, count=4, size=[(96, 96)], seed=3)
    started = time.monotonic()
    done = subprocess.run(
        arguments(tmp_path, cluster.address, "--gpusPerTrial=1"),
        env={**cluster.environment, "TUNE_SMP_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 5, done.stdout + done.stderr
    assert "--gpusPerTrial" in done.stderr
    assert time.monotonic() - started < 30


def study_in(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    (name,) = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=name, storage=storage).trials
