"""A trial's gauges on the metrics endpoint of a real Ray."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray

from tune_smp.tuning.cluster import connected_ray
from tune_smp.tuning.gauges import TrialGauges

if TYPE_CHECKING:
    from tests.tuning.conftest import RunningCluster

# The cluster reports every second; a gauge that is not set anew within two reports is gone.
LIFETIME_S = 2.0
PATIENCE_S = 20.0


class Worker:
    """A process that runs one trial after the other, as a worker of the search does."""

    def __init__(self) -> None:
        self._gauges: TrialGauges | None = None

    def update(self, trial: int, **values: Any) -> None:
        if self._gauges is not None:
            self._gauges.forget()
        self._gauges = TrialGauges(trial)
        self._gauges.update(**values)

    def forget(self) -> None:
        assert self._gauges is not None
        self._gauges.forget()


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
        worker = ray.remote(num_cpus=0)(Worker).remote()
        ray.get(worker.update.remote(3, epoch=2, best_metric=0.5, tiles_per_second=90.5), timeout=30)
        third = {("epoch", "3"): 2.0, ("best_metric", "3"): 0.5, ("tiles_per_second", "3"): 90.5}
        assert wait_for(lambda: shown() == third)
        time.sleep(1.5 * LIFETIME_S)
        assert shown() == third, "an epoch longer than Ray's memory leaves no gap"

        ray.get(worker.update.remote(4, epoch=1, best_metric=0.25, tiles_per_second=80), timeout=30)
        assert wait_for(lambda: {trial for _, trial in shown()} == {"4"}), "the next trial of the process replaces it"

        ray.get(worker.forget.remote(), timeout=30)
        assert wait_for(lambda: shown() == {})
