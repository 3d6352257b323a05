"""The checkpoints that Ray leaves behind: find the newest whole one, keep it, remove the others."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from tune_smp.errors import DataError
from tune_smp.training import checkpoint
from tune_smp.training.run_state import RunState
from tune_smp.tuning.final import DEFAULT_TRIAL
from tune_smp.tuning.listeners import Listener
from tune_smp.tuning.trainable import CHECKPOINT_NAME
from tune_smp.tuning.trial_record import TrialRecord, best_of, of_the_search

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A checkpoint file and the state in it."""

    path: Path
    state: RunState


def newest_whole(trials: Path, final: Path) -> SavedRun | None:
    """The newest checkpoint that can be read: of those below Ray's folder ``trials``, else ``final``.

    ``final`` is what an earlier session kept, so anything below ``trials`` is newer. A checkpoint that a kill cut short
    is passed over: the one before it is still there.
    """
    return _first_whole([*_by_age(trials, f"**/checkpoint_*/{CHECKPOINT_NAME}"), final])


def _first_whole(paths: Sequence[Path]) -> SavedRun | None:
    for path in paths:
        if path.exists():
            try:
                return SavedRun(path, checkpoint.load(path))
            except DataError as error:
                logger.warning("passed over a checkpoint that cannot be read: %s", error)
    return None


def newest_of_trial(trials: Path, number: int) -> SavedRun | None:
    """The newest checkpoint of a trial of a search that can be read."""
    return _first_whole(_by_age(trials, f"{trial_folder(number)}*/checkpoint_*/{CHECKPOINT_NAME}"))


def trial_folder(number: int) -> str:
    """How the name of a trial's folder begins; Ray's own name for the trial follows, another one in each session."""
    return f"trial_{number:05d}_"


class BestKept(Listener):
    """Keeps the checkpoints of the best few trials that ended, so that a search of any length fits on the disk.

    Where there may be a final (``with_final``), the default and all runs of the final keep theirs too: any of them may
    be exported.
    """

    MOST = 3

    def __init__(self, trials: Path, *, most: int = MOST, with_final: bool = False) -> None:
        self.trials = trials
        self.most = most
        self._with_final = with_final
        self._kept: list[TrialRecord] = []

    @override
    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        self.ended(record)

    def ended(self, *records: TrialRecord) -> None:
        """Remove the checkpoints of these trials, or those of the ones whose places they take."""
        known = [*self._kept, *records]
        kept = [row for row in known if self._is_for_the_final(row)]
        candidates = of_the_search(known)
        for _ in range(self.most):
            if found := best_of(candidates):
                candidates.remove(found)
                kept += [] if found in kept else [found]
        self._remove({trial_folder(row.number) for row in known if row not in kept})
        self._kept = kept

    def _is_for_the_final(self, record: TrialRecord) -> bool:
        is_special = record.finalist is not None or record.number == DEFAULT_TRIAL
        return self._with_final and is_special and best_of([record]) is not None

    def _remove(self, beginnings: set[str]) -> None:
        """Remove the checkpoints in the trials' folders that begin so, in one look over all of them."""
        if not beginnings or not self.trials.is_dir():
            return
        with os.scandir(self.trials) as entries:
            folders = [Path(entry) for entry in entries if entry.name.startswith(tuple(beginnings))]
        for folder in folders:
            remove_checkpoints(folder, "checkpoint_*")


def remove_older(trial: Path, *, kept: int) -> None:
    """Remove a trial's checkpoints but for the ``kept`` newest; Ray numbers them in the order of their writing."""
    for folder in sorted(trial.glob("checkpoint_*"))[:-kept]:
        shutil.rmtree(folder, ignore_errors=True)


def remove_checkpoints(trials: Path, pattern: str = "**/checkpoint_*") -> None:
    """Remove the checkpoints below ``trials`` whose folders match."""
    for folder in trials.glob(pattern):
        shutil.rmtree(folder, ignore_errors=True)


def keep_newest(saved: SavedRun, final: Path, *, trials: Path) -> None:
    """Make ``saved`` the run's ``final`` checkpoint, then remove Ray's."""
    if saved.path != final:
        checkpoint.save(saved.state, final)
    remove_checkpoints(trials)


def _by_age(trials: Path, pattern: str) -> list[Path]:
    return sorted(trials.glob(pattern), key=lambda path: path.stat().st_mtime_ns, reverse=True)
