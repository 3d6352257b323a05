"""The one road of train and search: run the trials, export the best epoch, prove it, report it, say what is next."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections import Counter
from collections.abc import Sequence

from tune_smp.errors import InterruptedRunError, Problem
from tune_smp.results.summary import Summary, noting_interruption, write_used
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.workflows.delivery import class_iou, export, prove, write_onnx, write_report
from tune_smp.workflows.printing import output
from tune_smp.workflows.task import Best, Task
from tune_smp.workflows.trials import run_task_trials


def run_task(task: Task) -> Summary:
    """Run the trials to their end, or to where they are interrupted, and leave all that is worth keeping in the folder.

    Raises the ``failure`` of the task's conclusion; InterruptedRunError after Ctrl-C or SIGTERM, with the best so far
    exported; ResourceError where Ray, a node or the disk does not give what is needed.
    """
    with noting_interruption(task.folder, lambda: _interrupted_at_once(task)):
        return _run_and_deliver(task)


def _run_and_deliver(task: Task) -> Summary:
    started = time.monotonic()
    ending, ledger = run_task_trials(task)
    records = ledger.records()
    best = task.best(records)
    summary = Summary(
        task.command,
        metric=task.settings.metric_name,
        best_metric=best.saved.state["best_metric"] if best else None,
        best_epoch=best.saved.state["best_epoch"] if best else None,
        best_trial=best.record.number if best else None,
        trials=dict(Counter(record.state for record in records)),
        **{"epochs": sum(record.epochs for record in records), **task.account(ending, ledger, best)},
    )
    if best is not None:
        summary = _deliver(task, best, summary)
    summary = dataclasses.replace(summary, seconds=round(time.monotonic() - started, 1))
    summary.write(task.folder)
    write_report(task.folder, task.data, metric_name=task.settings.metric_name, device=task.settings.device)
    write_onnx(task.settings, task.folder)
    _conclude(task, summary, records)
    return summary


def _deliver(task: Task, best: Best, summary: Summary) -> Summary:
    """Export the best epoch and prove the export; keep the state from which ``--pretrainedModel`` starts."""
    state, settings = best.saved.state, task.settings_of(best.record)
    task.keep(best.saved)
    if "used" in state:  # a checkpoint of an older version does not say what it ran with
        write_used(task.folder, state["used"])
    export(settings, task.folder, task.data, state)
    return dataclasses.replace(
        summary,
        evaluated_metric=prove(settings, task.folder, task.data, state),
        model=str(task.folder.model),
        class_iou=class_iou(state, task.data.store.class_map.names),
    )


def _interrupted_at_once(task: Task) -> Summary:
    """What can be said in no time, without a model."""
    reason = "a second Ctrl-C ended it at once"
    return Summary(task.command, "interrupted", task.settings.metric_name, reason=reason)


def _conclude(task: Task, summary: Summary, records: Sequence[TrialRecord]) -> None:
    """Say how it ended and what to type next; an end without success is raised."""
    conclusion = task.conclusion(summary, records)
    paths = (f"model: {summary.model}", f"report: {task.folder.report}") if summary.model is not None else ()
    for line in (*conclusion.head, *paths, *conclusion.foot):
        output.print(line)
    if summary.state == "interrupted":
        raise InterruptedRunError(Problem("interrupted", str(task.folder.path), task.resume_hint))
    if conclusion.failure is not None:
        raise conclusion.failure
    where, pattern = shlex.quote(str(task.folder.path)), shlex.quote(task.settings.images_pattern)
    output.print(
        f"next: tune-smp predict --model {where} --imagesDir IMAGES --imagesPattern {pattern} --outputDir MASKS"
    )
