"""One fixed configuration, from two folders to a model."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tune_smp.choices.states import trial_state
from tune_smp.errors import InterruptedRunError, NoTrialSucceededError, Problem
from tune_smp.results.folder import RunFolder, claimed, start_afresh
from tune_smp.results.history import History
from tune_smp.results.logs import logged
from tune_smp.results.summary import RunSummary, noting_interruption, write_settings, write_used
from tune_smp.search.outcome import TrialOutcome
from tune_smp.settings.run import RunSettings
from tune_smp.workflows.delivery import class_iou, export, prove, require_onnx, write_onnx, write_report
from tune_smp.workflows.preparation import PreparedData, console, prepare, say_stopping, tell
from tune_smp.workflows.weights import adopt_pretrained, check_pretrained, fetch_encoder_weights


def train(settings: RunSettings) -> RunSummary:
    """Train one fixed configuration and export its best epoch.

    Raises SettingsError, DataError, ResourceError; NoTrialSucceededError when training failed; InterruptedRunError
    after Ctrl-C or SIGTERM, with the best epoch so far exported.
    """
    require_onnx(settings)
    with claimed(settings.output_dir) as folder:
        start_afresh(folder, overwrite=settings.overwrite)
        with logged(folder.logs, "train"):
            settings = adopt_pretrained(settings)
            data = prepare(settings, folder)
            check_pretrained(settings, data.store)
            fetch_encoder_weights([settings])
            write_settings(folder, "train", settings.to_json())
            return run(settings, folder, data)


def run(settings: RunSettings, folder: RunFolder, data: PreparedData) -> RunSummary:
    """Train to the end, or to where it is interrupted, and leave everything that is worth keeping in the folder."""
    with noting_interruption(folder, lambda: _interrupted_at_once(settings, folder)):
        return _run(settings, folder, data)


def _run(settings: RunSettings, folder: RunFolder, data: PreparedData) -> RunSummary:
    from tune_smp.search.checkpoints import keep_newest, newest_whole  # noqa: PLC0415  imports torch

    started = time.monotonic()
    saved = newest_whole(folder.trials, folder.checkpoint)
    if saved is None or saved.state["stop"] is None:
        outcome = _train(settings, folder, data, start_from=saved.path if saved else None)
        saved = newest_whole(folder.trials, folder.checkpoint)
    else:
        # Everything was trained, and the program died before it could export.
        outcome = TrialOutcome(saved.state["stop"])
    if saved is not None:
        keep_newest(saved, folder.checkpoint, trials=folder.trials)
    # A run that diverged in its first epoch has a state, but nothing in it is worth exporting.
    best = saved.state if saved and saved.state["best_epoch"] else None
    evaluated = None
    if best is not None:
        export(settings, folder, data, best)
        evaluated = prove(settings, folder, data, best)
    names = data.store.class_map.names
    summary = _summarise(settings, folder, outcome, best, class_names=names, seconds=time.monotonic() - started)
    summary = dataclasses.replace(summary, evaluated_metric=evaluated)
    summary.write(folder)
    write_report(folder, data, metric_name=settings.metric_name, device=settings.device)
    write_onnx(settings, folder)
    _conclude(summary, folder, outcome, images_pattern=settings.images_pattern)
    return summary


def _train(settings: RunSettings, folder: RunFolder, data: PreparedData, *, start_from: Path | None) -> TrialOutcome:
    from tune_smp.search.cluster import Dashboard, local_ray  # noqa: PLC0415  ray takes half a second to import
    from tune_smp.search.progress import EpochProgress  # noqa: PLC0415
    from tune_smp.search.trainable import TrialConfig  # noqa: PLC0415
    from tune_smp.search.tuner import run_single  # noqa: PLC0415

    dashboard = Dashboard(settings.dashboard_host, settings.dashboard_port) if settings.dashboard else None
    history = History(folder.history)
    told: set[str] = set()
    with local_ray(device=settings.device, dashboard=dashboard) as resources:
        if resources.dashboard_url:
            console.print(f"dashboard: {resources.dashboard_url} (its token is in {resources.token})")
        with EpochProgress(console, metric_name=settings.metric_name, max_epochs=settings.max_epochs) as progress:

            def on_epoch(result: Mapping[str, Any]) -> None:
                tell(note for note in result["notes"] if note not in told)
                told.update(result["notes"])
                write_used(folder, result["used"])
                history.add(result)
                progress.show(result)

            config = TrialConfig(
                settings.to_json(),
                store=data.store.path,
                split=folder.split,
                start_from=start_from,
                cpus=resources.cpus,
                gpus=min(1.0, resources.gpus),
            )
            return run_single(
                config, storage=folder.path, name=folder.trials.name, on_epoch=on_epoch, on_stop=say_stopping
            )


def _summarise(
    settings: RunSettings,
    folder: RunFolder,
    outcome: TrialOutcome,
    best: Mapping[str, Any] | None,
    *,
    class_names: Sequence[str],
    seconds: float,
) -> RunSummary:
    return RunSummary(
        command="train",
        state=outcome.state,
        metric=settings.metric_name,
        best_metric=best["best_metric"] if best else None,
        best_epoch=best["best_epoch"] if best else None,
        epochs=len(best["history"]) if best else 0,
        model=str(folder.model) if best else None,
        seconds=round(seconds, 1),
        class_iou=class_iou(best, class_names) if best else {},
        trials={outcome.state: 1},
        reason=outcome.reason or (outcome.refusal.problems[0].problem if outcome.refusal else None),
    )


def _interrupted_at_once(settings: RunSettings, folder: RunFolder) -> RunSummary:
    """What can be said in no time, without a model."""
    epochs = len(History(folder.history).rows)
    return RunSummary(
        command="train",
        state="interrupted",
        metric=settings.metric_name,
        best_metric=None,
        best_epoch=None,
        epochs=epochs,
        model=None,
        seconds=0.0,
        class_iou={},
        trials={"interrupted": 1},
        reason="a second Ctrl-C ended it at once",
    )


def _conclude(summary: RunSummary, folder: RunFolder, outcome: TrialOutcome, *, images_pattern: str) -> None:
    """Say how it ended and what to type next; an end without success is raised."""
    where = shlex.quote(str(folder.path))
    if summary.model is not None:
        console.print(
            f"best {summary.metric} {summary.best_metric:.4f} at epoch {summary.best_epoch} ({summary.state})"
        )
        console.print(f"model: {summary.model}")
        console.print(f"report: {folder.report}")
    if outcome.refusal is not None:
        raise outcome.refusal
    if summary.state == "interrupted":
        raise InterruptedRunError(Problem("interrupted", str(folder.path), f"go on with: tune-smp resume {where}"))
    if not trial_state(summary.state).is_final:
        raise NoTrialSucceededError(
            Problem(f"training ended as {summary.state}: {summary.reason}", str(folder.logs), _way_out(summary))
        )
    pattern = shlex.quote(images_pattern)
    console.print(
        f"next: tune-smp predict --model {where} --imagesDir IMAGES --imagesPattern {pattern} --outputDir MASKS"
    )


def _way_out(summary: RunSummary) -> str:
    if summary.state == "diverged":
        return "try a smaller --learningRate, another --normalization, or --gradientClip 1"
    return "see the log; --debug shows the traceback"
