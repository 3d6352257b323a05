"""What bfloat16 is worth on a CPU: the same steps in both formats, in CPU seconds and in quality on images kept back.

The whole program trains the default net of the space `quick` (Unet with resnet18, tiles of 128 px, batches of 8) for as
many steps in float32 and in bfloat16, on one thread, two collections and five seeds; every fourth image is kept back.
Both runs of a pair are made one after the other, so that they meet the same load, and are scored in float32.

    python -m benchmarks.formats --data COLLECTIONS [--part 0/2]
    python -m benchmarks.formats --report
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablations import interval, show
from benchmarks.kept_back import data_flags, split
from benchmarks.recording import own_part, recording_parser
from benchmarks.scoring import scores
from benchmarks.tables import add_row, rows_of
from tune_smp.data.opening import find_collection, open_store
from tune_smp.settings.run import RunSettings
from tune_smp.training.run import TrainingRun
from tune_smp.training.run_state import best_report

TABLE = Path(__file__).parent / "data" / "formats.csv"
COLUMNS = ("format", "collection", "seed", "seconds", "metric", "kept_half", "kept")
FORMATS = PLAIN, SHORT = "float32", "bfloat16"
COLLECTIONS: Sequence[str] = ("membrane-binary", "nuclei-binary")
SEEDS = range(5)
RUN: Mapping[str, Any] = {
    "encoderBaseVariantWeights": "ResNet,resnet18,random",
    "tileSize": 128,
    "batchSize": 8,
    "stepsPerEpoch": 20,
    "maxEpochs": 6,
    "patience": 6,
    "device": "cpu",
}


def record(data: Path, number_format: str, collection: str, seed: int) -> dict[str, Any]:
    """Train once; the row. ``seconds``: CPU time of all epochs, validation included."""
    folder = data / collection
    flags = {**data_flags(folder, collection), **RUN, "outputDir": str(folder), "seed": seed}
    settings = RunSettings.from_flags({**flags, "precision": number_format})
    store = open_store(settings, find_collection(settings))
    train, validation, kept = split(store, settings)
    run = TrainingRun(settings, store, train + validation)
    begun = time.process_time()
    while run.stop is None:
        run.run_epoch()
    seconds = time.process_time() - begun
    state = run.state_dict()
    unseen = TrainingRun(RunSettings.from_flags({**flags, "precision": PLAIN}), store, train + kept)
    of_kept = scores(unseen, state["best_model"] or state["model"], best_report(state)["thresholds"])
    found = (round(seconds, 1), round(state["best_metric"], 5), *of_kept)
    return dict(zip(COLUMNS, (number_format, collection, seed, *found), strict=True))


def report() -> None:
    """Print what bfloat16 gains in speed and in quality, paired, beside what a seed changes."""
    rows = {(row["format"], row["collection"], row["seed"]): row for row in rows_of(TABLE)}
    pairs = [(name, "", seed) for of, name, seed in rows if of == SHORT and (PLAIN, name, seed) in rows]

    def both(pair: tuple[str, str, str], column: str) -> tuple[float, float]:
        plain, short = (float(rows[of, pair[0], pair[2]][column]) for of in FORMATS)
        return plain, short

    show("bfloat16", pairs, lambda pair: both(pair, "kept")[1] - both(pair, "kept")[0])
    for name in COLLECTIONS:
        taken = [plain / short for plain, short in (both(pair, "seconds") for pair in pairs if pair[0] == name)]
        kept = [both(pair, "kept")[0] for pair in pairs if pair[0] == name]
        if len(taken) > 1:
            low, high = interval(taken)
            print(
                f"{name}: {statistics.mean(taken):.2f} times the steps in the same CPU time ({low:.2f} to {high:.2f}); "
                f"standard deviation of the seeds in float32: {statistics.stdev(kept):.4f}"
            )


def main() -> None:
    parser = recording_parser(__doc__)
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    torch.set_num_threads(1)
    jobs = [(name, seed) for seed in SEEDS for name in COLLECTIONS]
    for name, seed in own_part(jobs, arguments.part):
        done = {(row["format"], row["collection"], row["seed"]) for row in rows_of(TABLE)}
        for number_format in FORMATS if seed % 2 == 0 else reversed(FORMATS):
            if (number_format, name, str(seed)) not in done:
                add_row(TABLE, COLUMNS, record(arguments.data.resolve(), number_format, name, seed))


if __name__ == "__main__":
    main()
