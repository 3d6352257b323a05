"""How many trials share a GPU: trained side by side for a few seconds, before the search begins."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_smp.tuning.cluster import Node
from tune_smp.tuning.shares import share_out
from tune_smp.tuning.trainable import TrialConfig, build_run, share_the_machine
from tune_smp.tuning.worker_environment import write_as_the_user_does

logger = logging.getLogger(__name__)

NUMBERS = (2, 4, 8)
"""Trials on one GPU that are tried, one number after the other."""
WORTH_IT = 1.1
"""Tiles per second, against the number before, that make a number worth its larger share of failures and memory."""
MEMORY_SHARE = 0.9
"""Of the GPU, that the trials may take together: other trials than the one measured need more."""
MEASURED_S = 3.0
WARM_UP_STEPS = 3
LONGEST_S = 120.0  # that workers may take to start and to warm up


@dataclass(frozen=True, slots=True)
class Load:
    """So many ``trials`` side by side: their tiles per second together, and the most memory that one of them took, as
    a share of the GPU's."""

    trials: int
    speed: float
    memory: float


def best_load(measure: Callable[[int], Load | None]) -> Load | None:
    """The load of as many trials as are worth it, from few to many; None where a single trial cannot be measured.

    ``measure`` gives None where so many trials do not run. The search ends at the first number that does not fit or is
    not worth it.
    """
    best = measure(1)
    for number in NUMBERS:
        if best is None or number * best.memory > MEMORY_SHARE:
            break
        load = measure(number)
        if load is None or number * load.memory > MEMORY_SHARE or load.speed < WORTH_IT * best.speed:
            break
        best = load
    return best


def measured_load(
    nodes: Sequence[Node], trial: TrialConfig, *, cpus: int | None, most: int | None = None
) -> Load | None:
    """How many trials like this one share a GPU best, on the first of the nodes that has one.

    ``cpus`` are those of a trial, None for an even share; ``most`` trials run at once in all. Takes half a minute:
    workers start for every number.
    """
    node = next(node for node in nodes if node.gpus >= 1)
    # One GPU with its share of the node's cores, as trials have it when every GPU is in use.
    part = replace(node, gpus=1.0, cpus=node.cpus / node.gpus)

    def measure(number: int) -> Load | None:
        share = share_out([part], cpus=cpus, gpus=1.0 / number, most=most, with_gpu=True)
        if share.concurrency < number:
            return None
        return _side_by_side(node, replace(trial, cpus=share.cpus, gpus=share.gpus), number)

    return best_load(measure)


def _side_by_side(node: Node, trial: TrialConfig, number: int) -> Load | None:
    on_node = NodeAffinitySchedulingStrategy(node.id, soft=False)
    trainee = ray.remote(_Trainee).options(num_cpus=trial.cpus, num_gpus=trial.gpus, scheduling_strategy=on_node)
    actors = [trainee.remote(trial) for _ in range(number)]
    try:
        ray.get([actor.warm_up.remote() for actor in actors], timeout=LONGEST_S)
        found = ray.get([actor.train.remote(MEASURED_S) for actor in actors], timeout=LONGEST_S)
    except (RayError, TimeoutError):
        logger.info("%d trials side by side do not run", number, exc_info=True)
        return None
    finally:
        for actor in actors:
            ray.kill(actor)
    if not all(fits for _, _, fits in found):
        logger.info("%d trials side by side do not fit into memory", number)
        return None
    load = Load(number, sum(speed for speed, _, _ in found), max(memory for _, memory, _ in found))
    logger.info("%d trials on one GPU: %.1f tiles/s, %.0f %% of its memory each", number, load.speed, 100 * load.memory)
    return load


class _Trainee:
    """A trial that trains for some seconds, in a worker of its own."""

    def __init__(self, trial: TrialConfig) -> None:
        write_as_the_user_does()
        share_the_machine(trial)
        self._run = build_run(trial)
        self._run.model.train()
        self._batches: Iterator[Any] = self._run.feed.training(1, without_end=True)

    def warm_up(self) -> None:
        """Take the first steps, in which kernels are chosen and memory is set aside."""
        for _ in range(WARM_UP_STEPS):
            self._run.step(next(self._batches))
        self._wait()

    def train(self, seconds: float) -> tuple[float, float, bool]:
        """Train so long; tiles per second, the share of the GPU's memory at the peak, and whether every batch fitted
        into memory whole."""
        tiles, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            batch = next(self._batches)
            self._run.step(batch)
            tiles += len(batch)
        self._wait()  # for what was launched and not yet computed
        return tiles / (time.perf_counter() - begun), self._memory(), self._run.step.halvings == 0

    def _wait(self) -> None:
        import torch  # noqa: PLC0415  workers only

        if self._run.device.type == "cuda":
            torch.cuda.synchronize(self._run.device)

    def _memory(self) -> float:
        import torch  # noqa: PLC0415  workers only

        if self._run.device.type != "cuda":
            return 0.0
        _, total = torch.cuda.mem_get_info(self._run.device)
        return torch.cuda.max_memory_reserved(self._run.device) / total
