"""The memory of a search: an Optuna study in a journal file, which other tools can open, and which survives everything.

Every trial is a trial of the study, under the same number, from the moment it is suggested. What is in the journal is
what happened: trials.csv, the summary and the report are read from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.trial import FrozenTrial, TrialState

from tune_smp.choices.states import trial_state
from tune_smp.errors import DataError, Problem, SettingsError
from tune_smp.tuning.final import with_fresh_seed
from tune_smp.tuning.journal import JournalFile, mend
from tune_smp.tuning.space import Domain, Range, Scalar, SearchSpace, values_by_flag
from tune_smp.tuning.trial_record import AskedTrial, Finalist, TrialRecord

OUTCOME = "outcome"
FINALIST = "finalist"
SPARED = "spared"
MAX_EPOCHS = "max_epochs"
# PED-ANOVA compares the best tenth of the trials with all of them; of fewer than this it says nothing.
FEWEST_FOR_IMPORTANCE = 4


class Study:
    """The study of one search, and what its numbers mean in the search space."""

    def __init__(
        self,
        journal: Path,
        space: SearchSpace,
        *,
        name: str,
        sampler_after: Callable[[int], optuna.samplers.BaseSampler],
    ) -> None:
        """Open the study in ``journal``, or begin it under this name; ``sampler_after`` gives the sampler by trials.

        To be called by the one program that holds the output folder. Raises DataError where the file is no journal.
        """
        self.space = space
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with _translated(journal):
            mend(journal)
            self._journal = JournalFile(journal)
            self._storage = optuna.storages.JournalStorage(self._journal)
            names = optuna.get_all_study_names(self._storage)
            self._study = optuna.create_study(
                study_name=names[0] if names else name,
                storage=self._storage,
                direction="maximize",
                load_if_exists=True,
            )
            trials = self._study.get_trials(deepcopy=False)
            self._study.sampler = sampler_after(len(trials))
        self._ended = sum(trial.state.is_finished() for trial in trials)
        self._running: dict[int, optuna.Trial] = {}
        self._reported: dict[int, set[int]] = {}
        self._is_in_final = False

    @property
    def is_new(self) -> bool:
        """Whether no trial is in the study, run or planned."""
        return not self._study.get_trials(deepcopy=False)

    def begin(self, first: Sequence[Mapping[str, Scalar]], *, spared: Sequence[Mapping[str, Scalar]] = ()) -> None:
        """These points, by domain name, are the next trials; those to be ``spared`` come last, and are not pruned."""
        for values in first:
            self._study.enqueue_trial(dict(values), skip_if_exists=True)
        for values in spared:
            self._study.enqueue_trial(dict(values), user_attrs={SPARED: True}, skip_if_exists=True)

    def draw_up(self, finalists: Sequence[Finalist]) -> None:
        """Plan these runs of the final."""
        trials = self._study.get_trials(deepcopy=False)
        for finalist in finalists:
            attributes = {FINALIST: dataclasses.asdict(finalist)}
            self._study.enqueue_trial(trials[finalist.of].params, user_attrs=attributes)

    def planned_finalists(self) -> int:
        """Number of runs of the final that have not ended."""
        states = (TrialState.WAITING, TrialState.RUNNING)
        return sum(FINALIST in trial.user_attrs for trial in self._study.get_trials(deepcopy=False, states=states))

    @contextlib.contextmanager
    def final(self) -> Iterator[None]:
        """In the block the runs of the final are asked for; trials of the search that have not ended wait."""
        self._is_in_final = True
        try:
            yield
        finally:
            self._is_in_final = False

    def requeue(self) -> None:
        """Trials that were running when their program ended wait to be run on, before any new one."""
        self._running.clear()
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def ask(self) -> AskedTrial:
        """The next trial.

        Raises SettingsError where the point is no legal configuration; that trial has then failed.
        """
        with quiet():
            trial = self._next_finalist() if self._is_in_final else self._study.ask()
        self._running[trial.number] = trial
        picked: dict[str, Scalar] = {}

        def suggest(name: str, domain: Domain) -> Scalar:
            picked[name] = suggest_from(trial, name, domain)
            return picked[name]

        # A trial without its first epoch is nothing yet: the epoch's report is what the disk is waited for.
        with quiet(), self._journal.deferred():
            self.space.walk(suggest)
        flags = values_by_flag(picked)
        finalist = _finalist(trial.user_attrs)
        try:
            settings = self.space.settings(flags)
        except SettingsError as error:
            self._reported[trial.number] = set()
            self.tell(trial.number, "failed", reason=error.problems[0].problem)
            raise
        if MAX_EPOCHS not in trial.user_attrs:
            with self._journal.deferred():
                trial.set_user_attr(MAX_EPOCHS, settings.most_epochs)
        earlier = self._frozen(trial.number).intermediate_values
        self._reported[trial.number] = set(earlier)
        settings = settings if finalist is None else with_fresh_seed(settings, finalist)
        curve = tuple(earlier[epoch] for epoch in sorted(earlier))
        return AskedTrial(trial.number, settings, flags, curve, finalist, is_spared=SPARED in trial.user_attrs)

    def _next_finalist(self) -> optuna.Trial:
        """The first planned run of the final, as ``optuna.Study.ask`` takes a waiting trial."""
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        first = next(trial for trial in waiting if FINALIST in trial.user_attrs)
        self._storage.set_trial_state_values(first._trial_id, TrialState.RUNNING)
        return optuna.Trial(self._study, first._trial_id)

    def report(self, number: int, epoch: int, best_metric: float) -> bool:
        """The best metric so far after an epoch, from 1. Whether it is news: a crash makes an epoch run twice."""
        if not math.isfinite(best_metric) or epoch in self._reported[number]:
            return False
        self._running[number].report(best_metric, epoch)
        self._reported[number].add(epoch)
        return True

    def tell(self, number: int, state: str, *, seconds: float = 0.0, reason: str = "") -> TrialRecord:
        """How a trial ended; its value is the best metric that was reported."""
        trial = self._running.pop(number)
        values = self._frozen(number).intermediate_values
        told = TrialState[trial_state(state).in_optuna]
        told = told if values or told is not TrialState.COMPLETE else TrialState.FAIL
        with self._journal.deferred():
            trial.set_user_attr(OUTCOME, {"state": state, "seconds": round(seconds, 3), "reason": reason})
        with quiet():
            self._study.tell(trial, max(values.values()) if told is TrialState.COMPLETE else None, state=told)
        self._ended += 1
        return self.record(number)

    def interrupted(self, number: int, *, seconds: float) -> None:
        """A trial that is resumed in a later session, after this many seconds so far."""
        self._running[number].set_user_attr(
            OUTCOME, {"state": "interrupted", "seconds": round(seconds, 3), "reason": ""}
        )

    def records(self) -> list[TrialRecord]:
        """Every trial that was ever started, by number."""
        return _records(self._study)

    def record(self, number: int) -> TrialRecord:
        """One trial."""
        return _record(self._frozen(number))

    def running(self) -> int:
        """Number of trials that were asked for, and have not ended."""
        return len(self._running)

    def ended(self) -> int:
        """Number of trials that ended, well or not. Asked for all the time, and therefore counted along."""
        return self._ended

    def importances(self) -> dict[str, float]:
        """Share of each flag in the differences between trials, by PED-ANOVA (Watanabe et al. 2023); empty where the
        trials that ran to their end are too few to say.
        """
        completed = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        # Where all are alike, PED-ANOVA gives every flag the same share.
        if len(completed) < FEWEST_FOR_IMPORTANCE or len({trial.value for trial in completed}) == 1:
            return {}
        with quiet():
            try:
                found = optuna.importance.get_param_importances(
                    self._study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
                )
            except (ValueError, RuntimeError):
                return {}  # all trials alike, or no parameter that all have
        shares: dict[str, float] = {}
        for name, share in found.items():
            (flag,) = values_by_flag({name: share})
            shares[flag] = shares.get(flag, 0.0) + share
        return {flag: round(share, 4) for flag, share in shares.items() if math.isfinite(share)}

    def _frozen(self, number: int) -> FrozenTrial:
        return self._study.get_trials(deepcopy=False)[number]


def _record(trial: FrozenTrial) -> TrialRecord:
    outcome = trial.user_attrs.get(OUTCOME, {})
    curve = tuple(trial.intermediate_values[epoch] for epoch in sorted(trial.intermediate_values))
    return TrialRecord(
        number=trial.number,
        state=outcome.get("state") or ("running" if trial.state is TrialState.RUNNING else "interrupted"),
        flags=values_by_flag(trial.params),
        max_epochs=trial.user_attrs.get(MAX_EPOCHS, 0),
        curve=curve,
        best_epoch=curve.index(curve[-1]) + 1 if curve else None,
        seconds=outcome.get("seconds", 0.0),
        reason=outcome.get("reason", ""),
        finalist=_finalist(trial.user_attrs),
    )


def _finalist(attributes: Mapping[str, Any]) -> Finalist | None:
    return Finalist(**attributes[FINALIST]) if FINALIST in attributes else None


def records_in(journal: Path) -> list[TrialRecord]:
    """The trials of the study in a journal that is only read. Raises DataError where the file is no journal."""
    with _translated(journal):
        storage = optuna.storages.JournalStorage(JournalFile(journal))
        (name,) = optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage)
        return _records(study)


def _records(study: optuna.Study) -> list[TrialRecord]:
    trials = study.get_trials(deepcopy=False)
    return [_record(trial) for trial in trials if trial.params or trial.state.is_finished()]


def suggest_from(trial: optuna.Trial, name: str, domain: Domain) -> Scalar:
    """Let Optuna pick a value of a domain for this trial."""
    if isinstance(domain, Range):
        if domain.integer:
            step = 1 if domain.step is None else int(domain.step)
            return trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.log, step=step)
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.step)
    return cast(Scalar, trial.suggest_categorical(name, list(domain)))


@contextlib.contextmanager
def _translated(journal: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            Problem(f"the study cannot be read: {error}", str(journal), "start anew in another --outputDir")
        ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna warns of what we mean: grouped TPE is experimental, a waiting trial keeps its values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
