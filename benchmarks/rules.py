"""What rules of training that no flag changes are worth: with and without, at equal CPU time.

The sensible run of ``record_curves.py`` for `SECONDS` of CPU time, on five collections, scored on images kept back;
every pair of runs is made one after the other, so that both meet the same load.

* momentum: smp's efficientnet-b0 with a BatchNorm momentum of 0.1, as this project builds it, or of 0.01, as smp does;
* validation: where a run has ten epochs or more, a tenth of its time for validation, or a fifth.

    python -m benchmarks.rules --data COLLECTIONS [--rules momentum,validation] [--seeds 0,1] [--part 0/2]
    python -m benchmarks.rules --report
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.ablations import show
from benchmarks.changes import warm_up
from benchmarks.kept_back import COLLECTIONS, split
from benchmarks.record_curves import SENSIBLE, recorded_space
from benchmarks.recording import own_part, recording_parser
from benchmarks.scoring import scores
from benchmarks.tables import add_row, rows_of
from tune_smp.data.opening import find_collection, open_store
from tune_smp.training import time_budget
from tune_smp.training.run import TrainingRun
from tune_smp.training.run_state import best_report
from tune_smp.tuning.space import Scalar

TABLE = Path(__file__).parent / "data" / "rules.csv"
COLUMNS = ("rule", "arm", "collection", "seed", "steps", "epochs", "metric", "last", "kept_half", "kept")
SECONDS = 100.0  # CPU
WITH, WITHOUT = "with", "without"


@contextlib.contextmanager
def momentum_of_smp(run: TrainingRun) -> Iterator[None]:
    for name, layer in run.model.named_modules():
        if name.startswith("encoder.") and isinstance(layer, _BatchNorm):
            layer.momentum = 0.01
    yield


@contextlib.contextmanager
def a_fifth_for_validation(_: TrainingRun) -> Iterator[None]:
    enough, time_budget.ENOUGH_EPOCHS = time_budget.ENOUGH_EPOCHS, math.inf
    try:
        yield
    finally:
        time_budget.ENOUGH_EPOCHS = enough


@dataclass(frozen=True)
class Rule:
    """How a run is kept from following it, and the flags that differ from those of the sensible run."""

    without: Callable[[TrainingRun], contextlib.AbstractContextManager[None]]
    flags: Mapping[str, Scalar]


RULES: Mapping[str, Rule] = {
    "momentum": Rule(momentum_of_smp, {"encoderBaseVariantWeights": "EfficientNet,efficientnet-b0,random"}),
    "validation": Rule(a_fifth_for_validation, {"maxEpochs": 40}),
}


def record(data: Path, name: str, arm: str, collection: str, seed: int) -> dict[str, Any]:
    """Train once; the row. ``last`` is the metric of the last epoch, which has no time for statistics of now."""
    rule = RULES[name]
    settings = recorded_space(data, collection, seed, seconds=SECONDS).settings({**SENSIBLE, **rule.flags})
    store = open_store(settings, find_collection(settings))
    train, validation, kept = split(store, settings)
    run = TrainingRun(settings, store, train + validation, clock=time.process_time)
    with rule.without(run) if arm == WITHOUT else contextlib.nullcontext():
        while run.stop is None:
            run.run_epoch()
    state = run.state_dict()
    unseen = TrainingRun(settings, store, train + kept)
    of_kept = scores(unseen, state["best_model"] or state["model"], best_report(state)["thresholds"])
    of_run = (run.steps, run.epoch, state["best_metric"], run.last_report["metric"])
    return dict(zip(COLUMNS, (name, arm, collection, seed, *of_run, *of_kept), strict=True))


def report() -> None:
    """Print paired differences on images kept back, with intervals over collections and seeds."""
    kept = {(row["rule"], row["arm"], row["collection"], row["seed"]): float(row["kept"]) for row in rows_of(TABLE)}
    for rule in RULES:
        runs = [(where, "", seed) for of, arm, where, seed in kept if (of, arm) == (rule, WITH)]
        show(rule, runs, lambda run, rule=rule: kept[rule, WITH, run[0], run[2]] - kept[rule, WITHOUT, run[0], run[2]])  # type: ignore[misc]


def main() -> None:
    parser = recording_parser(__doc__)
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--collections", default=",".join(COLLECTIONS))
    parser.add_argument("--seeds", default="0,1")
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    torch.set_num_threads(1)
    data = arguments.data.resolve()
    warm_up(data)
    seeds = map(int, arguments.seeds.split(","))
    rules, collections = arguments.rules.split(","), arguments.collections.split(",")
    pairs = [(rule, name, seed) for seed in seeds for rule in rules for name in collections]
    for rule, name, seed in own_part(pairs, arguments.part):
        done = {(row["rule"], row["arm"], row["collection"], row["seed"]) for row in rows_of(TABLE)}
        for arm in (WITH, WITHOUT):
            if (rule, arm, name, str(seed)) not in done:
                add_row(TABLE, COLUMNS, record(data, rule, arm, name, seed))


if __name__ == "__main__":
    main()
