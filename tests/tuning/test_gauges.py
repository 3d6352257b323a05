"""A trial's gauges on the metrics endpoint of a real Ray."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING

import ray

from tests.epochs import epoch_result
from tune_smp.tuning.cluster import connected_ray
from tune_smp.tuning.gauges import GaugeKeeper
from tune_smp.tuning.trial_record import TrialRecord

if TYPE_CHECKING:
    from tests.tuning.conftest import RunningCluster

# The cluster reports every second; a gauge that is not set anew within two reports is gone.
LIFETIME_S = 2.0
PATIENCE_S = 20.0


class Driver:
    """A process with the cluster's own settings, as a program on it has; this one reports every ten seconds."""

    def __init__(self) -> None:
        self._keeper = GaugeKeeper()

    def epoch_ended(self, trial: int, epoch: int, best_metric: float, *, steps: int) -> None:
        result = epoch_result(epoch, best_metric, seconds=2.0)
        result["used"] = {**result["used"], "stepsPerEpoch": steps, "batchSize": 10}
        self._keeper.epoch_ended(trial, result)

    def trial_ended(self, trial: int) -> None:
        self._keeper.trial_ended(TrialRecord(trial, "completed", {}, 2), "")

    def search_ended(self) -> None:
        self._keeper.search_ended("completed")


def shown() -> dict[tuple[str, str], float]:
    """Value by gauge and trial, over all nodes."""
    found = {}
    for node in ray.nodes():
        page = urllib.request.urlopen(
            f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=5
        )
        for name, trial, value in re.findall(
            r'^ray_tune_smp_(\w+)\{.*trial="(\d+)".*\} (\S+)$', page.read().decode(), re.M
        ):
            found[name, trial] = float(value)
    return found


def wait_for(state: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if state():
            return True
        time.sleep(0.2)
    return False


def test_gauges_stay_while_a_trial_runs_and_go_with_it(own_token: RunningCluster) -> None:
    with connected_ray(own_token.address):
        driver = ray.remote(num_cpus=0)(Driver).remote()
        ray.get(driver.epoch_ended.remote(3, 2, 0.5, steps=18), timeout=30)
        third = {("epoch", "3"): 2.0, ("best_metric", "3"): 0.5, ("tiles_per_second", "3"): 90.0}
        assert wait_for(lambda: shown() == third)
        time.sleep(1.5 * LIFETIME_S)
        assert shown() == third, "an epoch longer than Ray's memory leaves no gap"

        ray.get(driver.epoch_ended.remote(4, 1, 0.25, steps=16), timeout=30)
        assert wait_for(lambda: {trial for _, trial in shown()} == {"3", "4"})
        ray.get(driver.trial_ended.remote(3), timeout=30)
        assert wait_for(lambda: {trial for _, trial in shown()} == {"4"})
        ray.get(driver.search_ended.remote(), timeout=30)
        assert wait_for(lambda: shown() == {})
