"""What the mean of the weights of two runs is worth: model soups, of runs of one configuration.

The sensible run of ``record_curves.py`` (`SECONDS` of CPU time, one thread, every fourth image kept back) is trained
three times on one split: a first time, from the same initial weights in another order and augmentation, and from other
initial weights. The means of the first and each of the others, with statistics of batch normalisation taken anew, are
compared with the better of the two by validation.

    python -m benchmarks.soups --data COLLECTIONS [--part 0/2]
    python -m benchmarks.soups --report
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ablations import show
from benchmarks.changes import warm_up
from benchmarks.kept_back import COLLECTIONS, split
from benchmarks.record_curves import SENSIBLE, recorded_space
from benchmarks.recording import own_part, recording_parser
from benchmarks.scoring import scores
from benchmarks.tables import add_row, rows_of
from tune_smp.data.opening import find_collection, open_store
from tune_smp.training.batch_norm import statistics_of
from tune_smp.training.run import TILES_FOR_STATISTICS, TrainingRun
from tune_smp.training.run_state import RunState, best_report

TABLE = Path(__file__).parent / "data" / "soups.csv"
COLUMNS = ("of", "collection", "seed", "val_one", "val_other", "val", "kept_better", "kept")
ONE_START, TWO_STARTS = "one start, two orders", "two starts"

Weights = Mapping[str, Tensor]


def weights_of(state: RunState) -> Weights:
    return {name: tensor.clone() for name, tensor in (state["best_model"] or state["model"]).items()}


def mean(one: Weights, other: Weights) -> dict[str, Tensor]:
    return {name: (tensor + other[name]) / 2 if tensor.is_floating_point() else tensor for name, tensor in one.items()}


def record(data: Path, collection: str, seed: int) -> None:
    """Train three times, and add a row for each soup."""
    space = recorded_space(data, collection, seed)
    settings = space.settings(SENSIBLE)
    store = open_store(settings, find_collection(settings))
    train, validation, kept = split(store, settings)
    other_order = settings.with_changes(seed=settings.seed + 100)

    def trained(seeded: Any, start: Weights | None = None) -> tuple[Weights, RunState]:
        run = TrainingRun(seeded, store, train + validation, clock=time.process_time)
        if start is not None:
            run.model.load_state_dict(dict(start))
        begun = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        while run.stop is None:
            run.run_epoch()
        return begun, run.state_dict()

    start, one = trained(settings)
    _, same = trained(other_order, start)
    _, fresh = trained(other_order)
    rows = []
    for name, other in ((ONE_START, same), (TWO_STARTS, fresh)):
        ahead = max(one, other, key=lambda state: state["best_metric"])
        unseen = TrainingRun(settings, store, train + kept)
        kept_better = scores(unseen, weights_of(ahead), best_report(ahead)["thresholds"])[1]
        run = TrainingRun(settings, store, train + validation)
        run.model.load_state_dict(mean(weights_of(one), weights_of(other)))
        tiles = run.feed.plain_training(1, tiles=TILES_FOR_STATISTICS, batch_size=run.batch_size)
        with statistics_of(run.model, (batch.images for batch in tiles)):
            found = run.validate()
            of_soup = scores(unseen, run.model.state_dict(), found.thresholds)[1]
        values = (name, collection, seed, one["best_metric"], other["best_metric"], found.metric, kept_better, of_soup)
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    for row in rows:  # both at once: a run that is begun again looks for any
        add_row(TABLE, COLUMNS, row)


def report() -> None:
    """Print paired differences on images kept back, with intervals over collections and seeds."""
    rows = {(row["collection"], row["of"], row["seed"]): row for row in rows_of(TABLE)}
    for name in (ONE_START, TWO_STARTS):
        runs = [run for run in rows if run[1] == name]
        show(
            f"soup of {name}",
            runs,
            lambda run: float(rows[run]["kept"]) - float(rows[run]["kept_better"]),
        )


def main() -> None:
    parser = recording_parser(__doc__)
    parser.add_argument("--seeds", default="0")
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    torch.set_num_threads(1)
    warm_up(arguments.data.resolve())
    pairs = [(name, seed) for seed in map(int, arguments.seeds.split(",")) for name in COLLECTIONS]
    for name, seed in own_part(pairs, arguments.part):
        if (name, str(seed)) not in {(row["collection"], row["seed"]) for row in rows_of(TABLE)}:
            record(arguments.data.resolve(), name, seed)


if __name__ == "__main__":
    main()
