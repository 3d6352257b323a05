"""How many epochs does a search need until it is within 1 % of the best? Replayed on recorded learning curves.

``data/quick_nuclei_curves.csv`` holds the complete learning curves of random configurations of the space ``quick`` on
the 200 nuclei images, as an earlier ``record_curves.py`` recorded them. A search is replayed on that table: what is
proposed becomes the nearest configuration of the table not tried yet, and reports its curve epoch by epoch. Two
trials run at once, as on two CPU cores.

    python benchmarks/search_efficiency.py [--seeds 50] [--table FILE]
"""

from __future__ import annotations

import argparse
import csv
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler

from tune_smp.tuning.first_points import default_values
from tune_smp.tuning.pruning import EPOCH, FEWEST_IN_RUNG, LEAST_GRACE, METRIC, build_scheduler
from tune_smp.tuning.sampler import FEWEST_TO_LEARN_FROM, build_sampler
from tune_smp.tuning.space import Range, Scalar, SearchSpace, flag_of
from tune_smp.tuning.space_file import read_space
from tune_smp.tuning.study import quiet, suggest_from

TABLE = Path(__file__).parent / "data" / "quick_nuclei_curves.csv"
WORKERS = 2
CLOSE = 0.99
"""A search is there when its best metric is this share of the table's best."""


@dataclass(frozen=True)
class Row:
    """A configuration and its best metric so far after each epoch."""

    flags: Mapping[str, Scalar]
    curve: tuple[float, ...]


@dataclass(frozen=True)
class Strategy:
    """A way to search.

    ``grace`` epochs and ``others`` in a rung come before ASHA judges, ``start`` random trials before TPE learns.
    ``tells_all_as_complete``: what Ray's OptunaSearch does with trials that the scheduler ended.
    """

    name: str
    sampler: str
    scheduler: str = "none"
    default_first: bool = False
    tells_all_as_complete: bool = False
    grace: int = LEAST_GRACE
    others: int = FEWEST_IN_RUNG
    start: int = FEWEST_TO_LEARN_FROM


STRATEGIES = (
    Strategy("random", "random"),
    Strategy("random + ASHA", "random", "asha"),
    Strategy("TPE", "tpe"),
    Strategy("TPE + ASHA", "tpe", "asha"),
    Strategy("tune-smp", "tpe", "asha", default_first=True),
    Strategy("TPE + ASHA, pruned told as complete", "tpe", "asha", tells_all_as_complete=True),
    Strategy("tune-smp, pruned told as complete", "tpe", "asha", default_first=True, tells_all_as_complete=True),
)
SHORT = (
    Strategy("grace 1, judged at once, start of 10", "tpe", "asha", default_first=True, grace=1, others=0, start=10),
    Strategy("grace 3, three others, start of 10", "tpe", "asha", default_first=True, start=10),
    Strategy("grace 3, three others, start of 4", "tpe", "asha", default_first=True),
    Strategy("grace 3, judged at once, start of 4", "tpe", "asha", default_first=True, others=0),
    Strategy("no pruning, start of 4", "tpe", default_first=True),
)
"""Searches of `SHORT_TRIALS`: how many beat the default?"""
SHORT_TRIALS = 12


def read_table(path: Path, space: SearchSpace) -> list[Row]:
    kinds = {parameter.flag: _kind(parameter.domain) for parameter in space.parameters}
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(
                {flag: kinds[flag](line[flag]) for flag in space.searched if line[flag]},
                tuple(float(line[name]) for name in line if name.startswith("epoch_")),
            )
            for line in csv.DictReader(file)
        ]


def _kind(domain: Any) -> type:
    return str if not isinstance(domain, Range) else int if domain.integer else float


@dataclass
class _Running:
    trial: optuna.Trial
    row: Row
    trial_id: str
    config: dict[str, Any]  # as of Ray's trials: the scheduler looks whether it is the default
    epoch: int = 0

    def __hash__(self) -> int:
        return hash(self.trial_id)


@dataclass
class Replay:
    """One search over the table; ``best_after[n]`` is its best metric after ``n + 1`` epochs of all its trials."""

    space: SearchSpace
    rows: list[Row]
    strategy: Strategy
    seed: int
    trials: int | None = None
    best_after: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        sampler = build_sampler(self.strategy.sampler, seed=self.seed, concurrency=WORKERS, start=self.strategy.start)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._left = list(self.rows)
        self._scheduler: Any = build_scheduler(
            self.strategy.scheduler,
            most_epochs=self.space.most_epochs(),
            grace_period=self.strategy.grace,
            reduction_factor=3.0,
        )
        if self.strategy.scheduler == "asha":
            self._scheduler.fewest_in_rung = self.strategy.others

    def run(self, epochs: int) -> list[float]:
        workers: list[_Running | None] = [None] * WORKERS
        most = max(row.curve[-1] for row in self.rows)
        while self.best_after[-1:] != [most] and len(self.best_after) < epochs and (self._left or any(workers)):
            for number, running in enumerate(workers):
                current = running or self._next()
                workers[number] = current if current is not None and self._go_on(current) else None
        # Nothing in the table is better: what would come after need not be run.
        return self.best_after + self.best_after[-1:] * (epochs - len(self.best_after))

    def _next(self) -> _Running | None:
        if not self._left or len(self.rows) - len(self._left) == self.trials:
            self._left = []
            return None
        if self.strategy.default_first and len(self._left) == len(self.rows):
            wanted: Mapping[str, Scalar] = {flag_of(n): v for n, v in default_values(self.space).items()}
        else:
            asked = self._study.ask()
            wanted = self.space.walk(functools.partial(suggest_from, asked))
            # What was asked for is not what is run: Optuna must learn about the row of the table alone.
            self._study.tell(asked, state=TrialState.FAIL)
        row = min(self._left, key=lambda row: distance(self.space, row.flags, wanted))
        self._left.remove(row)
        self._study.enqueue_trial(dict(row.flags))
        trial = self._study.ask()
        self.space.walk(functools.partial(suggest_from, trial))
        is_default = self.strategy.default_first and len(self._left) == len(self.rows) - 1
        config = {"trial": SimpleNamespace(number=0 if is_default else trial.number + 1)}
        running = _Running(trial, row, f"t{trial.number}", config)
        self._scheduler.on_trial_add(None, running)
        return running

    def _go_on(self, running: _Running) -> bool:
        """One more epoch; whether the trial goes on after it."""
        value = running.row.curve[running.epoch]
        running.epoch += 1
        self.best_after.append(max([value, *self.best_after[-1:]]))
        running.trial.report(value, running.epoch)
        if running.epoch == len(running.row.curve):
            self._study.tell(running.trial, value)
            return False
        result = {EPOCH: running.epoch, METRIC: value}
        if self._scheduler.on_trial_result(None, running, result) == TrialScheduler.STOP:
            if self.strategy.tells_all_as_complete:
                self._study.tell(running.trial, value)
            else:
                self._study.tell(running.trial, state=TrialState.PRUNED)
            return False
        return True


def distance(space: SearchSpace, one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> float:
    """Number of names that differ, plus how far numbers are apart as shares of their range."""
    return sum(
        _apart(parameter.domain, one.get(parameter.flag), other.get(parameter.flag)) for parameter in space.parameters
    )


def _apart(domain: Any, one: Scalar | None, other: Scalar | None) -> float:
    if one is None or other is None:
        return float(one is not other)
    if not isinstance(domain, Range):
        return float(one != other)
    scale = math.log if domain.log else float
    return abs(scale(float(one)) - scale(float(other))) / (scale(domain.high) - scale(domain.low))


def epochs_to(best_after: Sequence[float], target: float) -> int:
    """Epochs until the best metric is at the target; all of them where it never is."""
    return next((number for number, best in enumerate(best_after, start=1) if best >= target), len(best_after))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = read_space("quick").with_flags(_DATA)
    rows = read_table(arguments.table, space)
    best = max(row.curve[-1] for row in rows)
    budget = sum(len(row.curve) for row in rows)
    close = sum(row.curve[-1] >= CLOSE * best for row in rows)
    print(f"{len(rows)} configurations, best {best:.4f}, {close} of them within 1 % of it; {arguments.seeds} seeds")
    curves: dict[str, list[list[float]]] = {}
    for strategy in STRATEGIES:
        with quiet():
            runs = [Replay(space, rows, strategy, seed).run(budget) for seed in range(arguments.seeds)]
        curves[strategy.name] = runs
        needed = sorted(epochs_to(run, CLOSE * best) for run in runs)
        print(
            f"{strategy.name:36} epochs to within 1 %: median {statistics.median(needed):5.0f}  "
            f"mean {statistics.mean(needed):6.1f}  quartiles {needed[len(needed) // 4]}-{needed[3 * len(needed) // 4]}"
        )
    _compare(curves, budget)
    _beat_the_default(space, rows, arguments.seeds)


def _beat_the_default(space: SearchSpace, rows: list[Row], seeds: int) -> None:
    """Of searches of a few trials that try the default first: how many end better, and how far from the best."""
    wanted = {flag_of(name): value for name, value in default_values(space).items()}
    default = min(rows, key=lambda row: distance(space, row.flags, wanted)).curve[-1]
    best = max(row.curve[-1] for row in rows)
    print(f"\n{SHORT_TRIALS} trials, the default first: share that beats it ({default:.4f}), regret × 1000")
    for strategy in SHORT:
        with quiet():
            runs = [Replay(space, rows, strategy, seed, SHORT_TRIALS).run(8 * SHORT_TRIALS) for seed in range(seeds)]
        told = "  ".join(
            f"after {epochs} epochs {statistics.mean(run[epochs - 1] > default for run in runs):.2f} "
            f"{1000 * (best - statistics.mean(run[epochs - 1] for run in runs)):.1f}"
            for epochs in (40, 60, len(runs[0]))
        )
        print(f"{strategy.name:40} {told}")


def _compare(curves: Mapping[str, Sequence[Sequence[float]]], budget: int) -> None:
    """Mean best metric at growing budgets, all strategies side by side."""
    print("\nmean best metric after so many epochs of all trials")
    points = [8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
    print(f"{'epochs':36} " + " ".join(f"{point:6d}" for point in points if point <= budget))
    for name, runs in curves.items():
        means = [statistics.mean(run[min(p, len(run)) - 1] for run in runs) for p in points if p <= budget]
        print(f"{name:36} " + " ".join(f"{mean:.4f}" for mean in means))


# A space is read under a command line; the replay looks at no data.
_DATA = {
    "imagesDir": "/",
    "labelsDir": "/",
    "imagesPattern": "x",
    "labelsPattern": "x",
    "segmentationMode": "binary",
    "outputDir": "/",
}


if __name__ == "__main__":
    main()
