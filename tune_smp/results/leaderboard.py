"""trials.csv: one row per trial of a search, best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_smp.choices.states import trial_state
from tune_smp.results.folder import RunFolder, read_csv, write_csv

LARGEST_NUMBER = 1e30  # beyond that a run has diverged, and no axis can show it

"""States of trials that are not exported, whatever they reached before: they stand below all others."""

_BEFORE, _AFTER = ("trial", "state"), (*("epochs", "best_metric", "best_epoch", "seconds", "reason", "finalist_of"),)


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial as trials.csv has it.

    ``chosen`` has the values of the searched flags as text, empty where the trial has none. ``finalist_of`` is the
    trial that a run of the final repeats.
    """

    number: int
    state: str
    chosen: dict[str, str]
    epochs: int | None
    best_metric: float | None
    best_epoch: int | None
    seconds: float | None
    reason: str
    finalist_of: int | None = None

    @property
    def is_default(self) -> bool:
        """Whether it has the settings of trial 0."""
        return 0 in (self.number, self.finalist_of)


def write_trials(folder: RunFolder, rows: Sequence[Mapping[str, Any]], *, searched: Sequence[str]) -> None:
    """Write trials.csv, ordered by best metric, then by trial number; whole or not at all.

    Trials without a metric, and those that failed or diverged, come last.

    ``rows`` map the columns to values, a missing one or None becomes an empty cell; ``searched`` are the flags that
    get a column each. Raises ResourceError when the disk is full.
    """
    columns = (*_BEFORE, *searched, *_AFTER)
    cells = [{column: _cell(row.get(column)) for column in columns} for row in sorted(rows, key=_rank)]
    write_csv(folder.trials_csv, cells, columns=columns)


def read_trials(folder: RunFolder) -> tuple[TrialRow, ...]:
    """The rows of trials.csv in its order; none where there is no such file, and rows without a number are left out.

    Raises OSError, UnicodeError or csv.Error where the file cannot be read.
    """
    if not folder.trials_csv.exists():
        return ()
    rows = read_csv(folder.trials_csv)
    return tuple(_trial(row) for row in rows if whole_number(row.get("trial")) is not None)


def number(value: object) -> float | None:
    """The number that a cell or a JSON value is; None for everything else, such as an empty cell, NaN or infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) <= LARGEST_NUMBER else None


def whole_number(value: object) -> int | None:
    """``number`` where it is a whole one."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def _rank(row: Mapping[str, Any]) -> tuple[bool, float, int]:
    best = number(row.get("best_metric"))
    ranks = best is not None and not trial_state(row.get("state")).went_wrong
    return not ranks, -(best or 0.0), int(row["trial"])


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()  # as flags are written
    if isinstance(value, str):
        # A name of bytes that are no UTF-8 must not keep the table from being written.
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else value


def _trial(row: Mapping[str, Any]) -> TrialRow:
    known = {*_BEFORE, *_AFTER, None}  # None: csv's key for cells beyond the last column
    trial = whole_number(row["trial"])
    assert trial is not None  # noqa: S101  read_trials asks first
    return TrialRow(
        number=trial,
        state=row.get("state") or "",
        chosen={column: value or "" for column, value in row.items() if column not in known},
        epochs=whole_number(row.get("epochs")),
        best_metric=number(row.get("best_metric")),
        best_epoch=whole_number(row.get("best_epoch")),
        seconds=number(row.get("seconds")),
        reason=row.get("reason") or "",
        finalist_of=whole_number(row.get("finalist_of")),
    )
