"""Does a final on fresh seeds choose better configurations? Replayed on the recorded curves.

A search has seen one seed of `TRIALS` configurations of a table of ``record_curves.py``, the default among them, each
to its end. Without a final, the configuration of the best run wins. With one, the best three and the default are run on
the other seed, and the best of these runs wins. What a configuration is worth is the mean of its two runs on the images
kept back: what a refit of it, which `search` delivers, can count on. (Seeds have splits of their own in these tables,
so that validation metrics of two seeds are never compared.)

    python -m benchmarks.finals

The interval holds 95 % of the means where the configurations of each table are drawn anew;
what runs of other seeds or on other images would have been is not in it.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.curves import Row, read_rows
from benchmarks.record_curves import RECORDED, recorded_space, table_of
from tune_smp.tuning.final import BEST_TRIALS, DEFAULT_TRIAL

TRIALS = 12
SEARCHES = 200
RESAMPLINGS = 400
SAME_TRIALS, EQUAL_TIME, IN_HINDSIGHT = (
    "the same trials",
    "as much time: more trials",
    "the best of the three, less the first",
)
GAINS = (SAME_TRIALS, EQUAL_TIME, IN_HINDSIGHT)

Table = Mapping[int, Row]


def gains(table: Table, searched: Sequence[int], more: Sequence[int], shown: int) -> Mapping[str, float]:
    """By how much the winner of the final is worth more than what the search would deliver without one.

    ``searched``: the numbers of its configurations; ``more``: those that there would be time for without a final;
    ``shown``: the seed that the search has seen.
    """

    def metric(number: int, seed: int) -> float:
        return table[number].runs[seed].best[-1]

    ranked = sorted(searched, key=lambda number: -metric(number, shown))
    three = [number for number in ranked if number != DEFAULT_TRIAL][:BEST_TRIALS]
    winner = max([*three, DEFAULT_TRIAL], key=lambda number: metric(number, 1 - shown))
    longer = max([*searched, *more], key=lambda number: metric(number, shown))
    return {
        SAME_TRIALS: table[winner].kept - table[ranked[0]].kept,
        EQUAL_TIME: table[winner].kept - table[longer].kept,
        IN_HINDSIGHT: max(table[number].kept for number in three) - table[three[0]].kept,
    }


def mean_gains(table: Table, numbers: Collection[int], chance: random.Random) -> Mapping[str, float]:
    """The gains in the mean of searches of configurations drawn from these."""
    others = sorted(set(numbers) - {DEFAULT_TRIAL})
    found = []
    for _ in range(SEARCHES):
        # A final has a run more than it has of the best trials: the default's.
        drawn = chance.sample(others, TRIALS + BEST_TRIALS)
        searched, more, shown = [DEFAULT_TRIAL, *drawn[: TRIALS - 1]], drawn[TRIALS - 1 :], chance.randrange(2)
        found.append(gains(table, searched, more, shown))
    return {gain: fmean(row[gain] for row in found) for gain in GAINS}


def main() -> None:
    space = recorded_space(Path("/"), RECORDED[0])
    tables = {name: {row.number: row for row in read_rows(table_of(name), space, seeds=2)} for name in RECORDED}
    means = {name: mean_gains(table, table, random.Random(0)) for name, table in tables.items()}  # noqa: S311
    resampled = []
    for seed in range(1, RESAMPLINGS + 1):
        sample = {}
        for name, table in tables.items():
            chance = random.Random(seed)  # noqa: S311 - the same for tables of as many configurations
            sample[name] = mean_gains(table, chance.choices(sorted(table), k=len(table)), chance)
        resampled.append(sample)
    for gain in GAINS:
        for name in RECORDED:
            line(gain, name, means[name][gain], [sample[name][gain] for sample in resampled])
        together = [fmean(of[gain] for of in sample.values()) for sample in resampled]
        line(gain, "all", fmean(of[gain] for of in means.values()), together)


def line(gain: str, collection: str, mean: float, samples: Sequence[float]) -> None:
    ordered = sorted(samples)
    low, high = ordered[len(ordered) // 40], ordered[-len(ordered) // 40 - 1]
    print(f"| {gain} | {collection} | {mean:+.4f} | {low:+.4f} to {high:+.4f} |")


if __name__ == "__main__":
    main()
