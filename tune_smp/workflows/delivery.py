"""Delivery of a run or a search: the exported model, proved, and the report."""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Sequence
from typing import Any

from tune_smp.choices.metrics import Metric
from tune_smp.data.preprocessing import read_preprocessing
from tune_smp.errors import Problem, TuneSmpError
from tune_smp.results.folder import RunFolder
from tune_smp.results.model_card import Proved
from tune_smp.settings.run import RunFlags, RunSettings
from tune_smp.training.run_state import RunState, best_report, metric_at_half
from tune_smp.workflows.preparation import PreparedData
from tune_smp.workflows.printing import output

logger = logging.getLogger(__name__)

# The same tensors on the same pixels; a GPU in half precision adds in another order.
EVALUATION_TOLERANCE = 2e-3
# What test-time augmentation gains is measured in this share of the run's time.
MEASURING, SHORTEST_MEASURING_S, LONGEST_MEASURING_S = 0.02, 2.0, 20.0


def export(
    settings: RunSettings, folder: RunFolder, data: PreparedData, state: RunState, *, proved: Proved | None = None
) -> None:
    """Write ``model/`` from the state of a run; ``proved`` speaks for a run on all images."""
    from tune_smp.results.export import export_best  # noqa: PLC0415  imports torch

    export_best(folder, state, settings, data.store, data.regions, proved=proved)


def prove(
    settings: RunSettings,
    folder: RunFolder,
    data: PreparedData,
    state: RunState,
    *,
    thresholds: Sequence[float] | None = None,
) -> float:
    """Load the exported model as a user would, and evaluate it on all validation images: its metric.

    That is above the thresholds that were exported, which predict will use, where no others are given. Raises
    TuneSmpError where that is not what the run reported for its best epoch.
    """
    from tune_smp.training.pretrained import load_exported  # noqa: PLC0415  imports torch
    from tune_smp.training.run import TrainingRun  # noqa: PLC0415

    run = TrainingRun(settings, data.store, data.regions, state=state)
    run.model.load_state_dict(load_exported(folder.model).state_dict())
    exported = read_preprocessing(folder.model).class_thresholds
    metric = run.validate(exported if thresholds is None else thresholds).metric
    if not math.isclose(metric, state["best_metric"], abs_tol=EVALUATION_TOLERANCE):
        said = f"the exported model has {settings.metric_name} {metric:.6f}, its run said {state['best_metric']:.6f}"
        raise TuneSmpError(Problem(said, str(folder.model), "do not use this model; see logs/, and run again"))
    return metric


def add_view_gains(settings: RunFlags, folder: RunFolder, data: PreparedData, state: RunState) -> None:
    """Measure what test-time augmentation gains with the exported model, and put it into ``model/``.

    It takes a fiftieth of the time of the run, between 2 and 20 s. The model is good without it: what goes wrong here
    is reported, not raised.
    """
    from tune_smp.inference.view_measurement import measure_views  # noqa: PLC0415  imports torch
    from tune_smp.results.export import write_views  # noqa: PLC0415

    metric, device = settings.metric_name, settings.device
    try:
        took = sum(row["seconds"] for row in state["history"])
        seconds = min(max(MEASURING * took, SHORTEST_MEASURING_S), LONGEST_MEASURING_S)
        gains = measure_views(
            folder.model, data.store, data.regions, metric_name=metric, device=device, seconds=seconds
        )
        if gains is not None:
            write_views(folder.model, gains)
    except Exception as error:
        logger.exception("test-time augmentation could not be measured")
        output.print(f"note: what test-time augmentation gains could not be measured ({error})")


def copy_view_gains(proved: RunFolder, refit: RunFolder) -> None:
    """A refit has no images to measure on: what holds for the proved model holds for it."""
    from tune_smp.results.export import write_views  # noqa: PLC0415  imports torch

    gains = read_preprocessing(proved.model).views
    if gains is not None:
        write_views(refit.model, gains)


def require_onnx(settings: RunFlags) -> None:
    """Raise SettingsError where ONNX is asked for and cannot be written: said before anything is trained."""
    if settings.export_onnx:
        from tune_smp.results.onnx_export import require_onnx as require  # noqa: PLC0415

        require()


def write_onnx(settings: RunFlags, folder: RunFolder) -> None:
    """Write ``model/model.onnx`` where it is asked for and not there yet; what goes wrong is reported, not raised."""
    from tune_smp.results.onnx_export import ONNX_NAME  # noqa: PLC0415
    from tune_smp.results.onnx_export import write_onnx as write  # noqa: PLC0415

    path = folder.model / ONNX_NAME
    if not settings.export_onnx or not folder.model.is_dir() or path.exists():
        return
    reason = write(folder.model)
    if reason:
        logger.warning("ONNX was not written: %s", reason)
        where = shlex.quote(str(folder.path))
        output.print(f"note: the model could not be written as ONNX ({reason}); try again: tune-smp resume {where}")
    else:
        output.print(f"as ONNX: {path}")


def best_epoch_facts(state: RunState, names: Sequence[str], metric: Metric) -> dict[str, Any]:
    """The fields of the summary on the best epoch's classes: their IoU, their thresholds, and the metric without."""
    report = best_report(state)
    return {
        # None for a class that occurs neither in labels nor in predictions.
        "class_iou": dict(zip(names, report["class_iou"], strict=True)),
        "thresholds": dict(zip(names, report.get("thresholds", ()), strict=False)),
        "metric_at_half": metric_at_half(report, metric),
    }


def write_report(folder: RunFolder, data: PreparedData, *, metric_name: str, device: str) -> None:
    """Write report.html, with validation images where there is a model.

    Everything else is in the folder by now: whatever goes wrong here is reported, and ends nothing.
    """
    from tune_smp.inference.examples import validation_examples  # noqa: PLC0415  imports torch
    from tune_smp.results.report.page import write_page  # noqa: PLC0415  imports matplotlib

    try:
        examples = (
            validation_examples(folder.model, data.store, data.regions, metric_name=metric_name, device=device)
            if folder.model.is_dir()
            else ()
        )
        write_page(folder, examples)
    except Exception as error:
        logger.exception("the report could not be written")
        where = shlex.quote(str(folder.path))
        output.print(f"note: the report could not be written ({error}); try: tune-smp report {where}")
