"""What an earlier program, which cannot be told a time, reaches in the ten CPU minutes of ``timed_run.py``.

A script that runs with that program instead of the installed one. Its training is stopped after as many CPU seconds.
``--epochs``, of twenty steps, must be as many as just fit into them on one thread of this machine, so that its schedule
ends with the time: 9 on an EPYC without AVX-512, 20 on one with AVX512-BF16, both kept busy by another run. Adds a row
for each seed: steps of the best epoch, its metric, and the metric on images kept back. Rows of the program ``now`` are
those of ``timed_run.py``, made beside it, under the number of epochs that its pair had time for.

    git archive 8071003 | tar x -C FOLDER
    PYTHONPATH=FOLDER python benchmarks/timed_before.py --data COLLECTIONS [--epochs 20] [--part 0/2]
    python benchmarks/timed_before.py --report
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from statistics import fmean
from typing import cast

import torch

sys.path.append(str(Path(__file__).parents[1]))  # after PYTHONPATH's: benchmarks of here, the program of there

from benchmarks.kept_back import data_flags, split
from benchmarks.recording import own_part, recording_parser
from benchmarks.tables import add_row, rows_of
from tune_smp.data.opening import find_collection, open_store
from tune_smp.settings.run import RunSettings
from tune_smp.training.run import TrainingRun

TABLE = Path(__file__).parent / "data" / "timed_before.csv"
COLUMNS = ("program", "epochs", "seed", "steps", "metric", "kept")
COLLECTION = "nuclei-binary"
SECONDS = 600.0
STEPS = 20
SEEDS = range(3)


def record(data: Path, seed: int, *, epochs: int) -> None:
    """Train the default of its space `quick` once, and add a row."""
    folder = data / COLLECTION
    flags = {
        **data_flags(folder, COLLECTION),
        "outputDir": str(folder),
        "encoderBaseVariantWeights": "ResNet,resnet18,random",
        "tileSize": 128,
        "batchSize": 16,
        "stepsPerEpoch": STEPS,
        "maxEpochs": epochs,
        "patience": epochs,
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
    values = ("before", epochs, seed, best["epoch"] * STEPS, round(best["best_metric"], 5), round(iou, 5))
    add_row(TABLE, COLUMNS, dict(zip(COLUMNS, values, strict=True)))


def report() -> None:
    """Print what now has more than before, for each number of epochs."""
    kept = {(row["program"], row["epochs"], row["seed"]): float(row["kept"]) for row in rows_of(TABLE)}
    for epochs in sorted({of for _, of, _ in kept}, key=int):
        gains = [kept["now", epochs, str(seed)] - kept["before", epochs, str(seed)] for seed in SEEDS]
        print(f"| {epochs} | {fmean(gains):+.4f} | {', '.join(f'{gain:+.4f}' for gain in gains)} |")


def main() -> None:
    parser = recording_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=9)
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    torch.set_num_threads(1)
    for seed in own_part(SEEDS, arguments.part):
        record(arguments.data.resolve(), seed, epochs=arguments.epochs)


if __name__ == "__main__":
    main()
