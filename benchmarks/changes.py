"""One change at a time to a sensible run, at equal CPU time: what the space of the recorded curves does not hold.

Runs are those of ``record_curves.py`` (`SECONDS` of CPU time, one thread, every fourth image kept back), on five
collections and three seeds. `REFIT` is trained on the validation images too, and predicts above the thresholds of the
run without a change; views are those of test-time augmentation, averaged over the tiles of that run.

    python -m benchmarks.changes --data COLLECTIONS [--part 0/2]
    python -m benchmarks.changes --report
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ablations import show
from benchmarks.kept_back import COLLECTIONS, split
from benchmarks.record_curves import SENSIBLE, recorded_space
from benchmarks.tables import add_row, rows_of
from tune_smp.choices.views import PRESETS, Preset, View
from tune_smp.data.opening import find_collection, open_store
from tune_smp.data.split import all_for_training
from tune_smp.inference.views import turned, turned_back
from tune_smp.training.metrics import PixelCounts
from tune_smp.training.run import TrainingRun
from tune_smp.training.run_state import best_report
from tune_smp.tuning.space import Scalar

TABLE = Path(__file__).parent / "data" / "changes.csv"
VIEWS: Sequence[Preset] = ("flips", "all")
COLUMNS = ("change", "collection", "seed", "steps", "kept_half", "kept", *VIEWS, "thresholds")
SEEDS = range(3)
NOTHING, REFIT = "nothing", "refit on all images"
CHANGES: Mapping[str, Mapping[str, Scalar]] = {
    NOTHING: {},
    REFIT: {},
    "--lossName DiceFocalLoss": {"lossName": "DiceFocalLoss"},
    "--decoderAttention scse": {"decoderAttention": "scse"},
}


def record(data: Path, change: str, collection: str, seed: int) -> dict[str, Any]:
    """Train once, and score on the images kept back."""
    settings = recorded_space(data, collection, seed).settings({**SENSIBLE, **CHANGES[change]})
    store = open_store(settings, find_collection(settings))
    train, validation, kept = split(store, settings)
    regions = all_for_training(train + validation) if change == REFIT else train + validation
    run = TrainingRun(settings, store, regions, clock=time.process_time)
    while run.stop is None:
        run.run_epoch()
    state = run.state_dict()
    thresholds = best_report(state)["thresholds"]
    if change == REFIT:
        pair = {"change": NOTHING, "collection": collection, "seed": str(seed)}
        (plain,) = (row for row in rows_of(TABLE) if pair.items() <= row.items())
        thresholds = tuple(map(float, plain["thresholds"].split()))
    unseen = TrainingRun(settings, store, train + kept)
    unseen.model.load_state_dict(dict(state["best_model"] or state["model"]))
    unseen.model.eval()
    views: dict[str, float] = {}
    if change == NOTHING:
        views = {name: kept_metric(unseen, PRESETS[name], thresholds) for name in VIEWS}
    return {
        **{"change": change, "collection": collection, "seed": seed, "steps": run.steps, **views},
        **{"kept_half": kept_metric(unseen, PRESETS["none"], ()), "thresholds": " ".join(map(str, thresholds))},
        "kept": kept_metric(unseen, PRESETS["none"], thresholds),
    }


@torch.inference_mode()
def kept_metric(unseen: TrainingRun, views: Sequence[View], thresholds: Sequence[float]) -> float:
    """The metric where the mean of the views' probabilities is above the thresholds."""
    settings = unseen.settings
    counts = PixelCounts(settings.segmentation_mode, unseen.shape.classes)
    for tiles in unseen.feed.validation():
        seen = (turned_back(probabilities(unseen, turned(tiles.images, view)), view) for view in views)
        counts.add_probabilities(reduce(torch.add, seen) / len(views), tiles.masks)
    return round(float(getattr(counts.metrics(thresholds), settings.metric.key)), 5)


def probabilities(run: TrainingRun, images: Tensor) -> Tensor:
    logits = run.step.forward(images.contiguous(memory_format=torch.channels_last)).float()
    return logits.softmax(dim=1) if run.settings.segmentation_mode == "multiclass" else logits.sigmoid()


def report() -> None:
    """Print paired differences to the run without a change, with intervals over collections and seeds."""
    kept = {(row["change"], row["collection"], row["seed"]): float(row["kept"]) for row in rows_of(TABLE)}
    for row in rows_of(TABLE):
        for name in VIEWS:
            if row["change"] == NOTHING:
                kept[f"views: {name}", row["collection"], row["seed"]] = float(row[name])
    for change in dict.fromkeys(change for change, _, _ in kept):
        runs = [(name, "", seed) for other, name, seed in kept if other == change != NOTHING]
        show(change, runs, lambda run, change=change: kept[change, run[0], run[2]] - kept[NOTHING, run[0], run[2]])  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="the folder of the collections")
    parser.add_argument("--part", default="0/1", help="this process and how many there are: 0/2")
    parser.add_argument("--report", action="store_true", help="print what the table says")
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    part, parts = map(int, arguments.part.split("/"))
    torch.set_num_threads(1)
    pairs = [(name, seed) for seed in SEEDS for name in COLLECTIONS]
    for name, seed in pairs[part::parts]:  # all changes of one pair in one process: some look at the run without
        for change in CHANGES:
            if (change, name, str(seed)) not in {
                (row["change"], row["collection"], row["seed"]) for row in rows_of(TABLE)
            }:
                add_row(TABLE, COLUMNS, record(arguments.data.resolve(), change, name, seed))


if __name__ == "__main__":
    main()
