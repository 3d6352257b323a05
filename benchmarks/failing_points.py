"""Searches of a space in which some points fail: how often they are proposed, and what the search finds.

A made-up objective of five flags, whose best values each seed draws anew, with some noise. Points fail where they need
too much memory (`memory`), where their learning rate is too high (`rate`), where a network cannot be built (`network`),
or nowhere (`none`). The sampler of `search`, one trial at a time, and TPE as Optuna has it, which leaves failed trials
out. Regret is how far the best trial is below the best point that does not fail. Differences are ours less Optuna's,
seed by seed; the interval holds 95 % of their means where the seeds are drawn anew.

    python -m benchmarks.failing_points [--seeds 20] [--first 0] [--trials 60]
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from tune_smp.tuning.sampler import build_sampler
from tune_smp.tuning.study import quiet

Point = Mapping[str, Any]

CHOICES: Mapping[str, tuple[Any, ...]] = {
    "network": ("medium", "large", "small"),
    "loss": ("a", "b", "c", "d"),
    "tile": (128, 96, 192, 256),
}
BATCHES, RATES = (4, 8, 12, 16), (1e-4, 3e-2)
SPREAD = {"network": 0.03, "loss": 0.03, "tile": 0.02}  # standard deviation of what a choice is worth
NOISE = 0.005
UNITS = {"large": 4, "medium": 2, "small": 1}  # of memory, for a tile of 128 px
HIGHEST_RATE, MOST_UNITS = 6e-3, 40
FAILS: Mapping[str, Callable[[Point], bool]] = {
    "none": lambda _: False,
    "memory": lambda point: UNITS[point["network"]] * (point["tile"] / 128) ** 2 * point["batch"] > MOST_UNITS,
    "rate": lambda point: bool(point["rate"] > HIGHEST_RATE),
    "network": lambda point: bool(point["network"] == "large"),
}


class Objective:
    """What points are worth: a sum over the flags."""

    def __init__(self, random: np.random.Generator) -> None:
        self._worth = {
            name: dict(zip(choices, random.normal(0, SPREAD[name], len(choices)), strict=True))
            for name, choices in CHOICES.items()
        }
        self._rate, self._batch = random.uniform(-4, -2), random.uniform(4, 16)

    def __call__(self, point: Point) -> float:
        of_choices = sum(worth[point[name]] for name, worth in self._worth.items())
        off = 0.1 * abs(math.log10(point["rate"]) - self._rate) + 0.0025 * abs(point["batch"] - self._batch)
        return float(0.8 + of_choices - off)

    def best(self, fails: Callable[[Point], bool]) -> float:
        """The value of the best point that does not fail."""
        rates = np.geomspace(*RATES, 200)
        points = (
            dict(zip((*CHOICES, "batch", "rate"), values, strict=True))
            for values in itertools.product(*CHOICES.values(), BATCHES, rates)
        )
        return max(self(point) for point in points if not fails(point))


def sampler(kind: str, seed: int) -> optuna.samplers.BaseSampler:
    if kind == "ours":
        return build_sampler("tpe", seed=seed, concurrency=1)
    with quiet():
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=4)


def searched(kind: str, fails: Callable[[Point], bool], seed: int, trials: int) -> tuple[float, list[float]]:
    """The share of proposals that fail, from the eleventh on, and the regret after each trial."""
    random = np.random.default_rng(seed)
    objective = Objective(random)
    study = optuna.create_study(direction="maximize", sampler=sampler(kind, seed))
    failed, regrets = [], [math.inf]
    optimum = objective.best(fails)
    for _ in range(trials):
        trial = study.ask()
        point = {name: trial.suggest_categorical(name, choices) for name, choices in CHOICES.items()}
        point["rate"] = trial.suggest_float("rate", *RATES, log=True)
        point["batch"] = trial.suggest_int("batch", BATCHES[0], BATCHES[-1], step=4)
        failed.append(fails(point))
        regrets.append(regrets[-1])
        if failed[-1]:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, objective(point) + random.normal(0, NOISE))
            regrets[-1] = min(regrets[-1], optimum - objective(point))
    return fmean(failed[10:]), regrets[1:]


def difference(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The mean difference with its interval."""
    differences = np.subtract(ours, theirs)
    drawn = np.random.default_rng(0).choice(differences, size=(4000, len(differences))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{differences.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--trials", type=int, default=60)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| fails | proposals that fail: Optuna's | ours | regret at the end, difference | after 12 trials |")
    print("|---|---|---|---|---|")
    for name, fails in FAILS.items():
        ours, theirs = (
            [searched(kind, fails, seed, arguments.trials) for seed in seeds] for kind in ("ours", "Optuna's")
        )
        shares = [fmean(row[0] for row in rows) for rows in (theirs, ours)]
        regrets = [
            difference([row[1][trial] for row in ours], [row[1][trial] for row in theirs])
            for trial in (arguments.trials - 1, 11)
        ]
        print(f"| {name} | {shares[0]:.0%} | {shares[1]:.0%} | {' | '.join(regrets)} |", flush=True)


if __name__ == "__main__":
    main()
