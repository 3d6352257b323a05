"""What one run reaches in ten CPU minutes, or a refit in five, on images kept back.

The runs are the sensible one of ``record_curves.py`` with some changes, and the default of the space `quick`. Each has
as many epochs as a time budget has, on one thread, in CPU seconds; every fourth image is kept back.

    python -m benchmarks.timed_run --data COLLECTIONS [--part 0/2] [--collections a,b] [--runs "a;b"] [--seeds 0,1]
    python -m benchmarks.timed_run --report
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.kept_back import COLLECTIONS
from benchmarks.record_curves import SENSIBLE, record
from benchmarks.recording import own_part, recording_parser
from benchmarks.tables import add_row, rows_of
from tune_smp.settings.run import EPOCHS_OF_A_BUDGET
from tune_smp.tuning.space import Scalar

TABLE = Path(__file__).parent / "data" / "timed_runs.csv"
COLUMNS = ("run", "collection", "seed", "steps", "metric", "kept_half", "kept")
SECONDS, SECONDS_OF_A_REFIT = 600.0, 300.0
RESNET, REGNET = "ResNet,resnet18,random", "RegNet(x/y),timm-regnetx_002,random"
_REGNET: Mapping[str, Scalar] = {"encoderBaseVariantWeights": REGNET, "augmentation": "medium"}
_REGNET_192: Mapping[str, Scalar] = {**_REGNET, "tileSize": 192, "batchSize": 4}
_DEFAULT: Mapping[str, Scalar] = {
    "encoderBaseVariantWeights": RESNET,
    "decoderChannels": 256,
    "learningRate": 1e-3,
    "batchSize": 16,
    "lossName": "JaccardLoss",
    "augmentation": "medium",
}
# What won two of five searches of ten minutes, in trials of 40 s; its refit has five minutes.
_WINNER: Mapping[str, Scalar] = {
    **_REGNET,
    **{"tileSize": 192, "encoderDepth": 4, "decoderChannels": 32, "learningRate": 0.0158, "batchSize": 12},
    **{"schedule": "constant", "augmentation": "none", "foregroundFraction": 0.54, "normalization": "zscore"},
}
# Its large tiles and its normalisation with a net of five stages, and a schedule that ends.
_WIDE: Mapping[str, Scalar] = {
    **_REGNET,
    **{"tileSize": 192, "batchSize": 8, "learningRate": 5e-3, "augmentation": "light", "normalization": "zscore"},
}
_REFITS: Mapping[str, Mapping[str, Scalar]] = {
    "winner": _WINNER,
    "winner, schedule cosine": {**_WINNER, "schedule": "cosine"},
    "winner, augmentation medium": {**_WINNER, "augmentation": "medium"},
    "winner, batches of 4": {**_WINNER, "batchSize": 4, "learningRate": 8e-3},
    "winner, batches of 4, schedule cosine": {**_WINNER, "batchSize": 4, "learningRate": 8e-3, "schedule": "cosine"},
    "wide": _WIDE,
    "wide, regnetx_004": {**_WIDE, "encoderBaseVariantWeights": "RegNet(x/y),timm-regnetx_004,random"},
    "wide, resnet18": {**_WIDE, "encoderBaseVariantWeights": RESNET, "learningRate": 2e-3},
}
RUNS: Mapping[str, Mapping[str, Scalar]] = {
    **_REFITS,
    "default": _DEFAULT,
    "default, batches of 4": {**_DEFAULT, "batchSize": 4},
    "default, learning rate 0.004": {**_DEFAULT, "learningRate": 4e-3},
    "mobilenet": {"augmentation": "medium"},
    "mobilenet, augmentation none": {"augmentation": "none"},
    "resnet18, decoder 64": {"encoderBaseVariantWeights": RESNET, "augmentation": "medium", "learningRate": 1e-3},
    "regnet": _REGNET,
    "regnet, decoder 128": {**_REGNET, "decoderChannels": 128},
    "regnet, learning rate 0.01": {**_REGNET, "learningRate": 1e-2},
    "regnet, schedule constant": {**_REGNET, "schedule": "constant"},
    "regnet, tiles of 96, batches of 12": {**_REGNET, "tileSize": 96, "batchSize": 12},
    "regnet, tiles of 192, batches of 4": _REGNET_192,
    "regnet, tiles of 192, batches of 4, learning rate 0.01": {**_REGNET_192, "learningRate": 1e-2},
    "regnet, tiles of 192, batches of 4, learning rate 0.01, schedule constant": {
        **_REGNET_192,
        "learningRate": 1e-2,
        "schedule": "constant",
    },
}
"""Flags that differ from those of the sensible run."""


def report() -> None:
    """Print the mean metric on images kept back, and each seed's."""
    kept: dict[tuple[str, str], list[float]] = {}
    for row in rows_of(TABLE):
        kept.setdefault((row["collection"], row["run"]), []).append(float(row["kept"]))
    for (collection, run), values in sorted(kept.items()):
        print(f"| {collection} | {run} | {fmean(values):.4f} | {', '.join(f'{value:.4f}' for value in values)} |")


def main() -> None:
    parser = recording_parser(__doc__)
    parser.add_argument("--collections", default=",".join(COLLECTIONS))
    parser.add_argument("--runs", default=";".join(RUNS), help="their names, with semicolons between them")
    parser.add_argument("--seeds", default="0,1,2")
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    torch.set_num_threads(1)
    jobs = [
        (name, run, seed)
        for seed in map(int, arguments.seeds.split(","))
        for name in arguments.collections.split(",")
        for run in arguments.runs.split(";")
    ]
    for name, run, seed in own_part(jobs, arguments.part):
        if (name, run, str(seed)) not in {(row["collection"], row["run"], row["seed"]) for row in rows_of(TABLE)}:
            point = {**SENSIBLE, "maxEpochs": EPOCHS_OF_A_BUDGET, **RUNS[run]}
            seconds = SECONDS_OF_A_REFIT if run in _REFITS else SECONDS
            found = record(arguments.data.resolve(), name, point, seed, seconds=seconds)
            best = max(map(float, found["metric"].split()))
            add_row(TABLE, COLUMNS, {"run": run, "collection": name, **found, "metric": best})


if __name__ == "__main__":
    main()
