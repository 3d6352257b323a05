"""How much of a cluster a trial gets, and how many trials run at once. Pure numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tune_smp.tuning.cluster import Node

# Without a GPU a trial gains little from more threads than this, and too many trials at once learn little from each
# other.
MOST_CPU_THREADS = 8
TRIALS_ON_A_CPU_NODE = 8


@dataclass(frozen=True, slots=True)
class TrialShare:
    """CPU cores and GPUs (fractions allowed) of one trial, and how many trials fit at once."""

    cpus: int
    gpus: float
    concurrency: int


def share_out(
    nodes: Sequence[Node], *, cpus: int | None, gpus: float | None, most: int | None, with_gpu: bool
) -> TrialShare:
    """Share the nodes out among trials; what is asked for is given, even where no node has it.

    ``most`` trials run at once at the most; ``with_gpu`` is whether a trial takes a GPU where ``gpus`` does not say.
    """
    has_gpu = any(node.gpus >= 1 for node in nodes)
    own_gpus = gpus if gpus is not None else float(has_gpu and with_gpu)
    own_cpus = cpus or max(
        1, min((_cpus_on(node, own_gpus, most) for node in nodes if node.gpus >= own_gpus), default=1)
    )
    fitting = sum(_fitting(node, own_cpus, own_gpus) for node in nodes)
    return TrialShare(own_cpus, own_gpus, max(1, min(fitting, most or fitting)))


def _cpus_on(node: Node, gpus: float, most: int | None) -> int:
    """Cores that a trial can have on this node if as many trials run there as it has room for."""
    if gpus > 0:
        return max(1, int(node.cpus / (node.gpus / gpus)))
    at_once = min(node.cpus, TRIALS_ON_A_CPU_NODE, most or node.cpus)
    return min(MOST_CPU_THREADS, max(1, int(node.cpus // max(1, at_once))))


def _fitting(node: Node, cpus: int, gpus: float) -> int:
    by_cpu = int(node.cpus // cpus)
    # 1e-9: a third of a GPU three times is a whole one.
    return by_cpu if gpus == 0 else min(by_cpu, int(node.gpus / gpus + 1e-9))
