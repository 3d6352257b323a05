"""The one road of train and search: run the trials, export the best epoch, prove it, report it, say what is next."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from tune_smp.errors import InterruptedRunError, Problem, ResourceError
from tune_smp.results.folder import RunFolder, claimed, start_afresh
from tune_smp.results.logs import logged
from tune_smp.results.summary import Summary, noting_interruption, write_settings, write_used
from tune_smp.settings.run import RunFlags, RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.training.run_state import best_report
from tune_smp.tuning.ledger import Ledger
from tune_smp.tuning.listeners import Listener
from tune_smp.tuning.portfolio import read_portfolio
from tune_smp.tuning.space_file import read_space
from tune_smp.tuning.space_records import as_json
from tune_smp.tuning.trial_record import TrialRecord
from tune_smp.workflows.delivery import (
    add_view_gains,
    best_epoch_facts,
    copy_view_gains,
    export,
    prove,
    require_onnx,
    write_onnx,
    write_report,
)
from tune_smp.workflows.ensembling import add_ensemble
from tune_smp.workflows.preparation import prepare
from tune_smp.workflows.printing import output
from tune_smp.workflows.refit import Refit, has_time
from tune_smp.workflows.search_space import (
    look_at_weights,
    settings_record,
    space_under,
    with_fixed,
    with_trial_budget,
)
from tune_smp.workflows.search_study import earlier_records
from tune_smp.workflows.searching import SpaceSearch
from tune_smp.workflows.starting_weights import adopt_pretrained, check_pretrained, fetch_encoder_weights
from tune_smp.workflows.task import Best, Task
from tune_smp.workflows.training import FixedRun
from tune_smp.workflows.trials import under_ray


def train(settings: RunSettings, *, listeners: Sequence[Listener] = ()) -> Summary:
    """Train one fixed configuration and export its best epoch; ``listeners`` hear of its epochs.

    Raises SettingsError, DataError, ResourceError; NoTrialSucceededError when training failed; InterruptedRunError
    after Ctrl-C or SIGTERM, with the best epoch so far exported.
    """
    with _new_folder(settings, "train") as folder:
        settings = adopt_pretrained(settings)
        data = prepare(settings, folder)
        check_pretrained(settings, data.store)
        fetch_encoder_weights([settings])
        write_settings(folder, "train", settings.to_json())
        return run_task(FixedRun(settings, folder, data, listeners=listeners))


def search(settings: SearchSettings, *, listeners: Sequence[Listener] = ()) -> Summary:
    """Search the space, prune the poor trials, and export the best epoch of the best one; ``listeners`` hear of trials.

    Raises SettingsError, DataError, ResourceError; NoTrialSucceededError when no trial gave a model;
    InterruptedRunError after Ctrl-C or SIGTERM, with the best so far exported.
    """
    settings = with_trial_budget(adopt_pretrained(settings))
    space = space_under(read_space(settings.search_space), settings)
    # Found wrong now, not when everything has begun.
    read_portfolio(settings.portfolio, space)
    if settings.warm_start is not None:
        earlier_records(settings.warm_start)
    with _new_folder(settings, "search") as folder:
        record = settings_record(settings, space)
        settings = with_fixed(settings, space)
        data = prepare(settings, folder)
        look_at_weights(space, data)
        write_settings(folder, "search", record, space=as_json(space))
        try:
            return run_task(SpaceSearch(settings, folder, data, space, listeners=listeners))
        except ResourceError:
            if not folder.study.exists():  # refused before the first trial: there is nothing to resume
                folder.settings.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _new_folder(settings: RunFlags, command: str) -> Iterator[RunFolder]:
    """The output folder, empty and claimed for this process, its logs open."""
    require_onnx(settings)
    with claimed(settings.output_dir) as folder:
        start_afresh(folder, overwrite=settings.overwrite)
        with logged(folder.logs, command):
            yield folder


def run_task(task: Task) -> Summary:
    """Run the trials to their end, or to where they are interrupted, and leave all that is worth keeping in the folder.

    Raises the ``failure`` of the task's conclusion; InterruptedRunError after Ctrl-C or SIGTERM, with the best so far
    exported; ResourceError where Ray, a node or the disk does not give what is needed.
    """
    started = time.monotonic()
    with noting_interruption(task.folder, lambda: _interrupted_at_once(task)):
        ending, ledger = "completed", task.finished()  # all were run, and the program died before it could export
        if ledger is None:
            from tune_smp.tuning.tuner import run_trials  # noqa: PLC0415  ray takes half a second to import

            with under_ray(task) as (session, config_of):
                ledger, listeners = session.ledger, [*session.listeners, session.display, *task.listeners]
                for plan in task.plans(session):
                    ending = _worse(ending, run_trials(ledger, plan, config_of, listeners))
                    if ending == "interrupted":
                        break
                for listener in listeners:
                    listener.search_ended(ending)
        best = task.best(ledger.records())
        summary = _summary(task, ending, ledger, best)
        if best is not None:
            summary = _deliver(task, best, summary, ledger.records())
            summary = _refit(task, best, ledger.records(), summary)
        summary = dataclasses.replace(summary, seconds=round(time.monotonic() - started, 1))
        summary.write(task.folder)
        write_report(task.folder, task.data, metric_name=task.settings.metric_name, device=task.settings.device)
        write_onnx(task.settings, task.folder)
        _conclude(task, summary, ledger.records())
    return summary


def _worse(ending: str, other: str) -> str:
    """How two parts of a task ended, in one word."""
    order = ("completed", "out_of_time", "interrupted")
    return max(ending, other, key=order.index)


def _summary(task: Task, ending: str, ledger: Ledger, best: Best | None) -> Summary:
    """How it went, as far as that is known before the export."""
    records = ledger.records()
    return Summary(
        task.command,
        metric=task.settings.metric_name,
        best_metric=best.saved.state["best_metric"] if best else None,
        best_epoch=best.saved.state["best_epoch"] if best else None,
        best_trial=best.record.number if best else None,
        trials=dict(Counter(record.state for record in records)),
        **{"epochs": sum(record.epochs for record in records), **task.account(ending, ledger, best)},
    )


def _deliver(task: Task, best: Best, summary: Summary, records: Sequence[TrialRecord]) -> Summary:
    """Export the best epoch and prove the export; keep the state from which ``--pretrainedModel`` starts."""
    state, settings = best.saved.state, task.settings_of(best.record)
    task.keep(best.saved)
    if "used" in state:  # a checkpoint of an older version does not say what it ran with
        write_used(task.folder, state["used"])
    export(settings, task.folder, task.data, state)
    evaluated = prove(settings, task.folder, task.data, state)
    ensemble = None
    if summary.state != "interrupted":  # whoever interrupts is waiting, and resumes
        ensemble = add_ensemble(task, best, records)
        add_view_gains(settings, task.folder, task.data, state)
    return dataclasses.replace(
        summary,
        evaluated_metric=evaluated,
        ensemble=ensemble,
        model=str(task.folder.model),
        **best_epoch_facts(state, task.data.store.class_map.names, settings.metric),
    )


def _refit(task: Task, best: Best, records: Sequence[TrialRecord], summary: Summary) -> Summary:
    """Train on all images and export beside the proved model, where that is wanted."""
    proof = None if summary.state == "interrupted" else task.proof(best, records, summary)
    if proof is None:
        return summary
    if not has_time(proof):
        output.print(
            "note: no time is left for a refit; a longer --timeBudget has it, and --refit false keeps none free"
        )
        return summary
    # Whatever ends the program from here on, the task can be resumed.
    dataclasses.replace(summary, state="interrupted").write(task.folder)
    refit = Refit(task.folder, task.data, proof)
    output.print(refit.announcement)
    ledger = refit.finished()
    if ledger is None:
        from tune_smp.tuning.tuner import run_trials  # noqa: PLC0415  ray takes half a second to import

        with under_ray(refit) as (session, config_of):
            ledger = session.ledger
            ending = run_trials(ledger, session.plan, config_of, [*session.listeners, session.display])
        if ending == "interrupted":
            return dataclasses.replace(summary, state="interrupted")
    trained = refit.best(ledger.records())
    if trained is None or not refit.is_sound(trained):
        reason = ledger.record(0).reason or "it is worse on images that it was trained on"
        output.print(f"note: the refit is left out: {reason}")
        return summary
    refit.keep(trained.saved)
    state = trained.saved.state
    export(refit.settings, refit.folder, refit.data, state, proved=refit.proved(state))
    prove(refit.settings, refit.folder, refit.data, state, thresholds=best_report(state)["thresholds"])
    copy_view_gains(task.folder, refit.folder)
    return dataclasses.replace(summary, refit=refit.facts(trained.record))


def _interrupted_at_once(task: Task) -> Summary:
    """Summarise in no time, without a model."""
    reason = "a second Ctrl-C ended it at once"
    return Summary(task.command, "interrupted", task.settings.metric_name, reason=reason)


def _conclude(task: Task, summary: Summary, records: Sequence[TrialRecord]) -> None:
    """Say how it ended and what to type next; an end without success is raised."""
    conclusion = task.conclusion(summary, records)
    paths: tuple[str, ...] = ()
    if summary.model is not None:
        paths = (f"model: {summary.model}", f"report: {task.folder.report}")
    if summary.refit is not None:
        paths = (
            *paths,
            f"refit: {summary.refit['model']} (predict --model OUT takes it; OUT/model is the one measured)",
        )
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
