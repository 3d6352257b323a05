"""What rules of training are worth: with and without, on five collections, several seeds, images kept back.

Every fourth image is kept back; of the others 70 % train and 30 % validate, drawn by the seed. A small net, batches of
8 tiles of 128 px; `EXPERIMENTS` says how many epochs of how many steps. After each epoch the same weights are validated
in several versions:

* running: with the running statistics of batch normalisation, as they are;
* corrected: with these, freed of their initial values (bias-corrected, as Adam's moments are);
* anew: with statistics taken anew over 128 tiles of the training images;
* averaged: the mean of the weights over about the last tenth of the steps, with a mean of the statistics.

Of each version the best epoch is kept, and scored on the images kept back, above probability 0.5 and above the
threshold that was best in validation. Losses are compared by their runs of the same seed.

    python -m benchmarks.ablations --data COLLECTIONS [--experiments short,early,long] [--part 0/2]
    python -m benchmarks.ablations --report

What is in the table already is not run again.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from benchmarks.kept_back import COLLECTIONS, data_flags, split
from benchmarks.recording import own_part, recording_parser
from benchmarks.scoring import rounded, scores
from benchmarks.tables import rows_of
from tune_smp.data.opening import find_collection, open_store
from tune_smp.settings.run import RunSettings
from tune_smp.training.batch_norm import statistics_of
from tune_smp.training.run import TILES_FOR_STATISTICS, TrainingRun
from tune_smp.training.validation import Validation

TABLE = Path(__file__).parent / "data" / "ablations.csv"
COLUMNS = ("experiment", "collection", "loss", "seed", "version", "epoch", "val_half", "val", "kept_half", "kept")
RUN: Mapping[str, Any] = {
    "encoderBaseVariantWeights": "MobileNet,timm-mobilenetv3_small_100,random",
    "tileSize": 128,
    "batchSize": 8,
    "patience": 1000,
    "device": "cpu",
}


@dataclass(frozen=True)
class Experiment:
    """Runs of one length."""

    steps: int  # per epoch
    epochs: int
    seeds: Sequence[int]
    losses: Sequence[str] = ("JaccardLoss",)
    collections: Sequence[str] = tuple(COLLECTIONS)


EXPERIMENTS = {
    "short": Experiment(20, 10, range(5), losses=("JaccardLoss", "DiceCELoss", "DiceFocalLoss")),
    "early": Experiment(10, 8, (10, 11)),
    "long": Experiment(25, 40, (0, 1), collections=("membrane-binary", "nuclei-binary", "camvid-multiclass")),
}
Job = tuple[str, str, str, int]
"""Experiment, collection, loss, seed."""
Run = tuple[str, str, str]
"""Collection, loss, seed."""

FEWEST_FOR_INTERVAL = 5
State = dict[str, Tensor]


@dataclass(frozen=True)
class Version:
    """A version of an epoch's weights, and what validation found of it."""

    epoch: int
    validation: Validation
    state: State


class Watch:
    """Follows a run step by step: bias-corrected statistics, and averaged weights."""

    def __init__(self, run: TrainingRun) -> None:
        self._model = run.model
        self._layers = {
            name: layer
            for name, layer in run.model.named_modules()
            if isinstance(layer, _BatchNorm) and layer.track_running_stats
        }
        self._before = self._statistics()
        self._corrected = self._statistics()
        self._steps = 0
        self._average = AveragedModel(run.model, multi_avg_fn=_last_tenth, use_buffers=True)
        run.step.optimizer.register_step_post_hook(self._after_step)

    def corrected(self) -> State:
        return {**_copied(self._model.state_dict()), **self._corrected}

    def averaged(self) -> State:
        return _copied(self._average.module.state_dict())

    @torch.no_grad()
    def _after_step(self, *_: Any) -> None:
        self._steps += 1
        now = self._statistics()
        for name, layer in self._layers.items():
            momentum = layer.momentum or 0.1
            for key in (f"{name}.running_mean", f"{name}.running_var"):
                of_batch = self._before[key] + (now[key] - self._before[key]) / momentum
                self._corrected[key].lerp_(of_batch, momentum / (1 - (1 - momentum) ** self._steps))
        self._before = now
        self._average.update_parameters(self._model)

    def _statistics(self) -> State:
        return {
            f"{name}.{key}": getattr(layer, key).clone()
            for name, layer in self._layers.items()
            for key in ("running_mean", "running_var")
        }


def _last_tenth(averaged: Any, current: Any, steps: Any) -> None:
    if averaged[0].is_floating_point():
        torch._foreach_lerp_(list(averaged), list(current), 1 - min((1 + float(steps)) / (10 + float(steps)), 0.9998))
    else:
        for mean, value in zip(averaged, current, strict=True):
            mean.copy_(value)


def recorded(data: Path, job: Job) -> list[tuple[Any, ...]]:
    """Train once; a row for each epoch and version, with scores of the images kept back for its best epoch."""
    experiment, name, loss, seed = job
    length, folder = EXPERIMENTS[experiment], data / name
    flags = {**data_flags(folder, name), **RUN, "outputDir": str(folder)}
    flags |= {"stepsPerEpoch": length.steps, "maxEpochs": length.epochs}
    settings = RunSettings.from_flags({**flags, "lossName": loss, "seed": seed})
    store = open_store(settings, find_collection(settings))
    train, validation, kept = split(store, settings)
    run = TrainingRun(settings, store, train + validation)
    watch = Watch(run)
    best: dict[str, Version] = {}
    found: dict[tuple[str, int], Validation] = {}
    while run.stop is None:
        run.run_epoch()
        for version, state in versions(run, watch).items():
            with weights_of(run, state):
                found[version, run.epoch] = validated = run.validate()
            if version not in best or validated.metric > best[version].validation.metric:
                best[version] = Version(run.epoch, validated, state)
    unseen = TrainingRun(settings, store, train + kept)
    scored = {
        (version, chosen.epoch): scores(unseen, chosen.state, chosen.validation.thresholds)
        for version, chosen in best.items()
    }
    key = settings.metric.key
    return [
        (*job, *place, *rounded(getattr(of.metrics, key), of.metric), *scored.get(place, ("", "")))
        for place, of in found.items()
    ]


def versions(run: TrainingRun, watch: Watch) -> dict[str, State]:
    tiles = run.feed.plain_training(run.epoch, tiles=TILES_FOR_STATISTICS, batch_size=run.batch_size)
    run.model.eval()
    with statistics_of(run.model, (batch.images for batch in tiles)):
        anew = _copied(run.model.state_dict())
    return {
        "running": _copied(run.model.state_dict()),
        "corrected": watch.corrected(),
        "anew": anew,
        "averaged": watch.averaged(),
    }


@contextlib.contextmanager
def weights_of(run: TrainingRun, state: State) -> Iterator[None]:
    own = _copied(run.model.state_dict())
    run.model.load_state_dict(state)
    try:
        yield
    finally:
        run.model.load_state_dict(own)


def _copied(state: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def report(table: Path) -> None:
    """Scores in the first epochs; paired differences on the images kept back, with intervals over runs."""
    rows = rows_of(table)
    for name in (name for name in EXPERIMENTS if any(row["experiment"] == name for row in rows)):
        own = [row for row in rows if row["experiment"] == name]
        print(f"\n{name}: validation after each epoch, above 0.5 / above the best threshold; images kept back")
        if not all(row["kept"] for row in own):  # the first form of the table holds best epochs alone
            over_epochs(own)
        differences(own)


def over_epochs(rows: Sequence[Mapping[str, str]]) -> None:
    """Means over the runs with the Jaccard loss, per collection and over all, and of the better of two versions."""
    values: dict[tuple[str, str, str], dict[str, tuple[float, float]]] = defaultdict(dict)  # run, by epoch and version
    for row in (row for row in rows if row["loss"] == "JaccardLoss"):
        scores = float(row["val_half"]), float(row["val"])
        values[row["collection"], row["seed"], row["epoch"]][row["version"]] = scores
    for by_version in values.values():
        by_version["running or anew"] = max(by_version["running"], by_version["anew"], key=lambda pair: pair[1])
    epochs = sorted({int(epoch) for *_, epoch in values})
    shown = [epoch for epoch in epochs if epoch <= 8 or epoch % 10 == 0]
    for collection in (*sorted({collection for collection, *_ in values}), "all"):
        for version in ("running", "corrected", "anew", "running or anew", "averaged"):
            cells = []
            for epoch in shown:
                runs = [
                    of[version]
                    for (where, _, at), of in values.items()
                    if collection in (where, "all") and at == str(epoch)
                ]
                cells.append("/".join(f"{statistics.mean(column):.3f}" for column in zip(*runs, strict=True)))
            print(f"| {collection} | {version} | {' | '.join(cells)} |")


def differences(rows: Sequence[Mapping[str, str]]) -> None:
    scored = {
        ((row["collection"], row["loss"], row["seed"]), row["version"]): {
            name: float(row[name]) for name in COLUMNS[6:]
        }
        for row in rows
        if row["kept"]
    }
    runs = sorted({run for run, _ in scored})

    def kept(run: Run, version: str = "running") -> float:
        return scored[run, version]["kept"]

    def gain(version: str, run: Run) -> float:
        return kept(run, version) - kept(run)

    def better(run: Run) -> float:
        ahead = max(("running", "averaged"), key=lambda version: scored[run, version]["val"])
        return gain(ahead, run)

    overlapping = [run for run in runs if "multiclass" not in run[0]]
    show("best threshold - 0.5", overlapping, lambda run: kept(run) - scored[run, "running"]["kept_half"])
    for version in ("corrected", "anew", "averaged"):
        show(
            f"{version} - running", [run for run in runs if (run, version) in scored], functools.partial(gain, version)
        )
    show("better of averaged and running - running", runs, better)
    for loss in sorted({run[1] for run in runs} - {"JaccardLoss"}):
        both = [run for run in runs if run[1] == loss and (run[0], "JaccardLoss", run[2]) in runs]
        show(f"{loss} - JaccardLoss", both, lambda run: kept(run) - kept((run[0], "JaccardLoss", run[2])))


def show(name: str, runs: Sequence[Run], difference: Callable[[Run], float]) -> None:
    if not runs:
        return
    found = [(run[0], difference(run)) for run in runs]
    for collection in (*sorted({run[0] for run in runs}), "all"):
        values = [value for where, value in found if collection in (where, "all")]
        low, high = interval(values)
        spread = f"{low:+.4f} to {high:+.4f}" if len(values) >= FEWEST_FOR_INTERVAL else "too few runs"
        won, mean = sum(value > 0 for value in values), statistics.mean(values)
        print(f"| {name} | {collection} | {mean:+.4f} | {spread} | {won} of {len(values)} |")


def interval(values: Sequence[float], draws: int = 4000) -> tuple[float, float]:
    """The middle 95 % of the means of resamplings."""
    source = random.Random(0)  # noqa: S311 - no secret
    means = sorted(statistics.mean(source.choices(values, k=len(values))) for _ in range(draws))
    return means[draws // 40], means[-draws // 40 - 1]


def main() -> None:
    parser = recording_parser(__doc__)
    parser.add_argument("--experiments", default=",".join(EXPERIMENTS))
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    if arguments.report:
        report(arguments.table)
        return
    torch.set_num_threads(1)
    jobs = [job for name in arguments.experiments.split(",") for job in jobs_of(name)]
    done = {(row["experiment"], row["collection"], row["loss"], int(row["seed"])) for row in rows_of(arguments.table)}
    for job in (job for job in own_part(jobs, arguments.part) if job not in done):
        rows = recorded(arguments.data.resolve(), job)
        is_new = not arguments.table.exists()
        with arguments.table.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows] if is_new else rows)
        print(*job, flush=True)


def jobs_of(name: str) -> list[Job]:
    length = EXPERIMENTS[name]
    return [
        (name, where, loss, seed) for seed in length.seeds for loss in length.losses for where in length.collections
    ]


if __name__ == "__main__":
    main()
