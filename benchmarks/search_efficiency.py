"""How much time does a search need to beat the default, and to come within 1 % of the best? Replayed on curves.

``data/curves_*.csv`` hold the learning curves of configurations of ``recorded_space.yaml`` on five collections, two
seeds each (``record_curves.py``). A search is replayed on such a table: what is proposed becomes the nearest
configuration of the table not tried yet, and reports the curve of one of its seeds, epoch by epoch, in its own time.
Two trials run at once, as on two CPU cores; all have the same time, and ASHA compares them at equal seconds.

Which seed a configuration shows is drawn anew for every replay. A search then has a winner, by its validation metric;
what it is worth is the mean of both seeds. The portfolio is learnt on the collections of the other groups.

    python -m benchmarks.search_efficiency [--searches 50] [--collections membrane-binary]
"""

from __future__ import annotations

import argparse
import functools
import heapq
import itertools
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import TrialScheduler

from benchmarks.curves import GROUPS, Curve, Row, learn_portfolio, read_rows
from benchmarks.record_curves import LEARNT_FROM, RECORDED, SECONDS, recorded_space, table_of
from tune_smp.tuning.pruning import EPOCH, FEWEST_IN_RUNG, LEAST_GRACE, METRIC, Resource, build_scheduler
from tune_smp.tuning.pruning import SECONDS as SPENT
from tune_smp.tuning.sampler import FEWEST_TO_LEARN_FROM, build_sampler
from tune_smp.tuning.space import Range, Scalar, SearchSpace
from tune_smp.tuning.study import quiet, suggest_from

WORKERS = 2
TRIALS = 12
CLOSE = 0.99
"""A search is there when its winner is worth this share of the table's best."""
PORTFOLIO = 4
"""Configurations that are tried right after the default."""
TIMES: Mapping[str, tuple[float, ...]] = {"seconds": (2 * SECONDS, 4 * SECONDS, math.inf), "epochs": (16, 32, math.inf)}
"""When searches are compared, by the clock: seconds that have passed, or epochs of all trials together."""


@dataclass(frozen=True)
class Strategy:
    """A way to search.

    ``grace`` epochs (eighths of a trial's time) and ``others`` in a rung come before ASHA judges, ``start`` random
    trials before TPE learns. Where the portfolio is ``spared``, it is not pruned.
    """

    name: str
    sampler: str
    scheduler: str = "asha"
    default_first: bool = True
    portfolio: bool = False
    spared: bool = False
    grace: int = LEAST_GRACE
    others: int = FEWEST_IN_RUNG
    start: int = FEWEST_TO_LEARN_FROM


STRATEGIES = (
    Strategy("random, without the default", "random", "none", default_first=False),
    Strategy("TPE + ASHA, without the default", "tpe", default_first=False),
    Strategy("random", "random", "none"),
    Strategy("random + ASHA", "random"),
    Strategy("TPE, no pruning", "tpe", "none"),
    Strategy("TPE + ASHA, grace 1, judged at once, start of 10", "tpe", grace=1, others=0, start=10),
    Strategy("TPE + ASHA, judged at once", "tpe", others=0),
    Strategy("TPE + ASHA", "tpe"),
    Strategy("prior + ASHA", "prior"),
    Strategy("TPE + ASHA, portfolio pruned like others", "tpe", portfolio=True),
    Strategy("TPE + ASHA, portfolio", "tpe", portfolio=True, spared=True),
    Strategy("TPE + ASHA, portfolio, without the default", "tpe", portfolio=True, spared=True, default_first=False),
    Strategy("prior + ASHA, portfolio", "prior", portfolio=True, spared=True),
)


@dataclass
class _Running:
    trial: optuna.Trial
    row: Row
    curve: Curve
    config: dict[str, Any]  # as of Ray's trials: the scheduler looks whether it is the default
    epoch: int = 0

    @property
    def trial_id(self) -> str:
        return f"t{self.trial.number}"

    def __hash__(self) -> int:
        return hash(self.trial_id)


@dataclass(frozen=True)
class Winner:
    """A row with the best validation metric so far, and since when it is that, by each clock."""

    row: Row
    since: Mapping[str, float]


@dataclass
class Replay:
    """One search over the table, and its ``winners``, one after the other."""

    space: SearchSpace
    rows: Sequence[Row]
    strategy: Strategy
    seed: int
    portfolio: Sequence[int] = ()
    winners: list[Winner] = field(default_factory=list)

    def __post_init__(self) -> None:
        sampler = build_sampler(self.strategy.sampler, seed=self.seed, concurrency=WORKERS, start=self.strategy.start)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._left = {row.number: row for row in self.rows}
        self._first = [0] * self.strategy.default_first + [*self.portfolio] * self.strategy.portfolio
        chance = random.Random(self.seed)  # noqa: S311 - no secret
        self._shown = {row.number: chance.choice(row.runs) for row in self.rows}
        self._best, self._epochs = -math.inf, 0
        epochs = self.space.most_epochs()
        self._scheduler: Any = build_scheduler(
            self.strategy.scheduler,
            most_epochs=epochs,
            grace_period=self.strategy.grace,
            reduction_factor=3.0,
            resource=Resource(SPENT, SECONDS / epochs),
        )
        if self.strategy.scheduler == "asha":
            self._scheduler.fewest_in_rung = self.strategy.others

    def run(self, trials: int | None = None) -> list[Winner]:
        """Search until so many trials were begun, or the whole table was tried."""
        left = itertools.count() if trials is None else range(trials)
        numbers = iter(left)
        ends: list[tuple[float, int, _Running, float]] = []  # when an epoch ends; the trial; when it began
        for _ in range(WORKERS):
            self._start(ends, numbers, now=0.0)
        while ends:
            now, _, running, began = heapq.heappop(ends)
            if self._ends_epoch(running, now):
                running.epoch += 1
                heapq.heappush(ends, (began + running.curve.seconds[running.epoch], id(running), running, began))
            else:
                self._start(ends, numbers, now=now)
        return self.winners

    def _start(self, ends: list[tuple[float, int, _Running, float]], numbers: Any, *, now: float) -> None:
        if not self._left or next(numbers, None) is None:
            return
        row = self._next_row()
        del self._left[row.number]
        self._study.enqueue_trial(self._by_domain(row))
        trial = self._study.ask()
        self.space.walk(functools.partial(suggest_from, trial))
        is_default = self.strategy.default_first and row.number == 0
        is_spared = is_default or (self.strategy.spared and row.number in self.portfolio)
        config = {"trial": SimpleNamespace(number=trial.number + 1, is_spared=is_spared)}
        running = _Running(trial, row, self._shown[row.number], config)
        self._scheduler.on_trial_add(None, running)
        heapq.heappush(ends, (now + running.curve.seconds[0], id(running), running, now))

    def _next_row(self) -> Row:
        while self._first:
            number = self._first.pop(0)
            if number in self._left:
                return self._left[number]
        asked = self._study.ask()
        wanted = self.space.walk(functools.partial(suggest_from, asked))
        # What was asked for is not what is run: Optuna must learn about the row of the table alone.
        self._study.tell(asked, state=TrialState.FAIL)
        return min(self._left.values(), key=lambda row: distance(self.space, row.flags, wanted))

    def _by_domain(self, row: Row) -> dict[str, Scalar]:
        """The row's flags by the names of the domains that they are asked for under."""
        picked: dict[str, Scalar] = {}

        def suggest(name: str, domain: Any) -> Scalar:
            value = row.flags.get(name.partition("[")[0])
            picked[name] = value if value is not None else domain[0]
            return picked[name]

        self.space.walk(suggest)
        return picked

    def _ends_epoch(self, running: _Running, now: float) -> bool:
        """Note the end of an epoch; whether the trial has another."""
        value = running.curve.best[running.epoch]
        self._note(running.row, value, now)
        running.trial.report(value, running.epoch + 1)
        if running.epoch + 1 == len(running.curve.best):
            self._study.tell(running.trial, value)
            return False
        spent = running.curve.seconds[running.epoch]
        result = {EPOCH: running.epoch + 1, SPENT: spent, METRIC: value}
        if self._scheduler.on_trial_result(None, running, result) == TrialScheduler.STOP:
            self._study.tell(running.trial, state=TrialState.PRUNED)
            return False
        return True

    def _note(self, row: Row, value: float, now: float) -> None:
        """Count an epoch, and see whether its row is the winner now."""
        self._epochs += 1
        if value > self._best:
            self._best = value
            self.winners.append(Winner(row, {"seconds": now, "epochs": self._epochs}))


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


def winner_at(winners: Sequence[Winner], clock: str, time: float) -> Row | None:
    """The winner at this time; None before the first epoch has ended."""
    return next((winner.row for winner in reversed(winners) if winner.since[clock] <= time), None)


def time_to(winners: Sequence[Winner], clock: str, worth: float) -> float:
    """The time until the winner is worth so much, and stays so; the last change where that never is."""
    until = winners[-1].since[clock]
    for winner in reversed(winners):
        if winner.row.metric < worth:
            break
        until = winner.since[clock]
    return until


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--searches", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=2, help="runs that a configuration must have")
    parser.add_argument("--collections", default=",".join(RECORDED), help="those to report on")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = recorded_space(Path("/"), RECORDED[0])
    tables = {name: read_rows(table_of(name), space, seeds=arguments.seeds) for name in RECORDED}
    for name in arguments.collections.split(","):
        others = {other: tables[other] for other in LEARNT_FROM if GROUPS[other] != GROUPS[name]}
        rows, portfolio = tables[name], learn_portfolio(others, PORTFOLIO)
        describe(name, rows, portfolio)
        report(space, rows, portfolio, arguments.searches)


def describe(name: str, rows: Sequence[Row], portfolio: Sequence[int]) -> None:
    """Print what a table holds."""
    default = next(row for row in rows if row.number == 0)
    best = max(row.metric for row in rows)
    better = sum(row.metric > default.metric for row in rows)
    close = sum(row.metric >= CLOSE * best for row in rows)
    print(
        f"\n{name}: {len(rows)} configurations, best {best:.4f}, {close} near it; default {default.metric:.4f} "
        f"({default.kept:.4f} on images kept back), {better} better; portfolio of the others {list(portfolio)}"
    )


def report(space: SearchSpace, rows: Sequence[Row], portfolio: Sequence[int], searches: int) -> None:
    """Print for each clock how the searches of each strategy do."""
    short, long = {}, {}
    with quiet():
        for strategy in STRATEGIES:
            short[strategy] = [Replay(space, rows, strategy, seed, portfolio).run(TRIALS) for seed in range(searches)]
            long[strategy] = [Replay(space, rows, strategy, seed, portfolio).run() for seed in range(searches)]
    default = next(row for row in rows if row.number == 0)
    best = max(row.metric for row in rows)
    for clock, times in TIMES.items():
        moments = ", ".join(f"{time:g}" for time in times[:-1])
        print(
            f"{TRIALS} trials: beats the default (kept back), regret × 1000 after {moments} {clock}, at the end; "
            f"{clock} to within 1 %, all trials"
        )
        for strategy in STRATEGIES:
            cells = []
            for time in times:
                winners = [winner_at(run, clock, time) or default for run in short[strategy]]
                beats = statistics.mean(row.metric > default.metric for row in winners)
                beats_kept = statistics.mean(row.kept > default.kept for row in winners)
                regret = best - statistics.mean(row.metric for row in winners)
                cells.append(f"{beats:.2f} ({beats_kept:.2f}) {1000 * regret:5.1f}")
            needed = statistics.mean(time_to(run, clock, CLOSE * best) for run in long[strategy])
            print(f"{strategy.name:48} {'  '.join(cells)}  {needed:6.0f}")


if __name__ == "__main__":
    main()
