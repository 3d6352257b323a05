"""``--gpusPerTrial auto``: the part of a GPU with which the trials of a search train most together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tune_smp.results.folder import RunFolder
from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.space import SearchSpace
from tune_smp.workflows.preparation import PreparedData
from tune_smp.workflows.printing import note, output

if TYPE_CHECKING:
    from tune_smp.tuning.cluster import Node


def gpus_of_a_trial(
    settings: SearchSettings, space: SearchSpace, data: PreparedData, folder: RunFolder, nodes: Sequence[Node]
) -> float | None:
    """Measured with the default of the space; None, a whole GPU where there is one, where it cannot be measured."""
    from tune_smp.tuning.first_points import default_values  # noqa: PLC0415  imports optuna
    from tune_smp.tuning.packing import measured_load  # noqa: PLC0415  imports ray
    from tune_smp.tuning.trainable import TrialConfig  # noqa: PLC0415  imports ray

    if settings.device == "cpu" or not any(node.gpus >= 1 for node in nodes):
        return None
    default = space.settings(default_values(space))
    trial = TrialConfig(default.to_json(), store=data.store.path, split=folder.split)
    load = measured_load(nodes, trial, cpus=settings.cpus_per_trial, most=settings.max_concurrent_trials)
    if load is None:
        note(["--gpusPerTrial auto: the default could not be measured, so every trial has a GPU of its own"])
        return None
    many = f"{load.trials} trials share a GPU" if load.trials > 1 else "every trial has a GPU of its own"
    output.print(f"--gpusPerTrial auto: {many}, at {load.speed:.0f} tiles per second together")
    return 1.0 / load.trials
