"""What an epoch reports, and the state of a run: plain mappings, shared by training, checkpoints, trials and export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

if TYPE_CHECKING:
    from torch import Tensor

    from tune_smp.choices.metrics import Metric


class EpochReport(TypedDict):
    """The result of one epoch; ``history`` of a run is a list of these.

    ``learning_rate`` is that of the epoch's last step. ``val_iou`` and the other metrics are those of pixels that are
    predicted above probability 0.5; ``metric``, the one that the settings name, and ``class_iou`` are those above the
    ``thresholds`` that suit each class best (none in multiclass mode). ``best_metric`` and ``best_epoch`` look at the
    ``metric`` of all epochs so far (NaN and 0: none had finite losses). ``class_iou`` has None for a class that occurs
    neither in labels nor in predictions. ``stop``: None while training continues, else completed, early_stopped or
    diverged. After a diverged training pass nothing is validated; what was not measured is NaN.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_iou: float
    val_fscore: float
    val_accuracy: float
    val_recall: float
    val_precision: float
    learning_rate: float
    seconds: float
    metric: float
    thresholds: tuple[float, ...]
    best_metric: float
    best_epoch: int
    stop: str | None
    class_iou: tuple[float | None, ...]
    batch_size: int


class Used(TypedDict):
    """The values that settings leave open, or the machine decides: ``used`` of settings.json."""

    batchSize: int
    stepsPerEpoch: int
    tileSize: int
    learningRate: float
    weightDecay: float
    device: str
    precision: str
    threads: int


class StepState(TypedDict):
    """The optimizer's state, and how batches are split to fit into memory.

    ``optimizer`` and ``scaler`` are the ``state_dict`` of torch's own; a batch is cut into 2 ** ``halvings`` pieces.
    """

    optimizer_name: str
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    halvings: int


class RunState(StepState):
    """The state of a run after an epoch.

    ``shape`` is ``ModelShape.to_json``; ``epoch`` counts those of an earlier run (``epochs_before``) too, ``steps`` do
    not. ``budget`` is what is spent of a time budget. ``best_epoch`` is 0 and ``best_metric`` NaN while no epoch had
    finite losses. ``model`` are the weights after the last epoch, ``best_model`` those of the best one, on the CPU;
    None where that is the last one as it is. ``image_counts``, where they were asked for, are the pixels (tp, fp, fn,
    tn) of each class, validation image by validation image, for the weights and thresholds of the best epoch.
    Checkpoints of older versions lack it, ``used``, ``steps`` and ``budget``.
    """

    shape: dict[str, Any]
    batch_size: int
    epoch: int
    epochs_before: int
    steps: NotRequired[int]
    budget: NotRequired[dict[str, float] | None]
    best_epoch: int
    best_metric: float
    stop: str | None
    history: list[EpochReport]
    notes: tuple[str, ...]
    used: NotRequired[Used]
    early_stopping: dict[str, float | int]
    model: dict[str, Tensor]
    best_model: dict[str, Tensor] | None
    image_counts: NotRequired[list[list[list[int]]] | None]


def best_report(state: RunState) -> EpochReport:
    """The report of the best epoch. Raises ValueError where there is none."""
    (report,) = (report for report in state["history"] if report["epoch"] == state["best_epoch"])
    return report


def format_of(state: RunState | None) -> str | None:
    """The number format in which a run was computed, as ``--precision`` names it; None where that is not known."""
    return state["used"]["precision"] if state is not None and "used" in state else None


def metric_at_half(report: EpochReport, metric: Metric) -> float:
    """The metric of an epoch where a class is predicted above probability 0.5."""
    return float(dict[str, Any](report)[metric.column])
