"""Record complete learning curves of random configurations of the space ``quick``, for ``search_efficiency.py``.

Small tiles, short epochs and few validation images, so that 120 configurations take an hour or two of one CPU core.
Configuration 0 is the plain default. What is recorded already is not run again; several processes share the work with
``--part``.

    python benchmarks/record_curves.py --data FOLDER_OF_NUCLEI [--configurations 120] [--part 0/2]
"""

from __future__ import annotations

import argparse
import csv
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch

from tune_smp.data.opening import find_collection, open_store
from tune_smp.data.split import split_groups, split_regions
from tune_smp.training.run import TrainingRun
from tune_smp.tuning.first_points import default_values
from tune_smp.tuning.space import Scalar, SearchSpace, values_by_flag
from tune_smp.tuning.space_file import read_space
from tune_smp.tuning.study import suggest_from

TABLE = Path(__file__).parent / "data" / "quick_nuclei_curves.csv"
TILE_SIZE = 64  # px
STEPS_PER_EPOCH = 10
TRAIN_FRACTION = 0.96  # 8 of the 200 images validate


def quick_space(data: Path) -> SearchSpace:
    flags = {
        "imagesDir": str(data),
        "labelsDir": str(data),
        "imagesPattern": "nuclei_{i:ddd}.tif",
        "labelsPattern": "nuclei_{i:ddd}_mask.tif",
        "segmentationMode": "binary",
        "outputDir": str(data / "unused"),
        "trainFraction": TRAIN_FRACTION,
        "tileSize": TILE_SIZE,
        "stepsPerEpoch": STEPS_PER_EPOCH,
        "device": "cpu",
    }
    return read_space("quick").with_flags(flags)


def random_points(space: SearchSpace, count: int) -> list[Mapping[str, Scalar]]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points: list[Mapping[str, Scalar]] = [values_by_flag(default_values(space))]
    while len(points) < count:
        trial = study.ask()
        points.append(space.walk(functools.partial(suggest_from, trial)))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--configurations", type=int, default=120)
    parser.add_argument("--part", default="0/1", help="this process and how many there are: 0/2")
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    part, parts = map(int, arguments.part.split("/"))
    torch.set_num_threads(1)
    space = quick_space(arguments.data.resolve())
    settings = space.settings({})
    store = open_store(settings, find_collection(settings))
    regions = split_regions(
        store.sizes,
        split_groups(store.collection, None),
        names=[pair.name for pair in store.pairs],
        train_fraction=settings.train_fraction,
        seed=settings.seed,
    )
    for number, point in enumerate(random_points(space, arguments.configurations)):
        if number % parts == part and number not in _recorded(arguments.table):
            started = time.process_time()
            run = TrainingRun(space.settings(point), store, regions)
            while run.stop is None:
                run.run_epoch()
            curve = [row["best_metric"] for row in run.history]
            _add(arguments.table, space, number, point, curve, seconds=time.process_time() - started)


def _recorded(table: Path) -> set[int]:
    if not table.exists():
        return set()
    with table.open(newline="", encoding="utf-8") as file:
        return {int(row["configuration"]) for row in csv.DictReader(file)}


def _add(
    table: Path, space: SearchSpace, number: int, point: Mapping[str, Any], curve: Sequence[float], *, seconds: float
) -> None:
    """Append a row in one write; a run that diverged keeps its last value, 0 where it had none."""
    epochs = space.most_epochs()
    full = [*curve, *[curve[-1] if curve else 0.0] * (epochs - len(curve))]
    columns = ["configuration", *space.searched, "cpu_seconds", *(f"epoch_{number + 1}" for number in range(epochs))]
    values = [
        number,
        *(point.get(flag, "") for flag in space.searched),
        round(seconds, 1),
        *(round(v, 5) for v in full),
    ]
    is_new = not table.exists()
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(columns)
        writer.writerow(values)


if __name__ == "__main__":
    main()
