"""How many trials share a GPU: the rule on numbers, the measurement under a real Ray that believes in a GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.tuning.trials import tiny_trial
from tune_smp.tuning import packing
from tune_smp.tuning.cluster import Node, local_ray
from tune_smp.tuning.packing import Load, best_load, measured_load
from tune_smp.tuning.trainable import TrialConfig


@pytest.mark.parametrize(
    ("speeds", "memory", "wanted"),
    [
        ({1: 100.0, 2: 190.0, 4: 300.0, 8: 305.0}, 0.1, 4),  # eight are not worth it
        ({1: 100.0, 2: 105.0, 4: 400.0}, 0.1, 1),  # not looked at further
        ({1: 100.0, 2: 190.0, 4: 300.0}, 0.3, 2),  # four would take 1.2 of the memory
        ({1: 100.0, 2: 190.0}, 0.5, 1),
        ({1: 100.0, 2: 190.0}, 0.1, 2),  # four did not run
        ({1: 100.0, 2: 190.0}, {1: 0.4, 2: 0.46}, 1),  # each takes more than it did alone
    ],
)
def test_more_trials_share_a_gpu_while_they_fit_and_train_more(
    speeds: Mapping[int, float], memory: float | Mapping[int, float], wanted: int
) -> None:
    asked: list[int] = []

    def measure(number: int) -> Load | None:
        asked.append(number)
        share = memory if isinstance(memory, float) else memory[number]
        return Load(number, speeds[number], share) if number in speeds else None

    best = best_load(measure)

    assert best is not None
    assert best.trials == wanted
    assert asked == sorted(asked)
    assert len(asked) <= sum(number <= 2 * wanted for number in (1, 2, 4, 8))


def test_where_one_trial_does_not_run_nothing_is_known() -> None:
    assert best_load(lambda _: None) is None


@pytest.mark.parametrize(
    ("cpus", "most", "wanted"),
    [
        (None, None, [8, 4, 2, 1]),  # an eighth of the node's cores is one GPU's
        (2, None, [2, 2, 2]),  # eight of two cores each find no room beside one GPU
        (8, None, [8]),
        (None, 2, [8, 4]),
        (None, 1, [8]),
    ],
)
def test_trials_are_measured_with_the_cores_that_the_search_gives_them(
    monkeypatch: pytest.MonkeyPatch, cpus: int | None, most: int | None, wanted: list[int]
) -> None:
    measured: list[int] = []

    def side_by_side(_: Node, trial: TrialConfig, number: int) -> Load:
        assert trial.gpus == 1 / number
        measured.append(trial.cpus)
        return Load(number, 100.0 * number, 0.01)

    monkeypatch.setattr(packing, "_side_by_side", side_by_side)
    load = measured_load(
        [Node("a", "here", cpus=8, gpus=0), Node("b", "there", cpus=64, gpus=8)],
        TrialConfig({}, Path("store"), Path("split.csv")),
        cpus=cpus,
        most=most,
    )
    assert load is not None
    assert load.trials == 2 ** (len(measured) - 1)
    assert measured == wanted


@pytest.fixture(scope="module")
def one_gpu() -> Iterator[Node]:
    """A real Ray on this machine, told that it has a GPU; its node."""
    init = ray.init

    def with_a_gpu(**options: Any) -> Any:
        return init(**{**options, "num_cpus": 2, "num_gpus": 1})

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ray, "init", with_a_gpu)
        with local_ray() as resources:
            yield resources.nodes[0]


def test_trials_are_trained_side_by_side(one_gpu: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MEASURED_S", 0.3)
    monkeypatch.setattr(packing, "WORTH_IT", 0.0)
    trial = tiny_trial(tmp_path)
    on_cpu = {**trial.settings, "values": {**trial.settings["values"], "device": "cpu"}}

    load = measured_load([one_gpu], dataclasses.replace(trial, settings=on_cpu), cpus=None)

    assert load is not None
    assert load.trials == 2  # four would need more cores than there are
    assert load.speed > 0


def test_a_trial_that_does_not_run_is_no_error(one_gpu: Node, tmp_path: Path) -> None:
    trial = dataclasses.replace(tiny_trial(tmp_path), split=tmp_path / "no split")
    assert measured_load([one_gpu], trial, cpus=None) is None
