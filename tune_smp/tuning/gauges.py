"""Gauges of every trial on Ray's own metrics endpoint, for a monitor outside to draw."""

from __future__ import annotations

import threading
from functools import cache

from ray.util.metrics import Gauge
from typing_extensions import override

from tune_smp.tuning.listeners import EpochResult, Listener
from tune_smp.tuning.trial_record import TrialRecord

DESCRIPTIONS = {
    "tune_smp_epoch": "epochs that the trial has finished",
    "tune_smp_best_metric": "best validation metric of the trial so far",
    "tune_smp_tiles_per_second": "training tiles per second in the last epoch",
}
# A cluster may be set to report as often as every second.
REFRESH_S = 0.5


@cache
def _gauge(name: str) -> Gauge:
    """One per process: Ray takes a gauge made twice for two."""
    return Gauge(name, description=DESCRIPTIONS[name], tag_keys=("trial",))


class GaugeKeeper(Listener):
    """Sets the gauges of the trials that run.

    Ray drops a gauge that is not set anew within two of its reports (20 s), and an epoch may take minutes: a thread
    sets the last values again, until the search has ended.
    """

    def __init__(self) -> None:
        self._values: dict[int, tuple[float, ...]] = {}  # by trial, in the order of DESCRIPTIONS
        self._over = threading.Event()
        self._refresh = threading.Thread(target=self._keep_alive, name="gauges", daemon=True)

    @override
    def epoch_ended(self, number: int, result: EpochResult) -> None:
        tiles = result["used"]["stepsPerEpoch"] * result["used"]["batchSize"]
        pace = tiles / max(result["seconds"], 1e-9)
        self._values[number] = (result["trial_epoch"], result["best_metric"], pace)
        self._set(number)
        if self._refresh.ident is None:
            self._refresh.start()

    @override
    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        self._values.pop(record.number, None)

    @override
    def search_ended(self, ending: str) -> None:
        self._over.set()

    def _set(self, number: int) -> None:
        for name, value in zip(DESCRIPTIONS, self._values.get(number, ()), strict=False):
            _gauge(name).set(value, tags={"trial": str(number)})

    def _keep_alive(self) -> None:
        while not self._over.wait(REFRESH_S):
            for number in list(self._values):
                self._set(number)
