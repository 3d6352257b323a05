"""The final of a search: what it needs of the time, the splits of its rounds, and what it found."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tune_smp.choices.states import trial_state
from tune_smp.data.split import split_groups, write_split
from tune_smp.results.folder import RunFolder
from tune_smp.settings.search import SearchSettings
from tune_smp.texts import counted
from tune_smp.tuning.final import BEST_TRIALS, DEFAULT_TRIAL, MOST_ROUNDS, Standing, keeps_the_split, rounds_of
from tune_smp.tuning.trial_record import Finalist, TrialRecord, of_the_search
from tune_smp.workflows.preparation import PreparedData, split_anew

if TYPE_CHECKING:
    from tune_smp.training.paired_gain import ImageCounts, PairedGain
    from tune_smp.training.run_state import RunState

START_S = 10.0
"""Seconds until a worker trains: a process, torch, and the model, on a machine that is busy with others."""
REFIT_SHARE = 0.25
"""Share of a search's time that is kept for the refit, where that needs it."""
TIMED_REFIT_SHARE = 0.5
"""The same where trials have a time, and the refit as much as is left: what it reaches grows with that."""
STILL_RISING = 0.8
"""A run whose best epoch lies beyond this share of it would have gained by a longer one."""
FEWEST_EPOCHS = 5
"""Of runs of fewer epochs nobody can see whether they still rise."""


def seconds_of_a_run(settings: SearchSettings, records: Sequence[TrialRecord]) -> float | None:
    """What one run of the final takes: the longest of the best trials that came to their end; None while none has."""
    if settings.trial_budget_s is not None:
        return settings.trial_budget_s + START_S
    best = _best_whole(records)
    return max(row.seconds for row in best) + START_S if best else None


def are_still_rising(runs: Sequence[TrialRecord]) -> bool:
    """Whether runs would have gained by more time, as is assumed until there are epochs enough to see it."""
    return not runs or fmean(run.epochs for run in runs) < FEWEST_EPOCHS or share_used(runs) >= STILL_RISING


def share_used(runs: Sequence[TrialRecord]) -> float:
    """The share of their epochs after which runs were best, in the mean."""
    return fmean((run.best_epoch or 0) / run.epochs for run in runs)


def _best_whole(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """As many trials as a final has, the best of those that came to their end with a result."""
    ended = [row for row in of_the_search(records) if row.state in ("completed", "early_stopped") and row.curve]
    return sorted(ended, key=lambda row: -(row.best_metric or 0.0))[: BEST_TRIALS + 1]


def final_seconds(settings: SearchSettings, run: float | None, *, concurrency: int) -> float:
    """The time that is kept for the final: its share, or less where whole rounds take less."""
    share = settings.finalists * (settings.time_budget_s or 0.0)
    if run is None:
        return share
    a_round = math.ceil(min(BEST_TRIALS + 1, _most_runs(settings)) / concurrency) * run
    rounds = min(int(share / a_round), math.ceil(_most_runs(settings) / (BEST_TRIALS + 1)))
    # Before it begins, the epochs under way are ended.
    return rounds * a_round + START_S if rounds else share


def _most_runs(settings: SearchSettings) -> int:
    """Runs of a final at most: those of all rounds, or of its share of the trials where they are counted."""
    all_rounds = MOST_ROUNDS * (BEST_TRIALS + 1)
    return all_rounds if settings.is_ended_by_time_alone else min(all_rounds, settings.final_runs)


def refit_seconds(settings: SearchSettings, records: Sequence[TrialRecord]) -> float:
    """The time that is kept for the refit: its share, or less where it is expected to need less."""
    # After a final only, and not where an ensemble may be delivered: who wants both asks for it.
    is_sure = settings.finalists > 0 and settings.ensemble == 1 if settings.refit is None else settings.refit
    if not is_sure:
        return 0.0
    budget, run = settings.time_budget_s or 0.0, seconds_of_a_run(settings, records)
    if settings.trial_budget_s is not None and are_still_rising(_best_whole(records)):
        return TIMED_REFIT_SHARE * budget
    share = REFIT_SHARE * budget
    return share if run is None else min(share, run / settings.train_fraction)


def runs_of_the_final(
    settings: SearchSettings, records: Sequence[TrialRecord], *, left: float | None, concurrency: int
) -> int:
    """The number of runs for which there is time, ``left`` (s), and that the number of trials allows."""
    if settings.finalists == 0:
        return 0
    if left is None:
        return _most_runs(settings)
    run = seconds_of_a_run(settings, records)
    fitting = 0 if run is None else concurrency * int(max(left - refit_seconds(settings, records), 0.0) / run)
    return min(fitting, _most_runs(settings))


def write_splits(
    folder: RunFolder, data: PreparedData, settings: SearchSettings, finalists: Sequence[Finalist]
) -> None:
    """Write the split of each round that has one of its own. Raises ResourceError where the disk is full."""
    for finalist in finalists:
        path = folder.split_of_round(finalist.round)
        if keeps_the_split(finalist) or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        regions = split_anew(data.store, settings, seed=settings.seed + finalist.round)
        write_split(path, regions, data.store.collection, split_groups(data.store.collection, settings.group_by))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the final found: how its trials stand, best first, and the winner's gain over the default, where the default
    was in it, over so many validation images."""

    standings: tuple[Standing, ...]
    gain: PairedGain | None
    images: int

    @property
    def rounds(self) -> int:
        """Rounds that all ended."""
        return len(self.standings[0].metrics)

    def to_json(self) -> dict[str, Any]:
        """``final`` of summary.json."""
        return {
            "rounds": self.rounds,
            "images": self.images,
            "standings": [
                {"trial": row.number, "mean": row.mean, "metrics": list(row.metrics)} for row in self.standings
            ],
            "gain": asdict(self.gain) if self.gain else None,
        }

    def words(self, metric: str) -> str:
        """One line: who won, and how sure that is."""
        winner, seeds = self.standings[0], counted(self.rounds, "fresh seed")
        won = f"final: trial {winner.number} has {metric} {winner.mean:.4f} in the mean of {seeds}"
        if winner.number == DEFAULT_TRIAL:
            return f"{won}: none is better than the default"
        if self.gain is None:
            return won
        sure = f"; {self.gain.mean:+.4f} against the default"
        if self.gain.low is None or self.gain.high is None:
            return won + sure
        images = counted(self.images, "validation image")
        return f"{won}{sure} (95 % interval {self.gain.low:+.4f} to {self.gain.high:+.4f}, over {images})"


def verdict(
    standings: Sequence[Standing],
    records: Sequence[TrialRecord],
    settings: SearchSettings,
    state_of: Callable[[TrialRecord], RunState | None],
) -> Verdict | None:
    """What the final found; None where there was none. ``state_of`` gives the newest state of a trial."""
    if not standings:
        return None
    counts = [_counts(number, records, state_of) for number in (standings[0].number, DEFAULT_TRIAL)]
    rounds = sorted(counts[0].keys() & counts[1].keys())
    is_default = standings[0].number == DEFAULT_TRIAL
    if not rounds or is_default or DEFAULT_TRIAL not in {standing.number for standing in standings}:
        return Verdict(tuple(standings), None, 0)
    from tune_smp.training.paired_gain import paired_gain  # noqa: PLC0415  imports torch

    ours, theirs = ([of_trial[round_] for round_ in rounds] for of_trial in counts)
    gain = paired_gain(ours, theirs, settings.metric, settings.segmentation_mode)
    return Verdict(tuple(standings), gain, sum(map(len, ours)))


def _counts(
    number: int, records: Sequence[TrialRecord], state_of: Callable[[TrialRecord], RunState | None]
) -> dict[int, ImageCounts]:
    """The pixels of each validation image, by round, as far as the checkpoints have them."""
    states = {round_: state_of(record) for round_, record in rounds_of(number, records).items()}
    return {round_: counts for round_, state in states.items() if state and (counts := state.get("image_counts"))}


def has_ended(records: Sequence[TrialRecord]) -> int:
    """The number of trials of the search itself that ended."""
    return sum(trial_state(record.state).has_ended for record in of_the_search(records))
