"""Optuna under Ray: what is suggested, and to whom. What Optuna is told, the watcher of ``search_tuner`` tells."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import Searcher

from tune_smp.errors import SettingsError
from tune_smp.search.study import AskedTrial, Study, quiet

logger = logging.getLogger(__name__)


def build_sampler(name: str, *, seed: int, concurrency: int, trials: int) -> optuna.samplers.BaseSampler:
    """The sampler ``tpe``, ``random`` or ``quasirandom``.

    ``concurrency`` trials run at once, ``trials`` in all. TPE needs trials to learn from, and those that start together
    cannot learn from each other: it takes at least twice the concurrency for its start, and else a quarter of all.
    """
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with quiet():
        if name == "quasirandom":
            return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
        return optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,  # learns which values go together
            group=True,  # with parameters that only some trials have
            constant_liar=True,  # running trials count as poor, so that the next one goes elsewhere
            n_startup_trials=max(2 * concurrency, min(10, trials // 4)),
        )


class StudySearcher(Searcher):
    """Hands the study's next trial to Ray, under Ray's own name for it.

    Everything is in the study's journal, so that there is nothing for Ray to save or restore.
    """

    def __init__(
        self,
        study: Study,
        config_of: Callable[[str, AskedTrial], dict[str, Any]],
        *,
        metric: str,
        trials: int,
        room: Callable[[], int],
    ) -> None:
        """``config_of`` makes Ray's configuration from Ray's name and the trial; ``trials`` end the search, and no more
        than ``room`` says run at once: what is asked for early has learnt from less."""
        super().__init__(metric=metric, mode="max")
        self._study = study
        self._config_of = config_of
        self._trials = trials
        self._room = room

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The configuration of the next trial; None while there is no room for it; FINISHED after the last."""
        while self._study.ended() + self._study.running() < self._trials:
            if self._study.running() >= self._room():
                return None
            try:
                return self._config_of(trial_id, self._study.ask())
            except SettingsError as error:
                logger.warning("a point of the search space is no legal configuration: %s", error)
        return str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Ray requires it; the watcher, which also knows the reason, tells the study."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """See ``on_trial_complete``; besides, Ray leaves out the last result of a trial here."""

    def save(self, checkpoint_path: str) -> None:
        """Ray wants a file."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""
