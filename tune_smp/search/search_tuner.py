"""Ray's Tuner around a whole search: asks the study, runs the trials, and tells the study how each ended."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.schedulers import TrialScheduler

from tune_smp.choices.states import trial_state
from tune_smp.errors import OutOfMemoryError, TuneSmpError
from tune_smp.search.checkpoints import BestKept, remove_older, trial_folder
from tune_smp.search.outcome import TrialRecord
from tune_smp.search.pruning import EPOCH, METRIC, remember, replay
from tune_smp.search.sampler import StudySearcher
from tune_smp.search.stopping import LastEpochs, orderly_stop
from tune_smp.search.study import AskedTrial, Study
from tune_smp.search.trainable import SmpTrainable, TrialConfig, refusal_from_plain
from tune_smp.search.tuner import CHECKPOINTS_KEPT, RETRIES, disk_full, failure_reason, is_full_disk

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How long a search goes on, and what it may use.

    ``trials`` in all, those of earlier sessions too; ``room`` says how many may run at once, as nodes come and go;
    ``time_budget_s`` is for this session. ``storage/name`` is where Ray keeps its files and the checkpoints.
    """

    trials: int
    scheduler: TrialScheduler
    storage: Path
    name: str
    room: Callable[[], int]
    time_budget_s: float | None = None


class SearchListener(Protocol):
    """Who wants to know what happens, in the driver."""

    def started(self, number: int, flags: Mapping[str, Any], max_epochs: int) -> None:
        """A trial begins, or goes on from an earlier session."""

    def epoch_ended(self, number: int, result: Mapping[str, Any]) -> None:
        """A trial ended an epoch."""

    def requeued(self, number: int) -> None:
        """The worker of a trial died, and the trial goes on from its last checkpoint."""

    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        """A trial ended; one that failed with its traceback, where there is one."""

    def stopping(self) -> None:
        """The search ends after the epochs under way: Ctrl-C or SIGTERM. Called in a thread of its own."""


def run_search(
    study: Study,
    plan: SearchPlan,
    config_of: Callable[[AskedTrial], TrialConfig],
    listener: SearchListener,
) -> str:
    """Run trials until there are enough of them; say how it ended: completed, out_of_time or interrupted.

    Trials that an earlier session left unfinished go on first. Ctrl-C and SIGTERM end the search in order. Trials that
    have then not ended wait in the study for the next session.

    Raises ResourceError when the disk is full, and what ``listener`` raises of ours.
    """
    study.requeue()
    kept = BestKept(plan.storage / plan.name)
    ended = [record for record in study.records() if trial_state(record.state).has_ended]
    remember(plan.scheduler, ended)
    kept.ended(*ended)
    if study.ended() >= plan.trials:
        return "completed"

    deadline = _Deadline(plan.time_budget_s)
    watcher = _Watcher(study, listener, kept, deadline)
    tuner = _tuner(study, plan, config_of, callbacks=[watcher], stop=deadline)
    try:
        with orderly_stop(deadline, listener.stopping):
            tuner.fit()
    except tune.TuneError as error:
        # Ray turns what its callbacks raise, and what it meets itself, into text.
        if watcher.error is not None:
            raise watcher.error from error
        if is_full_disk(error):
            raise disk_full(plan.storage) from error
        raise
    finally:
        watcher.leave_unfinished()
        study.requeue()
    if study.ended() >= plan.trials:
        return "completed"
    return "out_of_time" if deadline.is_over() else "interrupted"


def _tuner(
    study: Study,
    plan: SearchPlan,
    config_of: Callable[[AskedTrial], TrialConfig],
    *,
    callbacks: list[tune.Callback],
    stop: LastEpochs,
) -> tune.Tuner:
    def config(trial_id: str, asked: AskedTrial) -> dict[str, Any]:
        replay(plan.scheduler, trial_id, asked.curve)
        return config_of(asked).as_ray_config()

    def room() -> int:
        return 0 if stop.asked else plan.room()

    return tune.Tuner(
        SmpTrainable,
        tune_config=tune.TuneConfig(
            search_alg=StudySearcher(study, config, metric=METRIC, trials=plan.trials, room=room),
            scheduler=plan.scheduler,
            num_samples=plan.trials - study.ended(),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial_folder(trial.config['trial'].number)}{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=plan.name,
            storage_path=str(plan.storage),
            verbose=0,
            stop=stop,
            callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            # Without num_to_keep: with it Ray writes its record of all trials at every second checkpoint of each, a
            # third of the driver's time, and nothing reads it. The watcher removes the older checkpoints.
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
        ),
    )


class _Deadline(LastEpochs):
    """Ends everything when the time budget is used up, too."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        self._until = None if seconds is None else time.monotonic() + seconds

    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._until is not None and time.monotonic() >= self._until

    def stop_all(self) -> bool:
        """Called by Ray all the time."""
        return self.is_over() or super().stop_all()


class _Watcher(tune.Callback):
    """Tells the study and the listener what happens to each trial, in the driver."""

    def __init__(self, study: Study, listener: SearchListener, kept: BestKept, last: LastEpochs) -> None:
        self._last = last
        self._study = study
        self._listener = listener
        self._kept = kept
        self._seconds: dict[int, float] = {}
        self.error: TuneSmpError | None = None

    def on_trial_start(self, **info: Any) -> None:
        """Called by Ray when a trial gets a worker, also after a crash."""
        number = _number(info["trial"])
        self._last.began(info["trial"].trial_id)
        if number not in self._seconds:
            self._seconds[number] = 0.0
            record = self._study.record(number)
            self._listener.started(number, record.flags, record.max_epochs)

    def on_trial_result(self, **info: Any) -> None:
        """Called by Ray after every step of a trial."""
        number, result = _number(info["trial"]), info["result"]
        if "refusal" in result:
            return
        self._seconds[number] = result["run_seconds"]
        if self._study.report(number, result[EPOCH], result[METRIC]):
            # Failures count anew after every new epoch: nodes may come and go all day, while the trial gets on.
            info["trial"].run_metadata.num_failures = 0
        with self._keeping_errors():
            self._listener.epoch_ended(number, result)

    def on_checkpoint(self, **info: Any) -> None:
        """Called by Ray when a checkpoint of a trial is written."""
        remove_older(Path(info["checkpoint"].path).parent, kept=CHECKPOINTS_KEPT)

    def on_trial_recover(self, **info: Any) -> None:
        """Called by Ray when a worker died and its trial starts again."""
        logger.warning("the worker of trial %d failed; it resumes from its last checkpoint", _number(info["trial"]))
        self._listener.requeued(_number(info["trial"]))

    def on_trial_complete(self, **info: Any) -> None:
        """Called by Ray when a trial ended by itself, or was stopped by the scheduler."""
        number, last = _number(info["trial"]), info["trial"].last_result or {}
        self._last.ended(info["trial"].trial_id)
        if self._last.has_ended(info["trial"].trial_id):
            return  # it goes on in the next session
        if "refusal" in last:
            error = refusal_from_plain(last["refusal"])
            self._end(number, "failed", reason=_reason(error), traceback=last.get("traceback", ""))
        elif last.get("stop") == "diverged":
            self._end(number, "diverged", reason=f"the loss was not finite in epoch {last[EPOCH]}")
        elif last.get("done"):
            self._end(number, last.get("stop") or "pruned")

    def on_trial_error(self, **info: Any) -> None:
        """Called by Ray when a trial failed for good."""
        self._last.ended(info["trial"].trial_id)
        text = _errors_of(info["trial"])
        if is_full_disk(Exception(text)):
            self.error = disk_full(self._kept.trials)
            raise self.error
        self._end(_number(info["trial"]), "failed", reason=failure_reason(text), traceback=text)

    def _end(self, number: int, state: str, *, reason: str = "", traceback: str = "") -> None:
        record = self._study.tell(number, state, seconds=self._seconds.pop(number, 0.0), reason=reason)
        self._kept.ended(record)
        with self._keeping_errors():
            self._listener.trial_ended(record, traceback)

    def leave_unfinished(self) -> None:
        """Note what the trials that go on in a later session have used so far."""
        for number, seconds in self._seconds.items():
            self._study.interrupted(number, seconds=seconds)
        self._seconds.clear()

    @contextlib.contextmanager
    def _keeping_errors(self) -> Iterator[None]:
        try:
            yield
        except TuneSmpError as error:
            self.error = error
            raise

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles its callbacks with the Tuner; what this one holds lives in this process.
        return {"_seconds": {}, "_last": LastEpochs(), "error": None}


def _number(trial: Any) -> int:
    return int(trial.config["trial"].number)


def _errors_of(trial: Any) -> str:
    """The tracebacks of all tries: Ray's own ``get_error`` looks into the storage, where the last comes too late."""
    written = Path(trial.error_file or "")
    return written.read_text("utf-8", "replace") if written.is_file() else str(trial.get_error() or "")


def _reason(error: TuneSmpError) -> str:
    kind = "out_of_memory: " if isinstance(error, OutOfMemoryError) else ""
    return kind + error.problems[0].problem
