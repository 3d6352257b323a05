"""The recorded learning curves, as ``record_curves.py`` wrote them, and the portfolio that is learnt from them."""

from __future__ import annotations

import csv
import itertools
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_smp.tuning.space import Range, Scalar, SearchSpace

GROUPS: Mapping[str, str] = {
    "membrane-binary": "membrane",
    "nuclei-binary": "nuclei",
    "nuclei-multiclass": "nuclei",
    "nuclei-multilabel": "nuclei",
    "camvid-multiclass": "camvid",
}
"""Collections that share images are one group: what is learnt on one is not reported on another."""


BEST_OF_LONG_RUNS = 17
"""A Unet with regnetx_002, whose net was the best of runs as long as a refit (`timed_run.py`; membrane and camvid, one
seed)."""


@dataclass(frozen=True)
class Curve:
    """One run: CPU seconds at the end of each epoch, the best metric so far, and the metric on the images kept back."""

    seconds: tuple[float, ...]
    best: tuple[float, ...]
    kept: float


@dataclass(frozen=True)
class Row:
    """A configuration and its runs, one for each seed."""

    number: int
    flags: Mapping[str, Scalar]
    runs: tuple[Curve, ...]

    @property
    def metric(self) -> float:
        """Mean validation metric of the best epochs."""
        return statistics.mean(run.best[-1] for run in self.runs)

    @property
    def kept(self) -> float:
        """Mean metric on the images kept back."""
        return statistics.mean(run.kept for run in self.runs)


def read_rows(table: Path, space: SearchSpace, *, seeds: int) -> list[Row]:
    """The configurations that have this many runs, by number, with their runs of the first seeds."""
    kinds = {parameter.flag: _kind(parameter.domain) for parameter in space.parameters}
    runs: defaultdict[int, dict[int, Curve]] = defaultdict(dict)
    flags: dict[int, Mapping[str, Scalar]] = {}
    with table.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            number = int(line["configuration"])
            flags[number] = {flag: kinds[flag](line[flag]) for flag in space.searched if line[flag]}
            best = itertools.accumulate((float(value) for value in line["metric"].split()), _better)
            seconds = tuple(float(value) for value in line["seconds"].split())
            runs[number][int(line["seed"])] = Curve(seconds, tuple(best), float(line["kept"] or 0.0))
    whole = {number: of for number, of in sorted(runs.items()) if set(range(seeds)) <= of.keys()}
    return [Row(number, flags[number], tuple(of[seed] for seed in range(seeds))) for number, of in whole.items()]


def _better(one: float, other: float) -> float:
    """The larger of two metrics; a run that diverged has none in its last epoch."""
    return max(one, other) if other == other else one  # noqa: PLR0124 - NaN


def _kind(domain: Any) -> type:
    if isinstance(domain, Range):
        return int if domain.integer else float
    return type(domain[0].value)


def learn_portfolio(tables: Mapping[str, Sequence[Row]], size: int) -> list[int]:
    """Numbers of `BEST_OF_LONG_RUNS` and of the configurations that together with it do best, one after the other.

    What counts is the metric on the images kept back, as a share of the collection's best; collections of a group count
    as one.
    """
    shares = {
        name: {row.number: row.kept / max(other.kept for other in rows) for row in rows}
        for name, rows in tables.items()
    }
    common = set.intersection(*(set(of) for of in shares.values()))
    chosen = [0, BEST_OF_LONG_RUNS]

    def mean_share(numbers: Sequence[int]) -> float:
        of_group: defaultdict[str, list[float]] = defaultdict(list)
        for name, share in shares.items():
            of_group[GROUPS[name]].append(max(share[number] for number in numbers))
        return statistics.mean(statistics.mean(values) for values in of_group.values())

    def worth(number: int) -> tuple[float, float]:
        """What it adds to those chosen; of those that add nothing, what it is worth alone."""
        return mean_share([*chosen, number]), mean_share([number])

    while len(chosen) < 1 + size:
        chosen.append(max(sorted(common - set(chosen)), key=worth))
    return chosen[1:]
