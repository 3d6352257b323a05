"""The ensemble of a search: found among its best trials, and added to the exported model where it is better."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_smp.data.ensemble_record import ITSELF, MEMBERS, EnsembleMember, EnsembleRecord
from tune_smp.errors import Problem, TuneSmpError
from tune_smp.results.folder import RunFolder
from tune_smp.settings.search import SearchSettings
from tune_smp.texts import counted
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.workflows.delivery import EVALUATION_TOLERANCE, export
from tune_smp.workflows.printing import output
from tune_smp.workflows.task import Best, Task

if TYPE_CHECKING:
    from tune_smp.inference.ensemble_selection import Selection

logger = logging.getLogger(__name__)

CANDIDATES_PER_MEMBER = 2
"""An ensemble is chosen among so many trials for each place in it."""


def add_ensemble(task: Task, best: Best, records: Sequence[TrialRecord]) -> dict[str, Any] | None:
    """Add the ensemble that ``--ensemble`` asks for to ``model/``, which holds the best trial, where it is better.

    Return what the summary says of it, None where none was asked for or there is nothing to choose from. The best trial
    is good alone: what goes wrong here is reported, not raised.
    """
    if not isinstance(task.settings, SearchSettings) or task.settings.ensemble == 1:
        return None
    from tune_smp.results.ensemble_export import withdraw_ensemble  # noqa: PLC0415  imports torch

    task.folder.trials.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="ensemble-", dir=task.folder.trials) as scratch:
            models = {best.record.number: task.folder.model, **_candidates(task, best, records, Path(scratch))}
            if len(models) == 1:
                output.print("the ensemble has one candidate alone: no other trial has a model")
                return None
            return _add(task, task.settings, models)
    except Exception as error:
        logger.exception("the ensemble could not be made")
        withdraw_ensemble(task.folder.model)
        output.print(f"note: the ensemble could not be made ({error}); the model is that of the best trial alone")
        return None


def _candidates(task: Task, best: Best, records: Sequence[TrialRecord], scratch: Path) -> dict[int, Path]:
    """The models of the trials that come after the best, by trial, exported into a folder of no lasting."""
    assert isinstance(task.settings, SearchSettings)  # noqa: S101 - the caller's condition
    remaining = [record for record in records if record.number != best.record.number]
    models: dict[int, Path] = {}
    while len(models) < CANDIDATES_PER_MEMBER * task.settings.ensemble - 1 and (found := task.best(remaining)):
        folder = RunFolder(scratch / str(found.record.number))
        export(task.settings_of(found.record), folder, task.data, found.saved.state)
        models[found.record.number] = folder.model
        remaining = [record for record in remaining if record.number != found.record.number]
    return models


def _add(task: Task, settings: SearchSettings, models: Mapping[int, Path]) -> dict[str, Any]:
    from tune_smp.inference.ensemble_selection import measured_again, select_ensemble  # noqa: PLC0415  imports torch
    from tune_smp.results.ensemble_export import describe_ensemble, export_ensemble  # noqa: PLC0415

    data, metric, device = task.data, settings.metric_name, settings.device
    found = select_ensemble(
        list(models.values()), data.store, data.regions, metric_name=metric, device=device, most=settings.ensemble
    )
    record = _record(found, list(models), metric)
    if found.wins:
        export_ensemble(task.folder.model, record, models)
        again = measured_again(task.folder.model, data.store, data.regions, metric_name=metric, device=device)
        if not math.isclose(again, record.metric, abs_tol=EVALUATION_TOLERANCE):
            said = f"the exported ensemble has {metric} {again:.6f}, its members had {record.metric:.6f}"
            raise TuneSmpError(Problem(said, str(task.folder.model)))
        describe_ensemble(task.folder.model, record)
    output.print(_line(record, found))
    return {"won": found.wins, **record.to_json()}


def _record(found: Selection, trials: Sequence[int], metric: str) -> EnsembleRecord:
    """Places of candidates become folders: the first is the best trial, in model/ itself."""
    others = iter(range(1, len(trials)))
    members = tuple(
        EnsembleMember(ITSELF if place == 0 else f"{MEMBERS}/{next(others)}", weight, trials[place])
        for place, weight in found.weights.items()
    )
    return EnsembleRecord(
        members, found.thresholds, metric, found.metric, found.single, found.low, found.images, found.cost
    )


def _line(record: EnsembleRecord, found: Selection) -> str:
    if len(record.members) == 1:
        return (
            "the ensemble did not win: no mean of several trials is better than one alone; the best trial is exported"
        )
    nets = f"{len(record.members)} nets (trials {', '.join(str(member.trial) for member in record.members)})"
    against = (
        f"{record.metric_name} {record.metric:.4f}, {record.gain:+.4f} against the best trial alone on "
        f"{counted(record.images, 'validation image')}"
    )
    at_least = f"in nine of ten resamplings of them at least {record.low:+.4f}"
    if found.wins:
        return f"ensemble of {nets}: {against} ({at_least}); prediction takes {record.cost:.1f} times as long"
    why = "which are too few to tell" if found.low > 0 else at_least
    return f"the ensemble of {nets} did not win: {against} ({why}); the best trial alone is exported"
