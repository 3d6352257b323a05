"""The trials of a task: connect to Ray, share it out, and keep the folder up to date."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from tune_smp.errors import TuneSmpError
from tune_smp.results.folder import RunFolder, write_text
from tune_smp.results.history import History
from tune_smp.results.leaderboard import write_trials
from tune_smp.results.summary import write_used
from tune_smp.tuning.ledger import Ledger
from tune_smp.tuning.listeners import EpochResult, Listener
from tune_smp.tuning.trial_record import AskedTrial, TrialRecord
from tune_smp.workflows.printing import note, output, say_stopping
from tune_smp.workflows.task import Session, Task

if TYPE_CHECKING:
    from tune_smp.tuning.shares import TrialShare
    from tune_smp.tuning.trainable import TrialConfig

logger = logging.getLogger(__name__)

# How often trials.csv follows a search that is under way.
TABLE_EVERY_S = 5.0


@contextlib.contextmanager
def under_ray(task: Task) -> Iterator[tuple[Session, Callable[[AskedTrial], TrialConfig]]]:
    """The trials of a task as Ray can run them this time, shown while the block lasts, and what a worker is given.

    Raises ResourceError where Ray does not start, or a trial cannot be had.
    """
    from tune_smp.tuning.cluster import Dashboard, connected_ray  # noqa: PLC0415  ray takes half a second to import

    settings = task.settings
    dashboard = Dashboard(settings.dashboard_host, settings.dashboard_port) if settings.dashboard else None
    with connected_ray(task.address, device=settings.device, dashboard=dashboard) as resources:
        note(resources.notes)
        session = task.session(resources)
        if resources.dashboard_url:
            output.print(f"dashboard: {resources.dashboard_url} (its token is in {resources.token})")
        with session.display:
            yield session, _configured(task, session.share)


def _configured(task: Task, share: TrialShare) -> Callable[[AskedTrial], TrialConfig]:
    """Return how to configure a trial; one that an earlier session began resumes from its newest checkpoint."""
    from tune_smp.tuning.trainable import TrialConfig  # noqa: PLC0415  imports ray

    def config(asked: AskedTrial) -> TrialConfig:
        saved = task.saved(asked.number) if asked.curve else None
        return TrialConfig(
            asked.settings.to_json(),
            store=task.data.store.path,
            split=task.split_of(asked),
            start_from=saved.path if saved else None,
            cpus=share.cpus,
            gpus=share.gpus,
            number=asked.number,
            is_spared=asked.is_spared,
            counts_images=asked.finalist is not None,
        )

    return config


class FolderKeeper(Listener):
    """Keeps histories and logs in the folder up to date, and says that Ctrl-C was heard."""

    def __init__(self, folder: RunFolder, history_of: Callable[[int], Path]) -> None:
        """``history_of`` gives the file for the history of a trial."""
        self.errors: dict[int, TuneSmpError] = {}
        """Errors of ours that ended trials in this session."""
        self._folder = folder
        self._history_of = history_of
        self._histories: dict[int, History] = {}
        self._used: set[int] = set()  # trials whose numbers are in the log

    @override
    def started(self, number: int, flags: Mapping[str, Any], max_epochs: int) -> None:
        path = self._history_of(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._histories[number] = History(path)

    @override
    def epoch_ended(self, number: int, result: EpochResult) -> None:
        self._histories[number].add(result)
        if number not in self._used:
            self._used.add(number)
            logger.info("trial %d runs with %s", number, ", ".join(f"{k} {v}" for k, v in result["used"].items()))

    @override
    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        self._histories.pop(record.number, None)
        if record.error is not None:
            self.errors[record.number] = record.error
        if traceback:
            write_text(self._folder.trial_log(record.number), traceback)

    @override
    def stopping(self) -> None:
        say_stopping()


class TableKeeper(Listener):
    """Lets trials.csv follow a search that is under way."""

    def __init__(self, ledger: Ledger, folder: RunFolder, searched: Sequence[str]) -> None:
        self._ledger = ledger
        self._folder = folder
        self._searched = searched
        self._next_table = time.monotonic()

    @override
    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        if time.monotonic() >= self._next_table:
            self.write()
            self._next_table = time.monotonic() + TABLE_EVERY_S

    @override
    def search_ended(self, ending: str) -> None:
        self.write()

    def write(self) -> None:
        """Write trials.csv as the ledger has it."""
        write_trials(self._folder, [row.as_row() for row in self._ledger.records()], searched=self._searched)


class NotePrinter(Listener):
    """Prints what a single run notes, each once, and records what it runs with as soon as that is known."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._told: set[str] = set()

    @override
    def epoch_ended(self, number: int, result: EpochResult) -> None:
        note(note for note in result["notes"] if note not in self._told)
        self._told.update(result["notes"])
        write_used(self._folder, result["used"])
