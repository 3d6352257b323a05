"""What a monitor outside can draw of a search: gauges of every trial, on Ray's own metrics endpoint."""

from __future__ import annotations

import threading
from functools import cache

import ray
from ray.util.metrics import Gauge

DESCRIPTIONS = {
    "tune_smp_epoch": "epochs that the trial has finished",
    "tune_smp_best_metric": "best validation metric of the trial so far",
    "tune_smp_tiles_per_second": "training tiles per second in the last epoch",
}


@cache
def _gauge(name: str) -> Gauge:
    """One per process: a worker goes from trial to trial, and Ray takes a gauge made twice for two."""
    return Gauge(name, description=DESCRIPTIONS[name], tag_keys=("trial",))


class TrialGauges:
    """The gauges of one trial, set from the worker process that runs it.

    Ray drops a gauge that is not set anew within two of its reports (20 s), and an epoch may take minutes: a thread
    sets the last values again until ``forget``.
    """

    def __init__(self, trial: int) -> None:
        self._tags = {"trial": str(trial)}
        self._values: dict[str, float] = {}
        self._forgotten = threading.Event()
        self._refresh = threading.Thread(target=self._keep_alive, name=f"gauges of trial {trial}", daemon=True)

    def update(self, *, epoch: int, best_metric: float, tiles_per_second: float) -> None:
        """Show the trial as it stands after an epoch."""
        self._values = dict(zip(DESCRIPTIONS, (epoch, best_metric, tiles_per_second), strict=True))
        self._set()
        if self._refresh.ident is None:
            self._refresh.start()

    def forget(self) -> None:
        """Let the trial's gauges disappear: it has ended, or another one begins in this process."""
        self._forgotten.set()

    def _set(self) -> None:
        for name, value in self._values.items():
            _gauge(name).set(value, tags=self._tags)

    def _keep_alive(self) -> None:
        report_interval_s = ray._config.metrics_report_interval_ms() / 1000
        while not self._forgotten.wait(report_interval_s):
            self._set()
