"""The page's tables of trials: all of them, the best beside the default, and the failures by reason."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tune_smp.choices.states import trial_state
from tune_smp.errors import listing
from tune_smp.results.leaderboard import TrialRow, number
from tune_smp.results.report import numbers
from tune_smp.results.report.facts import Facts, mapping
from tune_smp.texts import duration

SHORT, LONG = 160, 1200  # characters of a reason in the table and in the list of failures


@dataclass(frozen=True, slots=True)
class Cell:
    """The text, the value to sort by, and its kind: "number", "reason", or empty for words."""

    text: str
    sort: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One trial; ``mark`` is "best", "default" or empty."""

    mark: str
    state: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class TrialTable:
    """Column titles with the kind of each, and the rows, best first."""

    columns: tuple[tuple[str, str], ...]
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Trials that failed alike."""

    state: str
    reason: str
    count: int
    trials: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A searched flag with its value in trial 0 and in the best trial."""

    flag: str
    default: str
    best: str
    changed: bool


@dataclass(frozen=True, slots=True)
class ViewRow:
    """A preset of test-time augmentation; ``mark`` is "best" for the one recommended, or empty."""

    mark: str
    preset: str
    metric: str
    seconds: str
    factor: str


def view_rows(facts: Facts) -> tuple[ViewRow, ...]:
    """What test-time augmentation was measured to gain with the exported model; none where it was not."""
    views = mapping(facts.preprocessing.get("views"))
    presets = {name: mapping(row) for name, row in mapping(views.get("presets")).items()}
    plain = number(presets.get("none", {}).get("seconds_per_megapixel"))
    rows = []
    for name, row in presets.items():
        metric, seconds = number(row.get("metric")), number(row.get("seconds_per_megapixel"))
        if metric is not None and seconds is not None and plain:
            mark = "best" if name == views.get("recommended") else ""
            rows.append(ViewRow(mark, name, numbers.metric(metric), f"{seconds:.3g}", f"{seconds / plain:.1f}"))
    return tuple(rows)


def trial_table(facts: Facts) -> TrialTable | None:
    """All trials; None where there are none."""
    if not facts.trials:
        return None
    flags = searched(facts.trials)
    kinds = {flag: _kind(flag, facts.trials) for flag in flags}
    with_reason = any(row.reason for row in facts.trials)
    columns = (
        *(("trial", "number"), (facts.metric, "number"), ("state", "")),
        *kinds.items(),
        *(("epochs", "number"), ("best epoch", "number"), ("time", "number")),
        *((("reason", "reason"),) if with_reason else ()),
    )
    best = facts.best_row.number if facts.best_row else None
    rows = []
    for row in facts.trials:
        chosen = (_chosen(row.chosen.get(flag, ""), kind) for flag, kind in kinds.items())
        reason = (_reason(row),) if with_reason else ()
        mark = "best" if row.number == best else "default" if row.number == 0 else ""
        rows.append(TableRow(mark, row.state, (*_score(row), *chosen, *_course(row), *reason)))
    return TrialTable(columns, tuple(rows))


def searched(trials: Sequence[TrialRow]) -> tuple[str, ...]:
    """The flags that have a column."""
    return tuple(dict.fromkeys(flag for row in trials for flag in row.chosen))


def differences(facts: Facts) -> tuple[Difference, ...]:
    """The best trial beside trial 0; none where one of the two is missing or both are one."""
    best, default = facts.best_row, facts.default_row
    if best is None or default is None or best.is_default:
        return ()
    pairs = [(flag, default.chosen.get(flag, ""), best.chosen.get(flag, "")) for flag in searched(facts.trials)]
    return tuple(
        Difference(flag, numbers.cell(before), numbers.cell(after), changed=before != after)
        for flag, before, after in pairs
    )


def failures(facts: Facts) -> tuple[Failure, ...]:
    """The failed and the diverged trials by their reason, the most frequent first."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in facts.trials:
        if trial_state(row.state).went_wrong:
            groups[row.state, row.reason].append(row.number)
    return tuple(
        Failure(state, _cut(reason, LONG) or "no reason was recorded", len(members), listing(members_text(members)))
        for (state, reason), members in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    )


def members_text(members: Sequence[int]) -> list[str]:
    """Trial numbers in order, as text."""
    return [str(member) for member in sorted(members)]


def _score(row: TrialRow) -> tuple[Cell, ...]:
    state = row.state.replace("_", " ")
    state += f", repeats {row.finalist_of}" if row.finalist_of is not None else ""
    return (
        _number(row.number, str(row.number)),
        _number(row.best_metric, numbers.metric(row.best_metric)),
        Cell(state, state),
    )


def _course(row: TrialRow) -> tuple[Cell, ...]:
    counts = [
        _number(count, numbers.MISSING if count is None else str(count)) for count in (row.epochs, row.best_epoch)
    ]
    return *counts, _number(row.seconds, duration(row.seconds) if row.seconds is not None else numbers.MISSING)


def _reason(row: TrialRow) -> Cell:
    first_line = row.reason.strip().partition("\n")[0]
    return Cell(_cut(first_line, SHORT), row.reason[:SHORT], "reason")


def _chosen(value: str, kind: str) -> Cell:
    return Cell(numbers.cell(value), value, kind)


def _number(value: float | None, shown: str) -> Cell:
    return Cell(shown, "" if value is None else repr(value), "number")


def _kind(flag: str, trials: Sequence[TrialRow]) -> str:
    values = [value for row in trials if (value := row.chosen.get(flag, ""))]
    return "number" if values and all(number(value) is not None for value in values) else ""


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else f"{words[: most - 1]}…"
