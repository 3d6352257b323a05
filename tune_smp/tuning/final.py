"""The final of a search: its best trials and the default once more, on fresh seeds, and who is best in the mean.

A search takes the best of many noisy results, and the best of many is partly the luckiest. What is run again has the
same settings and another seed, the same for all runs of a round, so that the rounds are pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from tune_smp.choices.states import may_be_best, trial_state
from tune_smp.settings.run import RunSettings
from tune_smp.tuning.trial_record import Finalist, TrialRecord, best_of, of_the_search

DEFAULT_TRIAL = 0
BEST_TRIALS = 3
"""Trials of the final, besides the default and the winner of the final before."""
MOST_ROUNDS = 5
"""Rounds of one final: the mean of five seeds has less than half the noise of one."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a trial did in the final: the best metric of each of its runs, by round, and their mean."""

    number: int
    metrics: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the rounds."""
        return fmean(self.metrics)


def keeps_the_split(finalist: Finalist) -> bool:
    """Whether a run of the final validates on the images that the search validated on: those of the first round."""
    return finalist.round == 1


def with_fresh_seed(settings: RunSettings, finalist: Finalist) -> RunSettings:
    """The settings of a run of the final: ``train`` with them splits the images as the run did."""
    seed = settings.seed + finalist.round
    return settings.with_changes(
        seed=seed, split_seed=settings.resolved_split_seed if keeps_the_split(finalist) else seed
    )


def is_due(records: Sequence[TrialRecord]) -> bool:
    """Whether a trial of the search ended that no final knows of."""
    known = max((record.number for record in records if record.finalist), default=-1)
    return any(record.number > known for record in of_the_search(records) if trial_state(record.state).has_ended)


def finalists(records: Sequence[TrialRecord]) -> list[int]:
    """The trials to run again: the best of the search, best first, the winner of an earlier final, and the default.

    None where no trial could be compared with another.
    """
    remaining = [record for record in of_the_search(records) if record.number != DEFAULT_TRIAL]
    chosen: list[int] = []
    while len(chosen) < BEST_TRIALS and (record := best_of(remaining)):
        chosen.append(record.number)
        remaining.remove(record)
    chosen += [standing.number for standing in standings(records)[:1]]
    default = [record.number for record in records if record.number == DEFAULT_TRIAL and _has_result(record)]
    unique = list(dict.fromkeys([*chosen, *default]))
    if default:  # last, as the one that is left out never
        unique = [number for number in unique if number != DEFAULT_TRIAL] + default
    return unique if len(unique) > 1 else []


def draw_up(field: Sequence[int], records: Sequence[TrialRecord], *, runs: int, may_shrink: bool) -> list[Finalist]:
    """The runs of the final, round by round, that so many ``runs`` allow.

    ``field`` are the trials, best first, the default last. Where the runs do not suffice for one round, the final has
    the best and the default alone, and as many between as there are runs for, if it ``may_shrink``; else there is none.
    """
    if len(field) < 2:
        return []
    if runs < len(field):
        if not may_shrink or runs < 2:
            return []
        field = [*field[: runs - 1], field[-1]]
    before = max((record.finalist.round for record in records if record.finalist), default=0)
    rounds = range(before + 1, before + 1 + min(runs // len(field), MOST_ROUNDS))
    return [Finalist(number, round_) for round_ in rounds for number in field]


def standings(records: Sequence[TrialRecord]) -> list[Standing]:
    """The trials of the last final, the best in the mean first; of equals, the earlier one.

    Only rounds that all of them ended count. One that failed on a fresh seed is out. None where there was no final, or
    it has not ended its first round.
    """
    runs = [record for record in records if record.finalist is not None]
    last = max((_round(record) for record in runs), default=0)
    field = {_of(record) for record in runs if _round(record) == last}
    field -= {_of(record) for record in runs if trial_state(record.state).went_wrong}
    by_round = {
        round_: {_of(record): record for record in runs if _round(record) == round_ and _has_result(record)}
        for round_ in sorted({_round(record) for record in runs})
    }
    whole = [ended for ended in by_round.values() if field <= ended.keys()]
    if not field or not whole:
        return []
    found = [Standing(number, tuple(ended[number].curve[-1] for ended in whole)) for number in field]
    return sorted(found, key=lambda standing: (-standing.mean, standing.number))


def rounds_of(number: int, records: Iterable[TrialRecord]) -> dict[int, TrialRecord]:
    """The runs of this trial in the final that gave a result, by round."""
    return {
        record.finalist.round: record
        for record in records
        if record.finalist and record.finalist.of == number and _has_result(record)
    }


def _has_result(record: TrialRecord) -> bool:
    return trial_state(record.state).ended_well and may_be_best(record.state, record.best_metric)


def _of(record: TrialRecord) -> int:
    assert record.finalist is not None  # noqa: S101 - the caller's condition
    return record.finalist.of


def _round(record: TrialRecord) -> int:
    assert record.finalist is not None  # noqa: S101 - the caller's condition
    return record.finalist.round
