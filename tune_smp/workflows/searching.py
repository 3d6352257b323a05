"""A search, from two folders to the best model."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_smp.choices.states import trial_state
from tune_smp.errors import InterruptedRunError, NoTrialSucceededError, Problem, ResourceError, listing
from tune_smp.results.folder import RunFolder, claimed, start_afresh
from tune_smp.results.leaderboard import write_trials
from tune_smp.results.logs import logged
from tune_smp.results.summary import SearchSummary, noting_interruption, write_settings, write_used
from tune_smp.search.outcome import TrialRecord, best_of
from tune_smp.search.space import ENCODER, FLAGS, MODEL, SearchSpace
from tune_smp.search.space_checks import check_space
from tune_smp.search.space_file import parse_space, read_space
from tune_smp.search.space_records import as_json as space_as_json
from tune_smp.settings.command_line import words_for
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings
from tune_smp.workflows.delivery import class_iou, export, prove, require_onnx, write_onnx, write_report
from tune_smp.workflows.preparation import PreparedData, console, prepare, tell
from tune_smp.workflows.trials import earlier_records, run_trials, trials_folder
from tune_smp.workflows.weights import adopt_pretrained, check_pretrained, fetch_encoder_weights

if TYPE_CHECKING:
    from tune_smp.search.checkpoints import SavedRun

# What a trial's command line need not say: it does not change the numbers.
NOT_REPRODUCED = ("overwrite", "debug", "dashboard", "dashboardHost", "dashboardPort", "cacheDir")


def search(settings: SearchSettings) -> SearchSummary:
    """Search the space, prune the poor trials, and export the best epoch of the best one.

    Raises SettingsError, DataError, ResourceError; NoTrialSucceededError when no trial gave a model;
    InterruptedRunError after Ctrl-C or SIGTERM, with the best so far exported.
    """
    require_onnx(settings)
    settings = adopt_pretrained(settings)
    space = _space_for(read_space(settings.search_space), settings)
    if settings.warm_start is not None:
        earlier_records(settings.warm_start)  # found wrong now, not when everything has begun
    with claimed(settings.output_dir) as folder:
        start_afresh(folder, overwrite=settings.overwrite)
        with logged(folder.logs, "search"):
            record = settings_record(settings, space)
            settings = with_fixed(settings, space)
            data = prepare(settings, folder)
            _look_at_weights(space, data)
            write_settings(folder, "search", record, space=space_as_json(space))
            try:
                return run(settings, space, folder, data)
            except ResourceError:
                if not folder.study.exists():  # refused before the first trial: nothing has begun that could go on
                    folder.settings.unlink(missing_ok=True)
                raise


def stored_space(record: Mapping[str, Any], settings: SearchSettings) -> SearchSpace:
    """The space that settings.json holds: the file may have changed since."""
    return _space_for(parse_space(record["space"]["text"], name=record["space"]["name"]), settings)


def with_fixed(settings: SearchSettings, space: SearchSpace) -> SearchSettings:
    """The settings of the search under its space: what it fixes of data, metric, seed and machine is not the trials'
    alone."""
    fixed = {
        FLAGS[flag].field: value
        for flag, value in space.fixed.items()
        if FLAGS[flag].about.group in ("Data", "Machine") or flag in ("metricName", "seed")
    }
    return settings.with_changes(**fixed) if fixed else settings


def settings_record(settings: SearchSettings, space: SearchSpace) -> dict[str, Any]:
    """What settings.json holds: the values as they are under the space, and the flags that the command line gave."""
    return {**with_fixed(settings, space).to_json(), "given": settings.to_json()["given"]}


def _space_for(space: SearchSpace, settings: SearchSettings) -> SearchSpace:
    """The space under the command line, checked whole."""
    given = settings.given_run_flags()
    overridden = [flag for flag in space.searched if flag in given]
    narrowed = space.with_flags(given)
    check_space(narrowed)
    tell(f"--{flag} is given: {given[flag]} for every trial, not searched" for flag in overridden)
    return narrowed


def _look_at_weights(space: SearchSpace, data: PreparedData) -> None:
    """Everything that trials start from is there, or fetched, before the first one starts."""
    models = {encoder: space.model_for(encoder) for encoder in space.encoder_choices()}
    # Data and weights alone matter here: what else a trial needs stays at its default.
    kept = {name: value for name, value in space.given.items() if FLAGS[name].about.group in ("Data", "Output")}
    kept |= {name: space.given[name] for name in ("pretrainedModel", "replaceHead") if name in space.given}
    settings = [RunSettings.from_flags({**kept, MODEL: models[encoder], ENCODER: encoder}) for encoder in models]
    check_pretrained(settings[0], data.store)
    fetch_encoder_weights(settings)


@dataclasses.dataclass(frozen=True, slots=True)
class Best:
    """The best trial, and its newest checkpoint, which holds the weights of its best epoch."""

    record: TrialRecord
    saved: SavedRun


def run(settings: SearchSettings, space: SearchSpace, folder: RunFolder, data: PreparedData) -> SearchSummary:
    """Search to the end, or to where it is interrupted, and leave everything that is worth keeping in the folder."""
    with noting_interruption(folder, lambda: _interrupted_at_once(settings)):
        return _run(settings, space, folder, data)


def _interrupted_at_once(settings: SearchSettings) -> SearchSummary:
    """What can be said in no time, without a model; the trials are in the study."""
    return SearchSummary(
        state="interrupted",
        metric=settings.metric_name,
        best_metric=None,
        best_epoch=None,
        best_trial=None,
        default_metric=None,
        trials={},
        epochs=0,
        epochs_saved=0,
        reason="a second Ctrl-C ended it at once",
    )


def _run(settings: SearchSettings, space: SearchSpace, folder: RunFolder, data: PreparedData) -> SearchSummary:
    started = time.monotonic()
    ending, study = run_trials(settings, space, folder, data)
    records = study.records()
    write_trials(folder, [record.as_row() for record in records], searched=space.searched)
    best = _best_saved(records, trials_folder(settings, folder))
    summary = _summarise(settings, records, best, ending=ending)
    if best is not None:
        # Of the best trial; one that an older version stored does not say.
        write_used(folder, best.saved.state.get("used", {}))
        trial = space.settings(best.record.flags)
        summary = dataclasses.replace(
            summary,
            evaluated_metric=_deliver(best, trial, folder, data),
            model=str(folder.model),
            class_iou=class_iou(best.saved.state, data.store.class_map.names),
            importances=study.importances(),
            reproduce=_reproduce(best, trial, folder),
        )
    summary = dataclasses.replace(summary, seconds=round(time.monotonic() - started, 1))
    summary.write(folder)
    write_report(folder, data, metric_name=settings.metric_name, device=settings.device)
    write_onnx(settings, folder)
    _conclude(summary, folder, records, images_pattern=settings.images_pattern)
    return summary


def _summarise(
    settings: SearchSettings, records: Sequence[TrialRecord], best: Best | None, *, ending: str
) -> SearchSummary:
    """Everything that the trials themselves say; what else there is to say, ``run`` adds."""
    state = ending if best or ending == "interrupted" else "failed"
    return SearchSummary(
        state=state,
        metric=settings.metric_name,
        best_metric=best.saved.state["best_metric"] if best else None,
        best_epoch=best.saved.state["best_epoch"] if best else None,
        best_trial=best.record.number if best else None,
        default_metric=next((record.best_metric for record in records if record.number == 0), None),
        trials=dict(Counter(record.state for record in records)),
        epochs=sum(record.epochs for record in records),
        epochs_saved=sum(record.epochs_saved for record in records),
        reason=None if best else _why_none(records),
    )


def _best_saved(records: Sequence[TrialRecord], trials: Path) -> Best | None:
    """The best trial of which a checkpoint is there, and that checkpoint."""
    from tune_smp.search.checkpoints import newest_of_trial  # noqa: PLC0415  imports torch

    remaining = list(records)
    while record := best_of(remaining):
        saved = newest_of_trial(trials, record.number)
        if saved is not None and saved.state["best_epoch"]:
            return Best(record, saved)
        remaining.remove(record)
    return None


def _deliver(best: Best, settings: RunSettings, folder: RunFolder, data: PreparedData) -> float:
    """Export the best epoch, and keep the state from which ``--pretrainedModel`` goes on; the metric of the export."""
    from tune_smp.training import checkpoint  # noqa: PLC0415  imports torch

    export(settings, folder, data, best.saved.state)
    checkpoint.save(best.saved.state, folder.checkpoint)
    return prove(settings, folder, data, best.saved.state)


def _reproduce(best: Best, settings: RunSettings, folder: RunFolder) -> str:
    """The command that trains the best trial again, with the batch size as it was measured where it was not given."""
    exact = settings.with_changes(batch_size=best.saved.state["batch_size"], output_dir=Path(f"{folder.path}-again"))
    return shlex.join(["tune-smp", "train", *words_for(exact, leave_out=NOT_REPRODUCED)])


def _why_none(records: Sequence[TrialRecord]) -> str:
    """Why no trial gave a model: the reasons, the most frequent first."""
    reasons = Counter(record.reason or record.state for record in records)
    return listing([f"{reason} ({count} of {len(records)})" for reason, count in reasons.most_common()], limit=5)


def _conclude(
    summary: SearchSummary, folder: RunFolder, records: Sequence[TrialRecord], *, images_pattern: str
) -> None:
    """Say how it ended and what to type next; an end without a model is raised."""
    where = shlex.quote(str(folder.path))
    counts = ", ".join(f"{count} {state}" for state, count in sorted(summary.trials.items()))
    console.print(f"{len(records)} trials: {counts or 'none'}")
    if summary.model is not None:
        console.print(_headline(summary))
        console.print(f"model: {summary.model}")
        console.print(f"report: {folder.report}")
        console.print(f"train it again: {summary.reproduce}")
    go_on = f"go on with: tune-smp resume {where}"
    if summary.state == "interrupted":
        raise InterruptedRunError(Problem("interrupted", str(folder.path), go_on))
    if summary.model is None:
        raise NoTrialSucceededError(_nothing(summary, folder, records, go_on))
    if summary.state == "out_of_time":
        console.print(f"the time budget is used up; {go_on}")
    pattern = shlex.quote(images_pattern)
    console.print(
        f"next: tune-smp predict --model {where} --imagesDir IMAGES --imagesPattern {pattern} --outputDir MASKS"
    )


def _headline(summary: SearchSummary) -> str:
    best = f"best {summary.metric} {summary.best_metric:.4f}: trial {summary.best_trial}, epoch {summary.best_epoch}"
    if summary.default_metric is None or summary.best_metric is None:
        return f"{best} (the default, trial 0, gave no model)"
    return f"{best}; {summary.best_metric - summary.default_metric:+.4f} against the default (trial 0)"


def _nothing(summary: SearchSummary, folder: RunFolder, records: Sequence[TrialRecord], go_on: str) -> Problem:
    failed = [record for record in records if trial_state(record.state).went_wrong]
    if not failed:
        return Problem("the time was over before any trial had a result", str(folder.path), go_on)
    log = folder.trial_log(failed[0].number)
    where = str(log if log.exists() else folder.logs)
    fix = f"see trials.csv for every trial's reason; {go_on}" if summary.state == "out_of_time" else "see trials.csv"
    return Problem(f"no trial succeeded: {summary.reason}", where, fix)
