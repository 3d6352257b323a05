"""The state of a run, as its checkpoint holds it: shared by training, checkpoints, trials, export and summary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

if TYPE_CHECKING:
    from torch import Tensor


class StepState(TypedDict):
    """What the optimizer has learnt, and how batches are worked off.

    ``optimizer`` and ``scaler`` are the ``state_dict`` of torch's own; a batch is cut into 2 ** ``halvings`` pieces.
    """

    optimizer_name: str
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    halvings: int


class RunState(StepState):
    """Where a run stands after an epoch.

    ``shape`` is ``ModelShape.to_json``; ``history`` has one ``EpochReport`` as a mapping for each epoch, and ``epoch``
    counts those of an earlier run (``epochs_before``) too. ``best_epoch`` is 0 and ``best_metric`` NaN while no epoch
    had finite losses. ``model`` are the weights after the last epoch, ``best_model`` those of the best one, on the CPU;
    None where the last epoch is the best. ``used`` says what settings leave open, or the machine decides;
    checkpoints of older versions lack it.
    """

    shape: dict[str, Any]
    batch_size: int
    epoch: int
    epochs_before: int
    best_epoch: int
    best_metric: float
    stop: str | None
    history: list[dict[str, Any]]
    notes: tuple[str, ...]
    used: NotRequired[dict[str, Any]]
    early_stopping: dict[str, float | int]
    model: dict[str, Tensor]
    best_model: dict[str, Tensor] | None
