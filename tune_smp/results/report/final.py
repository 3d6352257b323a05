"""The final of a search on the page: how the trials did on fresh seeds, how sure the winner is, and the refit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tune_smp.results.leaderboard import number, whole_number
from tune_smp.results.report import numbers
from tune_smp.results.report.facts import Facts, mapping, text
from tune_smp.texts import counted


@dataclass(frozen=True, slots=True)
class FinalRow:
    """One trial of the final: its number with what it is, the mean, and the metric of each round."""

    trial: str
    mean: str
    rounds: str
    is_winner: bool


def final_rows(facts: Facts) -> tuple[FinalRow, ...]:
    """The trials of the final, best first; none where there was no final."""
    rows = [row for row in _standings(facts) if whole_number(row.get("trial")) is not None]
    return tuple(
        FinalRow(
            trial=f"trial {row['trial']}{', the default' if row['trial'] == 0 else ''}",
            mean=numbers.metric(number(row.get("mean"))),
            rounds=", ".join(numbers.metric(number(value)) for value in _list(row.get("metrics"))),
            is_winner=place == 0,
        )
        for place, row in enumerate(rows)
    )


def final_words(facts: Facts) -> str:
    """How sure it is that the winner is better than the default; empty where there was no final."""
    final = mapping(facts.summary.get("final"))
    rows, gain = _standings(facts), mapping(final.get("gain"))
    if not rows:
        return ""
    rounds = counted(whole_number(final.get("rounds")) or 1, "fresh seed")
    said = f"The best trials and the default were trained again on {rounds}, and the best in the mean was exported."
    mean, low, high = (number(gain.get(key)) for key in ("mean", "low", "high"))
    if rows[0].get("trial") == 0:
        return f"{said} None was better than the default."
    if mean is None:
        return said
    compared = f"{said} The winner gained {numbers.gain(mean)} over the default"
    if low is None or high is None:
        return f"{compared}."
    images = counted(whole_number(final.get("images")) or 0, "validation image")
    verdict = "" if low > 0 else ": that may be chance"
    return f"{compared}; 95 % interval over seeds and {images}: {numbers.gain(low)} to {numbers.gain(high)}{verdict}."


def refit_words(facts: Facts) -> str:
    """What the refit is; empty where there is none."""
    refit = mapping(facts.summary.get("refit"))
    if not text(refit.get("model")):
        return ""
    images = counted(whole_number(refit.get("images")) or 0, "labelled image")
    return (
        f"The same settings, trained once more on all {images}, which is what predict takes; no image is left to "
        f"measure it on, and the scores here are those of the model above: {facts.folder.refit / 'model'}"
    )


def _standings(facts: Facts) -> list[Mapping[str, Any]]:
    return [mapping(row) for row in _list(mapping(facts.summary.get("final")).get("standings"))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
