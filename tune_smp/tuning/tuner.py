"""Ray's Tuner around one trial or a thousand: asks the ledger, runs the trials, and reports the end of each to it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import TrialScheduler

from tune_smp.choices.states import trial_state
from tune_smp.errors import TuneSmpError
from tune_smp.tuning.checkpoints import remove_older, trial_folder
from tune_smp.tuning.failures import disk_full, failure_reason, is_full_disk, refusal_reason, tracebacks
from tune_smp.tuning.ledger import Ledger
from tune_smp.tuning.listeners import Listener
from tune_smp.tuning.pruning import EPOCH, METRIC, remember, replay, trial_number
from tune_smp.tuning.searcher import LedgerSearcher
from tune_smp.tuning.stopping import LastEpochs, orderly_stop
from tune_smp.tuning.trainable import SmpTrainable, TrialConfig, refusal_from_plain
from tune_smp.tuning.trial_record import AskedTrial, diverged_reason

logger = logging.getLogger(__name__)

# A worker that dies is started again from its last checkpoint this many times, counted anew after every new epoch.
RETRIES = 2
# The one being written and the one before it: a kill in the middle of a write leaves a whole one.
CHECKPOINTS_KEPT = 2


def _nothing() -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """How long a search lasts, and what it may use.

    ``trials`` in all, those of earlier sessions too; ``room`` says how many may run at once, as nodes come and go;
    ``time_budget_s`` is for this session, of which ``reserve``, asked again and again, says how many seconds are to be
    left. ``storage/name`` is where Ray keeps its files and the checkpoints.
    """

    trials: int
    scheduler: TrialScheduler
    storage: Path
    name: str
    room: Callable[[], int]
    time_budget_s: float | None = None
    reserve: Callable[[], float] = _nothing


def run_trials(
    ledger: Ledger,
    plan: SearchPlan,
    config_of: Callable[[AskedTrial], TrialConfig],
    listeners: Sequence[Listener],
) -> str:
    """Run trials until there are enough of them; say how it ended: completed, out_of_time or interrupted.

    Trials that an earlier session left unfinished are resumed first. Ctrl-C and SIGTERM end the search in order. Trials
    that have then not ended wait in the ledger for the next session.

    Raises ResourceError when the disk is full, and what a listener raises of ours.
    """
    ledger.requeue()
    remember(plan.scheduler, [record for record in ledger.records() if trial_state(record.state).has_ended])
    deadline = _Deadline(plan.time_budget_s, plan.reserve)
    if ledger.ended() < plan.trials:
        with _watched(ledger, plan, listeners, deadline) as watcher:
            _tuner(ledger, plan, config_of, callbacks=[watcher], stop=deadline).fit()
    done = ledger.ended() >= plan.trials
    return "completed" if done else "out_of_time" if deadline.is_over() else "interrupted"


@contextlib.contextmanager
def _watched(
    ledger: Ledger, plan: SearchPlan, listeners: Sequence[Listener], deadline: _Deadline
) -> Iterator[_Watcher]:
    """The watcher of what Tune runs in the block, which ends in order at Ctrl-C, and with errors of ours."""

    def say_stopping() -> None:
        for listener in listeners:
            listener.stopping()

    watcher = _Watcher(ledger, listeners, deadline, storage=plan.storage / plan.name)
    try:
        with orderly_stop(deadline, say_stopping):
            yield watcher
    except tune.TuneError as error:
        # Ray turns what its callbacks raise, and what it meets itself, into text.
        if watcher.error is not None:
            raise watcher.error from error
        if is_full_disk(str(error)):
            raise disk_full(plan.storage) from error
        raise
    finally:
        watcher.leave_unfinished()
        ledger.requeue()


def _tuner(
    ledger: Ledger,
    plan: SearchPlan,
    config_of: Callable[[AskedTrial], TrialConfig],
    *,
    callbacks: list[tune.Callback],
    stop: LastEpochs,
) -> tune.Tuner:
    def config(trial_id: str, asked: AskedTrial) -> dict[str, Any]:
        replay(plan.scheduler, trial_id, ledger.record(asked.number))
        return {"trial": config_of(asked)}

    def room() -> int:
        return 0 if stop.asked else plan.room()

    return tune.Tuner(
        SmpTrainable,
        tune_config=tune.TuneConfig(
            search_alg=LedgerSearcher(ledger, config, metric=METRIC, trials=plan.trials, room=room),
            scheduler=plan.scheduler,
            num_samples=plan.trials - ledger.ended(),
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

    def __init__(self, seconds: float | None, reserve: Callable[[], float]) -> None:
        super().__init__()
        self._until = None if seconds is None else time.monotonic() + seconds
        self._reserve = reserve

    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._until is not None and time.monotonic() >= self._until - self._reserve()

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles it with the Tuner; what the reserve looks at lives in this process.
        return {**self.__dict__, "_reserve": _nothing}

    def stop_all(self) -> bool:
        """Called by Ray all the time."""
        return self.is_over() or super().stop_all()


class _Watcher(tune.Callback):
    """Reports to the ledger and the listeners what happens to each trial, in the driver."""

    def __init__(self, ledger: Ledger, listeners: Sequence[Listener], last: LastEpochs, *, storage: Path) -> None:
        self._last = last
        self._ledger = ledger
        self._listeners = listeners
        self._storage = storage
        self._seconds: dict[int, float] = {}
        self.error: TuneSmpError | None = None

    def on_trial_start(self, **info: Any) -> None:
        """Called by Ray when a trial gets a worker, also after a crash."""
        number = trial_number(info["trial"])
        self._last.began(info["trial"].trial_id)
        if number not in self._seconds:
            self._seconds[number] = 0.0
            record = self._ledger.record(number)
            self._each(lambda listener: listener.started(number, record.flags, record.max_epochs))

    def on_trial_result(self, **info: Any) -> None:
        """Called by Ray after every step of a trial."""
        number, result = trial_number(info["trial"]), info["result"]
        if "refusal" in result:
            return
        self._seconds[number] = result["run_seconds"]
        if self._ledger.report(number, result[EPOCH], result[METRIC]):
            # Failures count anew after every new epoch: nodes may come and go all day, while the trial gets on.
            info["trial"].run_metadata.num_failures = 0
        self._each(lambda listener: listener.epoch_ended(number, result))

    def on_checkpoint(self, **info: Any) -> None:
        """Called by Ray when a checkpoint of a trial is written."""
        remove_older(Path(info["checkpoint"].path).parent, kept=CHECKPOINTS_KEPT)

    def on_trial_recover(self, **info: Any) -> None:
        """Called by Ray when a worker died and its trial starts again."""
        number = trial_number(info["trial"])
        logger.warning("the worker of trial %d failed; it resumes from its last checkpoint", number)
        self._each(lambda listener: listener.requeued(number))

    def on_trial_complete(self, **info: Any) -> None:
        """Called by Ray when a trial ended by itself, or was stopped by the scheduler."""
        number, last = trial_number(info["trial"]), info["trial"].last_result or {}
        self._last.ended(info["trial"].trial_id)
        if self._last.has_ended(info["trial"].trial_id):
            return  # it is resumed in the next session
        if "refusal" in last:
            error = refusal_from_plain(last["refusal"])
            self._end(number, "failed", reason=refusal_reason(error), traceback=last["traceback"], error=error)
        elif last.get("stop") == "diverged":
            self._end(number, "diverged", reason=diverged_reason(last[EPOCH]))
        elif last.get("done"):
            self._end(number, last.get("stop") or "pruned")

    def on_trial_error(self, **info: Any) -> None:
        """Called by Ray when a trial failed for good."""
        self._last.ended(info["trial"].trial_id)
        text = tracebacks(info["trial"])
        if is_full_disk(text):
            self.error = disk_full(self._storage)
            raise self.error
        self._end(trial_number(info["trial"]), "failed", reason=failure_reason(text), traceback=text)

    def _end(
        self, number: int, state: str, *, reason: str = "", traceback: str = "", error: TuneSmpError | None = None
    ) -> None:
        told = self._ledger.tell(number, state, seconds=self._seconds.pop(number, 0.0), reason=reason)
        record = dataclasses.replace(told, error=error)
        self._each(lambda listener: listener.trial_ended(record, traceback))

    def leave_unfinished(self) -> None:
        """Note what the trials to be resumed in a later session have used so far."""
        for number, seconds in self._seconds.items():
            self._ledger.interrupted(number, seconds=seconds)
        self._seconds.clear()

    def _each(self, call: Callable[[Listener], None]) -> None:
        """Call every listener; what one raises of ours is kept, as Ray would make text of it."""
        try:
            for listener in self._listeners:
                call(listener)
        except TuneSmpError as error:
            self.error = error
            raise

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles its callbacks with the Tuner; what this one holds lives in this process.
        return {"_seconds": {}, "_last": LastEpochs(), "error": None}
