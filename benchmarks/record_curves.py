"""Record complete learning curves of configurations of ``recorded_space.yaml``, for ``search_efficiency.py``.

Every fourth image is kept back; of the others 70 % train and 30 % validate, drawn by the seed. Each run has the same
CPU time on one thread, `SECONDS`, training and validation together: a net that is four times faster gets four times the
steps. Recorded are, after each epoch, the metric, the metric with the running statistics of batch normalisation alone,
and the CPU seconds so far; and the metric of the best epoch on the images kept back.

Configuration 0 is the plain default, then come some that an expert would try, and from `FIRST_RANDOM` on random ones.
What is recorded already is not run again; several processes share the work with ``--part``.

    python -m benchmarks.record_curves --data COLLECTIONS [--collections membrane-binary] [--part 0/2]
    python -m benchmarks.record_curves --report

``--report`` prints what each change of `CHANGES` does to the metric on the images kept back, against `SENSIBLE`, paired
by collection and seed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from typing_extensions import override

from benchmarks.ablations import show
from benchmarks.kept_back import data_flags, split
from benchmarks.recording import own_part, recording_parser
from benchmarks.scoring import rounded, scores
from benchmarks.tables import add_row, rows_of
from tune_smp.data.opening import find_collection, open_store
from tune_smp.training.run import TrainingRun
from tune_smp.training.validation import Validation
from tune_smp.tuning.first_points import default_values
from tune_smp.tuning.space import Scalar, SearchSpace, values_by_flag
from tune_smp.tuning.space_file import parse_space
from tune_smp.tuning.study import suggest_from

HERE = Path(__file__).parent
SPACE = HERE / "recorded_space.yaml"
LEARNT_FROM = ("membrane-binary", "nuclei-binary", "camvid-multiclass", "nuclei-multilabel")
"""The collections that the portfolio is learnt from."""
RECORDED = (*LEARNT_FROM, "nuclei-multiclass")
"""The last one was recorded when all rules were chosen."""
SECONDS = 40  # CPU seconds of a run
SEEDS = (0, 1)
CONFIGURATIONS = 60
COLUMNS = ("configuration", "seed", "seconds", "metric", "running", "steps", "kept_half", "kept")
"""And the searched flags. The three curves are numbers with blanks between them, one for each epoch."""

QUICK_TILE_SIZE = 128  # px, of the space quick; train's own would leave time for a few steps only

# What is tried around it: one change at a time.
SENSIBLE: Mapping[str, Scalar] = {
    "modelName": "Unet",
    "encoderBaseVariantWeights": "MobileNet,timm-mobilenetv3_small_100,random",
    "tileSize": 128,
    "encoderDepth": 5,
    "decoderChannels": 64,
    "optimizerName": "Adam",
    "learningRate": 3e-3,
    "batchSize": 8,
    "schedule": "cosine",
    "lossName": "DiceCELoss",
    "augmentation": "light",
    "foregroundFraction": 0.33,
    "normalization": "percentile",
}
CHANGES: Sequence[Mapping[str, Scalar]] = (
    {},
    {"lossName": "JaccardLoss"},
    {"lossName": "DiceLoss"},
    {"learningRate": 1e-3},
    {"learningRate": 1e-2},
    {"batchSize": 4},
    {"batchSize": 16},
    {"tileSize": 192},
    {"augmentation": "none"},
    {"augmentation": "medium"},
    {"foregroundFraction": 0.0},
    {"normalization": "zscore"},
    {"decoderChannels": 32},
    {"decoderChannels": 128},
    {"encoderBaseVariantWeights": "ResNet,resnet18,random", "encoderDepth": 3},
    {"encoderBaseVariantWeights": "ResNet,resnet18,random", "encoderDepth": 4},
    {"encoderBaseVariantWeights": "RegNet(x/y),timm-regnetx_002,random"},
    {"encoderBaseVariantWeights": "RegNet(x/y),timm-regnetx_002,random", "encoderDepth": 4},
    {"modelName": "FPN", "encoderBaseVariantWeights": "RegNet(x/y),timm-regnetx_002,random"},
)
FIRST_RANDOM = 1 + len(CHANGES)


class Watched(TrainingRun):
    """A run that keeps what each validation of an epoch gave: with running statistics first."""

    @override
    def validate(self, thresholds: Sequence[float] | None = None) -> Validation:
        validated = super().validate(thresholds)
        self.validations.append((self.epoch, validated))
        return validated

    @property
    def validations(self) -> list[tuple[int, Validation]]:
        """The epoch and result of each validation, in their order."""
        found: list[tuple[int, Validation]] = self.__dict__.setdefault("_validations", [])
        return found


def table_of(collection: str) -> Path:
    return HERE / "data" / f"curves_{collection}.csv"


def recorded_space(data: Path, collection: str, seed: int = 0, *, seconds: float = SECONDS) -> SearchSpace:
    folder = data / collection
    flags = {
        **data_flags(folder, collection),
        "outputDir": str(folder),
        "timeBudget": f"{seconds:g}",
        "device": "cpu",
        "seed": seed,
    }
    return parse_space(SPACE.read_text("utf-8"), name=SPACE.name).with_flags(flags)


def points(space: SearchSpace, count: int) -> Iterator[Mapping[str, Scalar]]:
    """The configurations in their order, each with the flags that it has in the space."""
    yield {**values_by_flag(default_values(space)), "tileSize": QUICK_TILE_SIZE}
    for change in CHANGES:
        wanted = {**SENSIBLE, **change}
        yield space.walk(lambda name, _domain, wanted=wanted: wanted[name.partition("[")[0]])  # type: ignore[misc]
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(FIRST_RANDOM, count):
        yield space.walk(functools.partial(suggest_from, study.ask()))


def record(
    data: Path, collection: str, point: Mapping[str, Scalar], seed: int, *, seconds: float = SECONDS
) -> dict[str, Any]:
    """Train once; the columns of a row but for the number of the configuration."""
    space = recorded_space(data, collection, seed, seconds=seconds)
    settings = space.settings(point)
    store = open_store(settings, find_collection(settings))
    train, validation, kept = split(store, settings)
    run = Watched(settings, store, train + validation, clock=time.process_time)
    while run.stop is None:
        run.run_epoch()
    first = {epoch: found.metric for epoch, found in reversed(run.validations)}
    state = run.state_dict()
    best = next((row for row in run.history if row["epoch"] == run.best_epoch), None)
    of_kept: tuple[float | str, ...] = ("", "")
    if best is not None:
        unseen = TrainingRun(settings, store, train + kept)
        of_kept = scores(unseen, state["best_model"] or state["model"], best["thresholds"])
    spent = 0.0
    rows = []
    for row in run.history:
        spent += row["seconds"]
        rows.append((round(spent, 1), *rounded(row["metric"], first.get(row["epoch"], float("nan")))))
    columns = [" ".join(map(str, column)) for column in zip(*rows, strict=True)]
    return dict(zip(COLUMNS[1:], (seed, *columns, run.steps, *of_kept), strict=True))


def report() -> None:
    """Paired differences, with intervals over collections and seeds."""
    kept: dict[tuple[int, str, str], float] = {}
    for name in RECORDED:
        for row in rows_of(table_of(name)):
            kept[int(row["configuration"]), name, row["seed"]] = float(row["kept"] or 0.0)
    for number, change in enumerate([{"the default": ""}, *CHANGES]):
        if number == 1:
            continue  # nothing is changed
        runs = [(name, "", seed) for other, name, seed in kept if other == number and (1, name, seed) in kept]
        words = ", ".join(f"{flag} {value}".rstrip() for flag, value in change.items())
        show(words, runs, lambda run, number=number: kept[number, run[0], run[2]] - kept[1, run[0], run[2]])  # type: ignore[misc]


def main() -> None:
    parser = recording_parser(__doc__)
    parser.add_argument("--collections", default=",".join(RECORDED))
    parser.add_argument("--configurations", type=int, default=CONFIGURATIONS)
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    torch.set_num_threads(1)
    collections, data = arguments.collections.split(","), arguments.data.resolve()
    jobs = [
        (number, seed, name) for seed in SEEDS for number in range(arguments.configurations) for name in collections
    ]
    for number, seed, name in own_part(jobs, arguments.part):
        space = recorded_space(data, name)
        if (number, seed) not in known(table_of(name)):
            point = list(points(space, number + 1))[number]
            columns = [COLUMNS[0], *space.searched, *COLUMNS[1:]]
            row = {"configuration": number, **point, **record(data, name, point, seed)}
            add_row(table_of(name), columns, row)


def known(table: Path) -> set[tuple[int, int]]:
    return {(int(row["configuration"]), int(row["seed"])) for row in rows_of(table)}


if __name__ == "__main__":
    main()
