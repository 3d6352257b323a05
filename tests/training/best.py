"""The weights of a run's best epoch, as its checkpoint holds them."""

from __future__ import annotations

from torch import Tensor

from tune_smp.training.run import TrainingRun


def best_weights(run: TrainingRun) -> dict[str, Tensor]:
    """Copies, by name; none before there is a best epoch."""
    state = run.state_dict()
    weights = state["model"] if state["best_model"] is None else state["best_model"]
    return {name: tensor.clone() for name, tensor in weights.items()} if run.best_epoch else {}
