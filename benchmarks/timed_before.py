"""What an earlier program, which cannot be told a time, reaches in the ten CPU minutes of ``timed_run.py``.

A script that runs with that program instead of the installed one. Its training is stopped after as many CPU seconds;
`EPOCHS` of twenty steps just fit into them on one thread of a machine that another run keeps busy, so that its schedule
ends with the time. Adds a row for each seed: steps of the best epoch, its metric, and the metric on images kept back.

    git archive 8071003 | tar x -C FOLDER
    PYTHONPATH=FOLDER python benchmarks/timed_before.py --data COLLECTIONS [--part 0/2]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import cast

import torch

sys.path.append(str(Path(__file__).parents[1]))  # after PYTHONPATH's: benchmarks of here, the program of there

from benchmarks.kept_back import COLLECTIONS, split
from benchmarks.recording import own_part, recording_parser
from benchmarks.tables import add_row
from tune_smp.data.opening import find_collection, open_store
from tune_smp.settings.run import RunSettings
from tune_smp.training.run import TrainingRun

TABLE = Path(__file__).parent / "data" / "timed_before.csv"
COLUMNS = ("program", "seed", "steps", "metric", "kept")
COLLECTION = "nuclei-binary"
SECONDS = 600.0
EPOCHS, STEPS = 9, 20
SEEDS = range(3)


def record(data: Path, seed: int) -> None:
    """Train the default of its space `quick` once, and add a row."""
    folder = str(data / COLLECTION)
    flags = {
        **COLLECTIONS[COLLECTION],
        "imagesDir": folder,
        "labelsDir": folder,
        "outputDir": folder,
        "segmentationMode": COLLECTION.rpartition("-")[2],
        "encoderBaseVariantWeights": "ResNet,resnet18,random",
        "tileSize": 128,
        "batchSize": 16,
        "stepsPerEpoch": STEPS,
        "maxEpochs": EPOCHS,
        "patience": EPOCHS,
        "device": "cpu",
        "seed": seed,
    }
    settings = RunSettings.from_flags(flags)
    store = open_store(settings, find_collection(settings))
    train, validation, kept = split(store, settings)
    run = TrainingRun(settings, store, train + validation)
    begun = time.process_time()
    best = run.state_dict()
    while run.stop is None:
        run.run_epoch()
        if time.process_time() - begun > SECONDS:
            break
        if run.best_epoch == run.epoch:
            best = run.state_dict()
            best["model"] = {name: tensor.clone() for name, tensor in best["model"].items()}
    unseen = TrainingRun(settings, store, train + kept)
    unseen.model.load_state_dict(best["model"])
    iou = cast(float, unseen.validate(settings.metric))  # type: ignore[arg-type]  # of that program
    values = ("before", seed, best["epoch"] * STEPS, round(best["best_metric"], 5), round(iou, 5))
    add_row(TABLE, COLUMNS, dict(zip(COLUMNS, values, strict=True)))


def main() -> None:
    arguments = recording_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    for seed in own_part(SEEDS, arguments.part):
        record(arguments.data.resolve(), seed)


if __name__ == "__main__":
    main()
