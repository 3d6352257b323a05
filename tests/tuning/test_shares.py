"""How nodes are shared out among trials."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_smp.tuning.cluster import Node
from tune_smp.tuning.shares import MOST_CPU_THREADS, share_out


def node(cpus: float, gpus: float = 0.0) -> Node:
    return Node("id", "127.0.0.1", cpus=cpus, gpus=gpus)


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([node(2)], {}, (1, 0, 2)),
        ([node(1)], {}, (1, 0, 1)),
        ([node(64)], {}, (8, 0, 8)),
        ([node(128)], {}, (8, 0, 16)),  # more threads than 8 gain little: more trials then
        ([node(12)], {}, (1, 0, 12)),
        ([node(8)], {"most": 2}, (4, 0, 2)),
        ([node(8)], {"cpus": 3}, (3, 0, 2)),
        ([node(8, 1)], {}, (8, 1, 1)),
        ([node(16, 4)], {}, (4, 1, 4)),
        ([node(16, 4)], {"with_gpu": False}, (2, 0, 8)),
        ([node(16, 1)], {"gpus": 0.25}, (4, 0.25, 4)),
        ([node(9, 1)], {"gpus": 1 / 3}, (3, 1 / 3, 3)),
        ([node(16, 4), node(8, 2)], {}, (4, 1, 6)),
        ([node(16, 4), node(32)], {}, (4, 1, 4)),  # nothing runs on the node without a GPU
        ([node(2), node(8)], {}, (1, 0, 10)),
    ],
)
def test_what_a_trial_gets(nodes: list[Node], asked: dict[str, float], expected: tuple[int, float, int]) -> None:
    share = share_out(nodes, **{"cpus": None, "gpus": None, "most": None, "with_gpu": True, **asked})  # type: ignore[arg-type]  # the cases leave most to the defaults
    assert (share.cpus, share.gpus, share.concurrency) == expected


@pytest.mark.parametrize("asked", [{"cpus": 99, "gpus": None}, {"cpus": None, "gpus": 99.0}])
def test_what_no_node_has_is_given_all_the_same(asked: dict[str, float | None]) -> None:
    """The check that follows says so in the user's words."""
    share = share_out([node(4, 1)], **asked, most=None, with_gpu=True)  # type: ignore[arg-type]  # as above
    assert share.concurrency == 1
    assert (share.cpus == 99) or (share.gpus == 99)


NODES = st.lists(st.builds(node, st.integers(1, 128).map(float), st.integers(0, 8).map(float)), min_size=1, max_size=4)


@settings(deadline=None)
@given(NODES, st.integers(1, 16) | st.none(), st.sampled_from([None, 0.0, 0.25, 1 / 3, 0.5, 1.0]), st.booleans())
def test_as_many_trials_as_said_fit_at_once(
    nodes: list[Node], most: int | None, gpus: float | None, with_gpu: bool
) -> None:
    share = share_out(nodes, cpus=None, gpus=gpus, most=most, with_gpu=with_gpu)
    fitting = 0
    for found in nodes:
        by_cpu = int(found.cpus // share.cpus)
        exact = Fraction(share.gpus).limit_denominator(100)
        fitting += min(by_cpu, int(Fraction(found.gpus) / exact)) if exact else by_cpu
    assert share.concurrency <= max(1, fitting)
    if most is not None:
        assert share.concurrency <= most
    else:
        assert share.concurrency == max(1, fitting), "room is left"


@settings(deadline=None)
@given(NODES, st.integers(1, 16) | st.none())
def test_without_a_gpu_threads_are_few_and_no_core_counts_twice(nodes: list[Node], most: int | None) -> None:
    share = share_out(nodes, cpus=None, gpus=0.0, most=most, with_gpu=False)
    assert 1 <= share.cpus <= MOST_CPU_THREADS
    assert share.concurrency * share.cpus <= sum(found.cpus for found in nodes)
