"""Under Ray's name for it, the next trial: Ray asks, and the ledger answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from tune_smp.errors import SettingsError
from tune_smp.tuning.ledger import Ledger
from tune_smp.tuning.trial_record import AskedTrial

logger = logging.getLogger(__name__)


class LedgerSearcher(Searcher):
    """Hands the ledger's next trial to Ray, under Ray's own name for it.

    Everything is in the ledger, so that there is nothing for Ray to save or restore.
    """

    def __init__(
        self,
        ledger: Ledger,
        config_of: Callable[[str, AskedTrial], dict[str, Any]],
        *,
        metric: str,
        trials: int,
        room: Callable[[], int],
    ) -> None:
        """``config_of`` makes Ray's configuration from Ray's name and the trial; ``trials`` end the search, and no more
        than ``room`` says run at once: what is asked for early has learnt from less."""
        super().__init__(metric=metric, mode="max")
        self._ledger = ledger
        self._config_of = config_of
        self._trials = trials
        self._room = room

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of the next trial; None while there is no room for it; FINISHED after the last."""
        while self._ledger.ended() + self._ledger.running() < self._trials:
            if self._ledger.running() >= self._room():
                return None
            try:
                return self._config_of(trial_id, self._ledger.ask())
            except SettingsError as error:
                logger.warning("a point of the search space is no legal configuration: %s", error)
        return str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ray requires it; the watcher, which also knows the reason, reports to the ledger."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """See ``on_trial_complete``; besides, Ray leaves out the last result of a trial here."""

    def save(self, checkpoint_path: str) -> None:
        """Ray wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""
