"""Tasks, which commands run: many trials of a search space, or the one of fixed settings."""

from __future__ import annotations

import dataclasses
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tune_smp.errors import TuneSmpError
from tune_smp.results.folder import RunFolder
from tune_smp.results.model_card import Proved
from tune_smp.results.summary import Summary
from tune_smp.settings.run import RunFlags, RunSettings
from tune_smp.tuning.trial_record import AskedTrial, TrialRecord
from tune_smp.workflows.preparation import PreparedData

if TYPE_CHECKING:
    from tune_smp.training.run_state import RunState
    from tune_smp.tuning.checkpoints import SavedRun
    from tune_smp.tuning.cluster import Resources
    from tune_smp.tuning.display import Display
    from tune_smp.tuning.ledger import Ledger
    from tune_smp.tuning.listeners import Listener
    from tune_smp.tuning.shares import TrialShare
    from tune_smp.tuning.tuner import SearchPlan


@dataclasses.dataclass(frozen=True, slots=True)
class Best:
    """The best trial, and its newest checkpoint, which holds the weights of its best epoch."""

    record: TrialRecord
    saved: SavedRun


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """The runs that a refit repeats: their ``settings``, the newest ``state`` of the exported one, all ``records``, and
    what they ``proved``.

    ``seconds`` are left for the refit, None without a limit; ``gpus`` and ``address`` are those of the runs.
    """

    settings: RunSettings
    state: RunState
    records: Sequence[TrialRecord]
    proved: Proved
    seconds: float | None = None
    gpus: float | None = None
    address: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """The trials of a task as they are run this time: with what, watched by whom."""

    share: TrialShare
    ledger: Ledger
    plan: SearchPlan
    display: Display
    listeners: Sequence[Listener]


@dataclasses.dataclass(frozen=True, slots=True)
class Conclusion:
    """The lines printed at the end: lines above and below the paths of model and report, or the ``failure``."""

    head: Sequence[str] = ()
    foot: Sequence[str] = ()
    failure: TuneSmpError | None = None


class Task(ABC):
    """A task in a folder: everything that differs between a search and a single run.

    ``address`` is the Ray cluster to run on; None: a Ray of our own.
    """

    command: ClassVar[str]
    address: str | None = None

    def __init__(
        self,
        settings: RunFlags,
        folder: RunFolder,
        data: PreparedData,
        *,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """``listeners`` hear of the trials besides those of the task itself."""
        self.settings = settings
        self.folder = folder
        self.data = data
        self.listeners = listeners

    def finished(self) -> Ledger | None:
        """The ledger, where no trial is left to run, as far as that can be known without Ray."""
        return None

    @abstractmethod
    def session(self, resources: Resources) -> Session:
        """Share the machines out, and open the ledger. Raises ResourceError where a trial cannot be had."""

    def plans(self, session: Session) -> Iterator[SearchPlan]:
        """What is run in the session, one after the other; the next is asked for when the one before has ended."""
        yield session.plan

    def split_of(self, asked: AskedTrial) -> Path:  # noqa: ARG002 - a search looks at it
        """The split.csv of a trial."""
        return self.folder.split

    @abstractmethod
    def saved(self, number: int) -> SavedRun | None:
        """The newest checkpoint of a trial that can be read."""

    @abstractmethod
    def best(self, records: Sequence[TrialRecord]) -> Best | None:
        """The trial to export, if there is one."""

    @abstractmethod
    def keep(self, saved: SavedRun) -> None:
        """Keep the state of the best trial in checkpoint.pth."""

    @abstractmethod
    def settings_of(self, record: TrialRecord) -> RunSettings:
        """The settings of a trial."""

    @abstractmethod
    def proof(self, best: Best, records: Sequence[TrialRecord], summary: Summary) -> Proof | None:
        """What a refit repeats; None where none is wanted."""

    @abstractmethod
    def account(self, ending: str, ledger: Ledger, best: Best | None) -> Mapping[str, Any]:
        """Fields of the summary that this task alone can fill in, ``state`` and ``reason`` among them."""

    @abstractmethod
    def conclusion(self, summary: Summary, records: Sequence[TrialRecord]) -> Conclusion:
        """Return the last lines; of an interrupted task the failure does not count."""

    @property
    def resume_hint(self) -> str:
        """The command that resumes what is in the folder."""
        return f"resume with: tune-smp resume {shlex.quote(str(self.folder.path))}"
