"""trials.csv: its order, its columns, and what comes back."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tune_smp.results.folder import RunFolder, read_csv
from tune_smp.results.leaderboard import number, read_trials, whole_number, write_trials


def trial(number: int, best: float | None, **more: Any) -> dict[str, Any]:
    return {"trial": number, "state": "completed", "epochs": 3, "best_metric": best, "seconds": 1.5, **more}


def test_the_best_comes_first_and_those_without_a_score_last(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    rows = [trial(0, 0.5), trial(1, None), trial(2, 0.7), trial(3, 0.5), trial(4, math.nan), trial(5, 0.0)]

    write_trials(folder, rows, searched=[])

    assert [row.number for row in read_trials(folder)] == [2, 0, 3, 5, 1, 4]


def test_trials_that_are_not_exported_stand_below_all_others(tmp_path: Path) -> None:
    rows = [
        trial(0, 0.5),
        trial(1, 0.9, state="diverged"),
        trial(2, 0.8, state="failed"),
        trial(3, 0.4, state="pruned"),
        trial(4, None, state="failed"),
    ]

    write_trials(RunFolder(tmp_path), rows, searched=[])

    assert [row.number for row in read_trials(RunFolder(tmp_path))] == [0, 3, 1, 2, 4]


def test_every_searched_flag_has_a_column_and_a_trial_without_it_an_empty_cell(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    rows = [
        trial(0, 0.5, learningRate=1e-3, replaceHead=True, best_epoch=2),
        trial(1, 0.4, momentum=0.9, state="failed", reason='out of memory,\n"really" \udcff'),
    ]

    write_trials(folder, rows, searched=["learningRate", "momentum", "replaceHead"])

    columns = "trial,state,learningRate,momentum,replaceHead,epochs,best_metric,best_epoch,seconds,reason,finalist_of"
    assert list(read_csv(folder.trials_csv)[0]) == columns.split(",")
    first, second = read_trials(folder)
    assert first.chosen == {"learningRate": "0.001", "momentum": "", "replaceHead": "true"}
    assert (first.epochs, first.best_metric, first.best_epoch, first.seconds, first.reason) == (3, 0.5, 2, 1.5, "")
    assert second.chosen["momentum"] == "0.9"
    assert (second.state, second.best_epoch) == ("failed", None)
    assert second.reason == 'out of memory,\n"really" \\udcff'


def test_before_the_first_trial_there_are_columns_and_no_rows(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert read_trials(folder) == ()
    write_trials(folder, [], searched=["learningRate"])
    assert folder.trials_csv.read_text().startswith("trial,state,learningRate,epochs,")
    assert read_trials(folder) == ()


def test_rows_that_are_none_are_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.trials_csv.write_text("trial,state,best_metric\n0,completed,0.5,9,9\nnone,failed,\n2\n")
    assert [(row.number, row.state, row.best_metric) for row in read_trials(folder)] == [
        (0, "completed", 0.5),
        (2, "", None),
    ]


@given(st.floats(allow_nan=False, min_value=-1e30, max_value=1e30) | st.integers(-(10**15), 10**15))
def test_numbers_come_back_from_text(value: float) -> None:
    assert number(str(value)) == number(value) == value
    assert whole_number(str(value)) == (int(value) if float(value).is_integer() else None)


def test_what_is_no_number_is_none() -> None:
    nothing: list[object] = [None, "", "x", "nan", "inf", math.inf, 10**400, "1e300", True, [], {}]
    assert [number(value) for value in nothing] == [None] * len(nothing)


def test_what_a_search_wrote_is_cleared_for_the_next(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.histories.mkdir(parents=True)
    own = (folder.trial_history(7), folder.trials_csv, folder.study, folder.report)
    for path in own:
        path.touch()
    (tmp_path / "notes.txt").touch()
    assert folder.trial_history(7) == tmp_path / "trials" / "histories" / "trial_00007.csv"

    folder.clear()

    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
