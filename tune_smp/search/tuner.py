"""Ray's Tuner around one trial; what comes out leaves as our own records."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from tune_smp.errors import Problem, ResourceError, TuneSmpError
from tune_smp.search.outcome import TrialOutcome
from tune_smp.search.stopping import LastEpochs, orderly_stop
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
    on_stop: Callable[[], None],
) -> TrialOutcome:
    """Train one fixed configuration to its end.

    ``storage/name`` is where Ray keeps its files and the checkpoints. Ctrl-C and SIGTERM end the trial in order, after
    a call of ``on_stop``: its state is then ``interrupted``.

    Raises ResourceError when the disk is full, and what ``on_epoch`` raises of ours.
    """
    last = LastEpochs()
    watcher = _Watcher(on_epoch, last)
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
            stop=last,
            callbacks=[watcher],
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=CHECKPOINTS_KEPT),
        ),
    )
    try:
        with orderly_stop(last, on_stop):
            results = tuner.fit()
    except tune.TuneError as error:
        # Ray turns what its callbacks raise, and what it meets itself, into text.
        if watcher.error is not None:
            raise watcher.error from error
        if is_full_disk(error):
            raise disk_full(storage) from error
        raise
    return _outcome(results[0], storage)


def is_full_disk(error: Exception) -> bool:
    """Whether this error of Ray's means that the disk is full."""
    # Ray hands errors on as text; the second is what training.checkpoint says where torch's own writer met the end.
    return any(sign in str(error) for sign in (f"Errno {errno.ENOSPC}", "the checkpoint cannot be written"))


def disk_full(storage: Path) -> ResourceError:
    """What is told then."""
    return ResourceError(Problem("the disk is full", str(storage), "free some space, then: tune-smp resume"))


def _outcome(result: tune.Result, storage: Path) -> TrialOutcome:
    if result.error is not None and is_full_disk(result.error):
        return TrialOutcome("failed", refusal=disk_full(storage))
    if result.error is not None:
        return TrialOutcome("failed", reason=failure_reason(str(result.error)))
    last = result.metrics or {}
    if "refusal" in last:
        return TrialOutcome("failed", refusal=refusal_from_plain(last["refusal"]))
    # A trial that was interrupted before its first epoch has no result at all.
    return TrialOutcome(last.get("stop") or "interrupted")


def failure_reason(text: str) -> str:
    """What happened, in a line, from the tracebacks that Ray keeps of a trial that failed for good."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last_try = "\n".join(lines[_last_start(lines) :])
    for phrase, reason in _DEATHS.items():
        if phrase in last_try:
            return reason
    return lines[-1] if lines else "unknown"


# Ray tells the death of a worker or its node in a paragraph, whose last line is the least of it.
_DEATHS = {
    "its worker process has died": "its worker process has died: killed, or out of the machine's memory",
    "its node has died": "its node has died",
}


def _last_start(lines: Sequence[str]) -> int:
    """Where the last traceback begins: Ray adds them up, each below a line of its own."""
    return max((number for number, line in enumerate(lines) if line.startswith("Failure #")), default=0)


class _Watcher(tune.Callback):
    """Hands every epoch's result on, in the driver."""

    def __init__(self, on_epoch: Callable[[EpochResult], None], last: LastEpochs) -> None:
        self._on_epoch: Callable[[EpochResult], None] | None = on_epoch
        self._last = last
        self.error: TuneSmpError | None = None

    def on_trial_result(self, **info: Any) -> None:
        """Called by Ray after every step of the trial."""
        if self._on_epoch is None or "refusal" in info["result"]:
            return
        try:
            self._on_epoch(info["result"])
        except TuneSmpError as error:
            self.error = error
            raise

    def on_trial_start(self, **info: Any) -> None:
        """Called by Ray when the trial gets a worker."""
        self._last.began(info["trial"].trial_id)

    def on_trial_complete(self, **info: Any) -> None:
        """Called by Ray when the trial ended."""
        self._last.ended(info["trial"].trial_id)

    def on_trial_error(self, **info: Any) -> None:
        """Called by Ray when the trial failed for good."""
        self._last.ended(info["trial"].trial_id)

    def on_trial_recover(self, **_: Any) -> None:
        """Called by Ray when a worker died or failed, and the trial starts again."""
        logger.warning("the worker failed; the trial resumes from its last checkpoint")

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles its callbacks with the Tuner; a live display is nothing to keep.
        return {"_on_epoch": None, "_last": LastEpochs(), "error": None}
