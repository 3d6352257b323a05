"""What a search costs beyond Ray Tune and Optuna themselves.

Times ``run_trials`` (study, searcher, watcher, histories, trials.csv, checkpoints of the best kept) against bare Ray
Tune with ``OptunaSearch``, on trials that do nothing: their metric is a pure function of the point and the epoch. Both
sides have the same space, sampler, journal, scheduler, retries and checkpoints, on two cores with two trials at once;
they take turns, and the ratio is that of the medians. ``--alone`` times our side once, and tells the driver's memory on
the way.

    python benchmarks/search_overhead.py --trials 200 --rounds 3
    python benchmarks/search_overhead.py --trials 1000 --alone
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages.journal import JournalFileBackend
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console
from typing_extensions import override

from tune_smp.results.folder import RunFolder
from tune_smp.tuning import tuner
from tune_smp.tuning.checkpoints import BestKept, trial_folder
from tune_smp.tuning.cluster import local_ray
from tune_smp.tuning.display import Display
from tune_smp.tuning.first_points import default_values
from tune_smp.tuning.listeners import EpochResult, Listener
from tune_smp.tuning.pruning import EPOCH, METRIC, build_scheduler
from tune_smp.tuning.sampler import build_sampler
from tune_smp.tuning.space_file import parse_space
from tune_smp.tuning.study import Study
from tune_smp.tuning.trainable import CHECKPOINT_NAME, TrialConfig
from tune_smp.tuning.trial_record import AskedTrial, TrialRecord
from tune_smp.tuning.tuner import CHECKPOINTS_KEPT, RETRIES, SearchPlan, run_trials
from tune_smp.workflows.trials import FolderKeeper, TableKeeper

LIMIT = 1.15  # the aim: at most 15 % on top
EPOCHS, GRACE_PERIOD, REDUCTION_FACTOR, CORES = 9, 1, 3.0, 2
TELL_MEMORY_EVERY = 200  # trials
SPACE = f"""
fixed:
  maxEpochs: {EPOCHS}
search:
  optimizerName: [Adam, AdamW, SGD]
  learningRate: {{low: 1e-5, high: 1e-1, log: true}}
  momentum: {{low: 0.8, high: 0.99, when: {{optimizerName: [SGD]}}}}
  batchSize: {{low: 4, high: 32, step: 4}}
  lossName: [JaccardLoss, DiceLoss, FocalLoss]
  foregroundFraction: {{low: 0.0, high: 0.8}}
"""
REQUIRED = {
    "imagesDir": "/data/images",
    "labelsDir": "/data/labels",
    "imagesPattern": "img_{i:d+}.tif",
    "labelsPattern": "mask_{i:d+}.tif",
    "segmentationMode": "binary",
    "outputDir": "/out",
}


@dataclass(frozen=True)
class Cost:
    """What one search took: seconds of wall time and of the driver's CPU time; and what it did for them."""

    wall: float
    cpu: float
    trials: int
    pruned: int
    epochs: int


def main() -> None:
    options = parse()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    leave_training_out()
    with local_ray(device="cpu"), tempfile.TemporaryDirectory() as folder:
        if options.alone:
            alone(options.trials, Path(folder))
        else:
            compare(options.trials, options.rounds, Path(folder))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200, help="trials of each search")
    parser.add_argument("--rounds", type=int, default=3, help="searches of each side")
    parser.add_argument("--alone", action="store_true", help="our side once, with the driver's memory")
    return parser.parse_args()


def leave_training_out() -> None:
    """Let every trial of this process be one that costs nothing."""
    tuner.SmpTrainable = NoTraining  # type: ignore[attr-defined]


class NoTraining(tune.Trainable):
    """A trial that costs nothing, and reports what a real one does."""

    def setup(self, config: dict[str, Any]) -> None:
        trial = config.get("trial")
        workers = CORES if trial is None else trial.settings["workers"]
        # A trial is over before a second worker has started, so that the first would often do everything alone.
        meeting = Path(self.logdir).parent / "workers"
        meeting.mkdir(exist_ok=True)
        (meeting / str(os.getpid())).touch()
        while len(list(meeting.iterdir())) < workers:
            time.sleep(0.01)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        trial = new_config.get("trial")
        self._quality = quality(new_config if trial is None else trial.settings["values"])
        self._epoch_s = 0.0 if trial is None else trial.settings["epoch_s"]
        self._epoch = 0
        return True

    def step(self) -> dict[str, Any]:
        time.sleep(self._epoch_s)
        self._epoch += 1
        return dict(as_result(self._epoch, self._quality * (1 - math.exp(-self._epoch / 3))))

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / CHECKPOINT_NAME).write_text(str(self._epoch), encoding="utf-8")

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        self._epoch = int((Path(checkpoint_dir) / CHECKPOINT_NAME).read_text(encoding="utf-8"))


def quality(point: Mapping[str, Any]) -> float:
    """The metric that a point comes to in the end, below 1."""
    miss = abs(math.log10(point["learningRate"]) + 3) + abs(point["foregroundFraction"] - 0.4)
    return float(0.9 - 0.15 * miss - 0.05 * (point["lossName"] == "FocalLoss") - 0.002 * abs(point["batchSize"] - 16))


def as_result(epoch: int, metric: float) -> EpochResult:
    """A real trial's result (``trainable._as_result``)."""
    return {
        "epoch": epoch,
        "train_loss": metric,
        "val_loss": metric,
        "val_iou": metric,
        "val_fscore": metric,
        "val_accuracy": metric,
        "val_recall": metric,
        "val_precision": metric,
        "learning_rate": 1e-3,
        "seconds": 0.01,
        "metric": metric,
        "thresholds": (0.5,),
        "best_metric": metric,
        "best_epoch": epoch,
        "stop": "completed" if epoch == EPOCHS else None,
        "class_iou": (metric,),
        "batch_size": 16,
        "epochs_before": 0,
        "trial_epoch": epoch,
        "run_seconds": 0.01 * epoch,
        "notes": (),
        "used": {
            "batchSize": 16,
            "stepsPerEpoch": 10,
            "tileSize": 128,
            "learningRate": 1e-3,
            "weightDecay": 0.0,
            "device": "cpu",
            "precision": "float32",
            "threads": 1,
        },
        "done": epoch == EPOCHS,
    }


def ours(trials: int, path: Path, *more: Listener, workers: int = CORES, epoch_s: float = 0.0) -> Cost:
    """A search as the workflow does it, on a terminal that is none; its workers sleep ``epoch_s`` in each epoch."""
    folder, space = RunFolder(path), parse_space(SPACE, name="bench").with_flags(REQUIRED)
    path.mkdir()
    started = time.perf_counter(), time.process_time()
    study = Study(
        folder.study,
        space,
        name=path.name,
        sampler_after=lambda _: build_sampler("tpe", seed=0, concurrency=workers),
    )
    study.begin([default_values(space)])
    plan = SearchPlan(trials=trials, scheduler=scheduler(), storage=path, name=folder.trials.name, room=lambda: workers)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        progress = Display(Console(file=nowhere), metric_name="IoU", num_trials=trials)
        with progress:
            keepers = [
                BestKept(folder.trials),
                FolderKeeper(folder, folder.trial_history),
                TableKeeper(study, folder, space.searched),
            ]
            config = configured(path, {"workers": workers, "epoch_s": epoch_s})
            ending = run_trials(study, plan, config, [*keepers, progress, *more])
    took = elapsed(started)
    assert ending == "completed", ending
    records = study.records()
    return Cost(
        *took,
        trials=len(records),
        pruned=sum(record.state == "pruned" for record in records),
        epochs=sum(record.epochs for record in records),
    )


def configured(path: Path, more: Mapping[str, float]) -> Callable[[AskedTrial], TrialConfig]:
    def config(asked: AskedTrial) -> TrialConfig:
        settings = {**asked.settings.to_json(), **more}
        return TrialConfig(settings, store=path, split=path / "split.csv", number=asked.number)

    return config


def bare(trials: int, path: Path) -> Cost:
    """What Ray's and Optuna's own documentation makes of the same search."""
    path.mkdir()
    first = default_values(parse_space(SPACE, name="bench").with_flags(REQUIRED))
    started = time.perf_counter(), time.process_time()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    searcher = OptunaSearch(
        bare_space,
        metric=METRIC,
        mode="max",
        points_to_evaluate=[first],
        sampler=build_sampler("tpe", seed=0, concurrency=CORES),
        study_name=path.name,
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(path / "study.journal"))),
    )
    tuner = tune.Tuner(
        NoTraining,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=bare_scheduler(),
            num_samples=trials,
            max_concurrent_trials=CORES,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{trial_folder(0)}{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(path),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=CHECKPOINTS_KEPT),
        ),
    )
    results = tuner.fit()
    took = elapsed(started)
    epochs = [result.metrics["trial_epoch"] for result in results]
    return Cost(*took, trials=len(epochs), pruned=sum(count < EPOCHS for count in epochs), epochs=sum(epochs))


def bare_space(trial: optuna.Trial) -> None:
    """``SPACE`` by hand."""
    optimizer = trial.suggest_categorical("optimizerName", ["Adam", "AdamW", "SGD"])
    trial.suggest_float("learningRate", 1e-5, 1e-1, log=True)
    if optimizer == "SGD":
        trial.suggest_float("momentum", 0.8, 0.99)
    trial.suggest_int("batchSize", 4, 32, step=4)
    trial.suggest_categorical("lossName", ["JaccardLoss", "DiceLoss", "FocalLoss"])
    trial.suggest_float("foregroundFraction", 0.0, 0.8)


def scheduler() -> tune.schedulers.TrialScheduler:
    return build_scheduler("asha", most_epochs=EPOCHS, grace_period=GRACE_PERIOD, reduction_factor=REDUCTION_FACTOR)


def bare_scheduler() -> tune.schedulers.TrialScheduler:
    """The same, but for trial 0, which ours never ends."""
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=METRIC,
        mode="max",
        max_t=EPOCHS,
        grace_period=GRACE_PERIOD,
        reduction_factor=REDUCTION_FACTOR,
        stop_last_trials=False,
    )


def elapsed(started: tuple[float, float]) -> tuple[float, float]:
    """Seconds of wall time and of this process's CPU time."""
    return time.perf_counter() - started[0], time.process_time() - started[1]


def compare(trials: int, rounds: int, folder: Path) -> None:
    """Print what both sides took and did, and the ratios of the medians."""
    bare(10, folder / "warm up")  # starts the first workers
    sides: dict[str, Callable[[int, Path], Cost]] = {"ours": ours, "bare": bare}
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for number in range(rounds):
        # ours bare, bare ours, ...: what slows down with time meets both alike.
        for name in sorted(sides, reverse=number % 2 == 0):
            costs[name].append(sides[name](trials, folder / f"{name}_{number}"))
            print(f"{name} {number}: {told(costs[name][-1])}", flush=True)
    for clock in ("wall", "cpu"):
        seconds = {name: [getattr(cost, clock) for cost in costs[name]] for name in sides}
        ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["bare"])
        pairs = [mine / theirs for mine, theirs in zip(seconds["ours"], seconds["bare"], strict=True)]
        spread = f"of pairs {min(pairs):.3f} to {max(pairs):.3f}, their median {statistics.median(pairs):.3f}"
        print(f"{clock:>4} time: ratio of medians {ratio:.3f}; {spread}")
        if clock == "wall":
            print(f"{'within' if ratio <= LIMIT else 'above'} the aim of {LIMIT}")


def told(cost: Cost) -> str:
    pace = f"{cost.wall:.1f} s ({cost.trials / cost.wall:.1f} trials/s), driver's CPU {cost.cpu:.1f} s"
    return f"{pace}; {cost.trials} trials, {cost.pruned} pruned, {cost.epochs} epochs"


class MemoryTeller(Listener):
    """Prints the driver's memory every so many trials."""

    def __init__(self) -> None:
        self._ended = 0

    @override
    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        self._ended += 1
        if self._ended % TELL_MEMORY_EVERY == 0:
            print(f"{self._ended} trials: {resident_mb():.0f} MB", flush=True)


def alone(trials: int, folder: Path) -> None:
    print(f"at the start: {resident_mb():.0f} MB")
    print(told(ours(trials, folder / "ours", MemoryTeller())))


def mapped_mb(entry: str, pid: int | str = "self") -> float:
    """Of a process's memory: ``Anonymous``, what is its own alone, or ``Pss``, its share of what several map."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in rollup.splitlines() if line.startswith(f"{entry}:"))) / 1e3


def resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


if __name__ == "__main__":
    main()
