"""Who is in the final of a search, and who wins it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuning.records import record
from tests.tuning.test_study import opened, run, space
from tune_smp.tuning.final import (
    MOST_ROUNDS,
    draw_up,
    finalists,
    is_due,
    keeps_the_split,
    rounds_of,
    standings,
    with_fresh_seed,
)
from tune_smp.tuning.study import records_in
from tune_smp.tuning.trial_record import Finalist, TrialRecord

SEARCH = [
    record(0, "completed", 0.5),
    record(1, "completed", 0.6),
    record(2, "pruned", 0.2),
    record(3, "completed", 0.9),
    record(4, "early_stopped", 0.8),
    record(5, "diverged", 0.99),
    record(6, "completed", 0.7),
]


def rerun(number: int, of: int, round_: int, metric: float | None, state: str = "completed") -> TrialRecord:
    return record(number, state, *([] if metric is None else [metric]), finalist=Finalist(of, round_))


def test_the_best_three_and_the_default_are_run_again() -> None:
    assert finalists(SEARCH) == [3, 4, 6, 0]
    assert finalists(SEARCH[:2]) == [1, 0]
    assert finalists(SEARCH[:1]) == [], "nothing to compare with"
    without_default = [record(0, "diverged"), *SEARCH[1:]]
    assert finalists(without_default) == [3, 4, 6]


def test_the_winner_of_an_earlier_final_has_to_win_again() -> None:
    earlier = [rerun(7, 1, 1, 0.95), rerun(8, 0, 1, 0.4)]
    assert finalists([*SEARCH, *earlier]) == [3, 4, 6, 1, 0]


@pytest.mark.parametrize(
    ("runs", "may_shrink", "expected"),
    [
        (8, False, [(3, 1), (4, 1), (6, 1), (0, 1), (3, 2), (4, 2), (6, 2), (0, 2)]),
        (7, True, [(3, 1), (4, 1), (6, 1), (0, 1)]),
        (3, True, [(3, 1), (4, 1), (0, 1)]),
        (3, False, []),
        (2, True, [(3, 1), (0, 1)]),
        (1, True, []),
    ],
)
def test_as_many_rounds_as_there_are_runs_for(runs: int, may_shrink: bool, expected: list[tuple[int, int]]) -> None:
    planned = draw_up([3, 4, 6, 0], SEARCH, runs=runs, may_shrink=may_shrink)
    assert [(row.of, row.round) for row in planned] == expected


def test_rounds_are_counted_on_and_there_are_not_too_many() -> None:
    earlier = [*SEARCH, rerun(7, 3, 1, 0.9), rerun(8, 0, 1, 0.4)]
    planned = draw_up([3, 0], earlier, runs=1000, may_shrink=True)
    assert sorted({row.round for row in planned}) == list(range(2, 2 + MOST_ROUNDS))


def test_the_mean_over_the_rounds_decides() -> None:
    runs = [
        *(rerun(7, 3, 1, 0.5), rerun(8, 4, 1, 0.8), rerun(9, 0, 1, 0.6)),
        *(rerun(10, 3, 2, 0.9), rerun(11, 4, 2, 0.7), rerun(12, 0, 2, 0.6)),
    ]
    found = standings([*SEARCH, *runs])
    assert [(row.number, row.metrics) for row in found] == [(4, (0.8, 0.7)), (3, (0.5, 0.9)), (0, (0.6, 0.6))]
    assert found[0].mean == pytest.approx(0.75)


def test_a_round_that_is_not_whole_does_not_count() -> None:
    first = [rerun(7, 3, 1, 0.5), rerun(8, 0, 1, 0.6)]
    second = [rerun(9, 3, 2, 0.9), rerun(10, 0, 2, 0.1, "interrupted")]
    assert [row.number for row in standings([*SEARCH, *first, *second])] == [0, 3]
    assert standings([*SEARCH, *second]) == []
    assert standings(SEARCH) == []


def test_one_that_fails_on_a_fresh_seed_is_out() -> None:
    runs = [rerun(7, 3, 1, 0.9, "diverged"), rerun(8, 4, 1, 0.7), rerun(9, 0, 1, 0.6)]
    assert [row.number for row in standings([*SEARCH, *runs])] == [4, 0]


def test_the_earlier_of_equals_wins_which_the_default_is() -> None:
    assert [row.number for row in standings([rerun(7, 3, 1, 0.6), rerun(8, 0, 1, 0.6)])] == [0, 3]


metrics = st.floats(0.0, 1.0)


@given(st.lists(st.tuples(metrics, metrics, metrics), min_size=1, max_size=5))
def test_nobody_delivers_less_than_the_default(rounds: list[tuple[float, float, float]]) -> None:
    runs = [
        rerun(10 * round_ + place, of, round_, values[place])
        for round_, values in enumerate(rounds, start=1)
        for place, of in enumerate((0, 4, 6))
    ]
    by_number = {row.number: row.mean for row in standings([*SEARCH, *runs])}
    assert next(iter(by_number.values())) == max(by_number.values()) >= by_number[0]


def test_a_final_is_due_when_a_trial_has_ended_since() -> None:
    assert is_due(SEARCH)
    assert not is_due([])
    assert not is_due([record(0, "running", 0.5)])
    after = [*SEARCH, rerun(7, 3, 1, 0.9), rerun(8, 0, 1, 0.4)]
    assert not is_due(after)
    assert is_due([*after, record(9, "pruned", 0.1)])


def test_every_round_has_its_seed_and_from_the_second_on_its_split() -> None:
    settings = space().settings({"optimizerName": "Adam", "learningRate": 1e-3, "batchSize": 8})
    first, second = (with_fresh_seed(settings, Finalist(3, round_)) for round_ in (1, 2))
    assert (first.seed, first.resolved_split_seed) == (1, 0)
    assert (second.seed, second.resolved_split_seed) == (2, 2)
    assert keeps_the_split(Finalist(3, 1))
    assert not keeps_the_split(Finalist(3, 2))


def test_a_study_runs_the_final_alone_and_then_the_search_on(tmp_path: Path) -> None:
    """Trials of the search that are still to be run wait, those that a time budget cut off too."""
    journal = tmp_path / "study.journal"
    study = opened(journal)
    study.begin([{"optimizerName": "Adam", "learningRate": 0.01, "batchSize": size} for size in (4, 8, 12)])
    run(study, "completed", [0.3])
    run(study, "completed", [0.5])
    cut_off = study.ask()
    study.report(cut_off.number, 1, 0.4)
    study.interrupted(cut_off.number, seconds=1.0)
    study.requeue()
    waiting = opened(journal)
    waiting.draw_up([Finalist(1, 1), Finalist(0, 1)])
    assert waiting.planned_finalists() == 2
    with waiting.final():
        asked = [waiting.ask(), waiting.ask()]
        for trial, metric in zip(asked, (0.6, 0.2), strict=True):
            waiting.report(trial.number, 1, metric)
            waiting.tell(trial.number, "completed", seconds=2.0)
    assert [trial.finalist for trial in asked] == [Finalist(1, 1), Finalist(0, 1)]
    assert [trial.settings.seed for trial in asked] == [1, 1]
    assert [trial.flags["batchSize"] for trial in asked] == [8, 4]
    assert waiting.planned_finalists() == 0
    resumed = waiting.ask()
    assert (resumed.number, resumed.curve, resumed.finalist) == (cut_off.number, (0.4,), None)
    read = records_in(journal)
    assert [standing.number for standing in standings(read)] == [1, 0]
    assert {round_: row.best_metric for round_, row in rounds_of(1, read).items()} == {1: 0.6}
    assert read[asked[0].number].as_row()["finalist_of"] == 1


def test_a_final_that_was_interrupted_is_asked_for_again(tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    study = opened(journal)
    run(study, "completed", [0.3])
    run(study, "completed", [0.5])
    study.draw_up([Finalist(1, 1), Finalist(0, 1)])
    with study.final():
        begun = study.ask()
        study.report(begun.number, 1, 0.4)
    again = opened(journal)
    again.requeue()
    assert again.planned_finalists() == 2
    with again.final():
        resumed = again.ask()
    assert (resumed.number, resumed.curve, resumed.finalist) == (begun.number, (0.4,), begun.finalist)
