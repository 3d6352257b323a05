"""What a final on a fresh seed is worth, replayed on the recorded curves.

A search has seen one seed of `TRIALS` configurations of a table of ``record_curves.py``, the default among them, each
to its end. Without a final it delivers the run with the best validation metric. With one, the best three and the
default are run on the other seed, with another split; the best of these is the winner, and the better of its two runs
by validation is delivered, as `search` does it. What is delivered is scored by its metric on the images kept back. A
search that takes the time of the final for more trials is compared, too.

    python -m benchmarks.finals

The interval holds 95 % of the means where the configurations of the table are drawn anew; what runs of other seeds or
on other images would have been is not in it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.curves import Curve, Row, read_rows
from benchmarks.record_curves import RECORDED, recorded_space, table_of
from tune_smp.tuning.final import BEST_TRIALS, DEFAULT_TRIAL

TRIALS = 12
SEARCHES = 200  # for a mean
RESAMPLINGS = 400  # for the interval, of fewer searches each
OTHERS = ("no final", "no final, as much time: more trials", "no final, the worth of its configuration")
SAME, EQUAL_TIME, EXPECTED = OTHERS


def last(run: Curve) -> float:
    """The validation metric that a run is judged by: that of its best epoch."""
    return run.best[-1]


def gains(field: Sequence[Row], default: Row, more: Sequence[Row], shown: int) -> Mapping[str, float]:
    """By how much what a final delivers is better, against each of `OTHERS`.

    ``field``: the configurations of the search; ``more``: those that there would be time for without a final;
    ``shown``: the seed that the search has seen.
    """
    ranked = sorted(field, key=lambda row: -last(row.runs[shown]))
    best = [row for row in ranked if row is not default][:BEST_TRIALS]
    winner = max([*best, default], key=lambda row: last(row.runs[1 - shown]))
    delivered = max(winner.runs, key=last).kept
    longer = max([*field, *more], key=lambda row: last(row.runs[shown]))
    return {
        SAME: delivered - ranked[0].runs[shown].kept,
        EQUAL_TIME: delivered - longer.runs[shown].kept,
        EXPECTED: winner.kept - ranked[0].kept,
    }


def mean_gains(rows: Sequence[Row], default: Row, searches: int, chance: random.Random) -> Mapping[str, float]:
    """The mean over so many searches of configurations drawn from these."""
    others = [row for row in rows if row is not default]
    found = []
    for _ in range(searches):
        drawn = chance.sample(others, TRIALS + BEST_TRIALS)  # the default of the final is a run, too
        field, more = [default, *drawn[: TRIALS - 1]], drawn[TRIALS - 1 :]
        found.append(gains(field, default, more, chance.randrange(2)))
    return {name: fmean(gain[name] for gain in found) for name in OTHERS}


def main() -> None:
    space = recorded_space(Path("/"), RECORDED[0])
    tables = {name: read_rows(table_of(name), space, seeds=2) for name in RECORDED}
    chance = random.Random(0)  # noqa: S311 - no secret
    means, spreads = {}, {}
    for name, rows in tables.items():
        default = next(row for row in rows if row.number == DEFAULT_TRIAL)
        means[name] = mean_gains(rows, default, SEARCHES, chance)
        spreads[name] = [
            mean_gains(chance.choices(rows, k=len(rows)), default, SEARCHES // 10, chance) for _ in range(RESAMPLINGS)
        ]
    for other in OTHERS:
        for name in RECORDED:
            line(other, name, means[name][other], [sample[other] for sample in spreads[name]])
        together = [fmean(sample[other] for sample in of_all) for of_all in zip(*spreads.values(), strict=True)]
        line(other, "all", fmean(of[other] for of in means.values()), together)


def line(other: str, collection: str, mean: float, samples: Sequence[float]) -> None:
    ordered = sorted(samples)
    low, high = ordered[len(ordered) // 40], ordered[-len(ordered) // 40 - 1]
    print(f"| {other} | {collection} | {mean:+.4f} | {low:+.4f} to {high:+.4f} |")


if __name__ == "__main__":
    main()
