"""Ray's Tuner around one trial; what comes out leaves as our own records."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from ray import tune

from tune_smp.errors import Problem, ResourceError
from tune_smp.search.outcome import TrialOutcome
from tune_smp.search.trainable import SmpTrainable, TrialConfig, refusal_from_plain

logger = logging.getLogger(__name__)

# A worker that dies is started again from its last checkpoint this many times.
RETRIES = 2
# The one being written and the one before it: a kill in the middle of a write leaves a whole one.
CHECKPOINTS_KEPT = 2

EpochResult = Mapping[str, Any]


def run_single(
    config: TrialConfig,
    *,
    storage: Path,
    name: str,
    on_epoch: Callable[[EpochResult], None],
) -> TrialOutcome:
    """Train one fixed configuration to its end.

    ``storage/name`` is where Ray keeps its files and the checkpoints. Ctrl-C and SIGTERM end the trial in order: its
    state is then ``interrupted``.
    """
    watcher = _Watcher(on_epoch)
    tuner = tune.Tuner(
        SmpTrainable,
        param_space=config.as_ray_config(),
        tune_config=tune.TuneConfig(
            num_samples=1,
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(storage),
            verbose=0,
            callbacks=[watcher],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=CHECKPOINTS_KEPT),
        ),
    )
    with _terminable():
        results = tuner.fit()
    return _outcome(results[0])


def _outcome(result: tune.Result) -> TrialOutcome:
    if result.error is not None and f"Errno {errno.ENOSPC}" in str(result.error):
        fix = "free some space, then: tune-smp resume"
        return TrialOutcome("failed", refusal=ResourceError(Problem("the disk is full", "--outputDir", fix)))
    if result.error is not None:
        return TrialOutcome("failed", reason=_last_line(str(result.error)))
    last = result.metrics or {}
    if "refusal" in last:
        return TrialOutcome("failed", refusal=refusal_from_plain(last["refusal"]))
    # A trial that was interrupted before its first epoch has no result at all.
    return TrialOutcome(last.get("stop") or "interrupted")


def _last_line(text: str) -> str:
    """The line of a traceback that says what happened."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "unknown"


class _Watcher(tune.Callback):
    """Hands every epoch's result on, in the driver."""

    def __init__(self, on_epoch: Callable[[EpochResult], None]) -> None:
        self._on_epoch: Callable[[EpochResult], None] | None = on_epoch

    def on_trial_result(self, **info: Any) -> None:
        """Called by Ray after every step of the trial."""
        if self._on_epoch is not None and "refusal" not in info["result"]:
            self._on_epoch(info["result"])

    def on_trial_recover(self, **_: Any) -> None:
        """Called by Ray when a worker died and the trial starts again."""
        logger.warning("the worker died; going on from the last checkpoint")

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles its callbacks with the Tuner; a live display is nothing to keep.
        return {"_on_epoch": None}


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a trial in order, as Ctrl-C does: Ray itself listens to SIGINT alone."""

    def as_interrupt(_signal: int, _frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, as_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
