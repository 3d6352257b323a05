"""Would pausing trials and thawing the most promising ones beat ASHA? Replayed on the recorded curves.

Freeze-thaw (Swersky, Snoek and Adams 2014): after each epoch a trial is paused, and the one runs on, or a new one
begins, whose end is drawn the highest. The end of a trial is drawn as its metric times the growth that another run had
from this epoch on (`growths`, learnt on the collections of the other groups); that of a new one as the drawn end of a
trial that was begun. Everything else is as in ``search_efficiency.py``; pausing and thawing cost nothing here.

    python -m benchmarks.freeze_thaw [--searches 50] [--seeds 2]
"""

from __future__ import annotations

import argparse
import heapq
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
from typing_extensions import override

from benchmarks.curves import GROUPS, Curve, Row, learn_portfolio, read_rows
from benchmarks.record_curves import LEARNT_FROM, SECONDS, recorded_space, table_of
from benchmarks.search_efficiency import CLOSE, PORTFOLIO, WORKERS, Replay, Strategy, Winner, time_to, winner_at
from tune_smp.tuning.study import quiet

BEGUN_FIRST = 4
"""Trials that are begun before the ends of those begun say anything about a new one."""

Growths = Mapping[int, Sequence[float]]


@dataclass
class _Partial:
    row: Row
    curve: Curve
    epochs: int = 0

    @property
    def value(self) -> float:
        return self.curve.best[self.epochs - 1]

    @property
    def is_whole(self) -> bool:
        return self.epochs == len(self.curve.best)

    @property
    def next_seconds(self) -> float:
        before = self.curve.seconds[self.epochs - 1] if self.epochs else 0.0
        return self.curve.seconds[self.epochs] - before


class FreezeThaw(Replay):
    """A replay in which trials are paused after every epoch."""

    growths: Growths

    @override
    def run(self, trials: int | None = None) -> list[Winner]:
        self._chance = random.Random(self.seed)  # noqa: S311 - no secret
        self._partial: list[_Partial] = []
        ends: list[tuple[float, int, _Partial]] = []
        for _ in range(WORKERS):
            self._continue(ends, now=0.0)
        while ends:
            now, _, partial = heapq.heappop(ends)
            partial.epochs += 1
            self._note(partial.row, partial.value, now)
            self._partial.append(partial)
            self._continue(ends, now=now)
        return self.winners

    def _continue(self, ends: list[tuple[float, int, _Partial]], *, now: float) -> None:
        partial = self._chosen()
        if partial is not None:
            heapq.heappush(ends, (now + partial.next_seconds, partial.row.number, partial))

    def _chosen(self) -> _Partial | None:
        paused = [partial for partial in self._partial if not partial.is_whole]
        drawn = [(self._drawn_end(partial), partial) for partial in paused]
        begun = len(self.rows) - len(self._left)
        ends = [self._drawn_end(partial) for partial in self._partial]
        is_new = begun < BEGUN_FIRST or not drawn or max(drawn, key=lambda pair: pair[0])[0] < self._chance.choice(ends)
        if self._left and is_new:
            row = self._next_row()
            del self._left[row.number]
            return _Partial(row, self._shown[row.number])
        if not drawn:
            return None
        chosen = max(drawn, key=lambda pair: pair[0])[1]
        self._partial.remove(chosen)
        return chosen

    def _drawn_end(self, partial: _Partial) -> float:
        return partial.value * (1.0 if partial.is_whole else self._chance.choice(self.growths[partial.epochs]))


def growths(tables: Mapping[str, Sequence[Row]]) -> Growths:
    """By the number of epochs: the best metric at the end, as a multiple of that after these epochs."""
    curves = [run.best for rows in tables.values() for row in rows for run in row.runs]
    longest = max(map(len, curves))
    return {
        epoch: [best[-1] / best[epoch - 1] for best in curves if len(best) > epoch and best[epoch - 1] > 0] or [1.0]
        for epoch in range(1, longest + 1)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--searches", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = recorded_space(Path("/"), LEARNT_FROM[0])
    tables = {name: read_rows(table_of(name), space, seeds=arguments.seeds) for name in LEARNT_FROM}
    print("s to within 1 % of the best; regret × 1000 after 2 and 4 trials' time")
    for name, rows in tables.items():
        others = {other: table for other, table in tables.items() if GROUPS[other] != GROUPS[name]}
        portfolio, learnt = learn_portfolio(others, PORTFOLIO), growths(others)
        best = max(row.metric for row in rows)
        default = next(row for row in rows if row.number == 0)
        for with_portfolio in (False, True):
            for kind in (Replay, FreezeThaw):
                strategy = Strategy("", "random", portfolio=with_portfolio)
                with quiet():
                    runs = [kind(space, rows, strategy, seed, portfolio) for seed in range(arguments.searches)]
                    for run in runs:
                        if isinstance(run, FreezeThaw):
                            run.growths = learnt
                        run.run()
                needed = statistics.mean(time_to(run.winners, "seconds", CLOSE * best) for run in runs)
                regrets = [
                    1000
                    * (best - statistics.mean((winner_at(run.winners, "seconds", t) or default).metric for run in runs))
                    for t in (2 * SECONDS, 4 * SECONDS)
                ]
                words = "random, portfolio" if with_portfolio else "random"
                how = "freeze-thaw" if kind is FreezeThaw else "ASHA"
                print(f"{name:20} {words:18} {how:12} {needed:6.0f}  {regrets[0]:6.1f} {regrets[1]:6.1f}")


if __name__ == "__main__":
    main()
