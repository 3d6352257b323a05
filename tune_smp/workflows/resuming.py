"""Resuming what is in a folder: a run or a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_smp.errors import Problem, SettingsError
from tune_smp.results.folder import RunFolder, claimed, read_json, write_json
from tune_smp.results.logs import logged
from tune_smp.results.summary import Summary
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.listeners import Listener
from tune_smp.workflows.delivery import require_onnx, write_onnx
from tune_smp.workflows.preparation import reopen
from tune_smp.workflows.printing import note
from tune_smp.workflows.road import run_task
from tune_smp.workflows.search_space import settings_record, stored_space, with_fixed
from tune_smp.workflows.searching import SpaceSearch
from tune_smp.workflows.task import Task
from tune_smp.workflows.training import FixedRun


def resume(
    output_dir: Path,
    *,
    num_trials: int | None = None,
    time_budget: str | None = None,
    listeners: Sequence[Listener] = (),
    **dashboard: Any,
) -> Summary | None:
    """Resume an interrupted run or search, in place; return None when it had already come to its end.

    The settings, the split, the study and the newest whole checkpoints are those in the folder. ``num_trials``, more
    than before, extends a search with everything that it has learnt; ``listeners`` hear of the trials. ``dashboard``,
    ``dashboard_host`` and ``dashboard_port`` replace those settings for this session. Raises what ``train`` and
    ``search`` raise.
    """
    if not RunFolder(output_dir).is_started():
        raise SettingsError(
            Problem(
                "there is no run in this folder to resume",
                str(output_dir),
                "name the --outputDir of a train or search",
            )
        )
    with claimed(output_dir) as folder, logged(folder.logs, "resume"):
        if read_json(folder.settings)["command"] == "search":
            task = _search_in(folder, dashboard, num_trials=num_trials, time_budget=time_budget)
        elif num_trials:
            problem = "--numTrials is for a search, and this folder holds a train"
            raise SettingsError(Problem(problem, str(output_dir), "leave it out"))
        else:
            task = _run_in(folder, dashboard, time_budget=time_budget)
        if task is None:
            return None
        task.listeners = listeners
        return run_task(task)


def _run_in(folder: RunFolder, dashboard: Mapping[str, Any], *, time_budget: str | None) -> Task | None:
    """The run in the folder, with this time in all; None where it is finished."""
    record = read_json(folder.settings)
    settings = RunSettings.from_json(record["settings"])
    if time_budget is not None:
        settings = _with_more_time(settings, time_budget)
    require_onnx(settings)
    if folder.is_finished():
        note([f"the run in {folder.path} is finished ({folder.state()}): nothing to resume"])
        write_onnx(settings, folder)
        return None
    if time_budget is not None:
        write_json(folder.settings, {**record, "settings": settings.to_json()})
    settings = settings.with_changes(**dashboard)
    return FixedRun(settings, folder, reopen(settings, folder))


def _with_more_time(settings: RunSettings, time_budget: str) -> RunSettings:
    """Raises SettingsError where the run counts epochs: its schedule would jump."""
    if settings.time_budget is None:
        problem = "the run in this folder was started without --timeBudget: it has a number of epochs"
        raise SettingsError(Problem(problem, f"--timeBudget {time_budget}", "leave it out"))
    return settings.with_changes(time_budget=time_budget)


def _search_in(
    folder: RunFolder, dashboard: Mapping[str, Any], *, num_trials: int | None, time_budget: str | None
) -> Task | None:
    """The search in the folder; None where it is finished and not extended."""
    record = read_json(folder.settings)
    settings = SearchSettings.from_json(record["settings"])
    settings = with_budget(settings, num_trials=num_trials, time_budget=time_budget)
    require_onnx(settings)
    if folder.is_finished() and not num_trials:
        note([f"the search in {folder.path} is finished: nothing to resume; --numTrials N extends it"])
        write_onnx(settings, folder)
        return None
    if folder.summary.exists():
        # It speaks of the search as it ended before: one that is extended, and killed, has not ended.
        write_json(folder.summary, {**read_json(folder.summary), "state": "interrupted"})
    space = stored_space(record, settings)
    write_json(folder.settings, {**record, "settings": settings_record(settings, space)})
    settings = with_fixed(settings, space).with_changes(**dashboard)
    return SpaceSearch(settings, folder, reopen(settings, folder), space)


def with_budget(settings: SearchSettings, *, num_trials: int | None, time_budget: str | None) -> SearchSettings:
    """The settings of a search extended to so many trials, in so much time; None leaves either as it was.

    Raises SettingsError where that is fewer trials than the search was started with.
    """
    if num_trials is not None and num_trials < settings.planned_trials and not settings.is_ended_by_time_alone:
        problem = f"--numTrials can only be raised: the search was started with {settings.planned_trials}"
        raise SettingsError(Problem(problem, f"--numTrials {num_trials}", "pass more, or leave it out"))
    # Without a number of trials, a time budget alone would end the search.
    kept = None if settings.is_ended_by_time_alone else settings.planned_trials
    changes = {"num_trials": num_trials or kept, "time_budget": time_budget}
    return settings.with_changes(**{name: value for name, value in changes.items() if value is not None})
