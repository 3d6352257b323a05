"""summary.json, and what is said of thresholds."""

from __future__ import annotations

import pytest

from tune_smp.results.summary import Summary


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ({}, ""),
        ({"foreground": 0.5}, ""),
        ({"foreground": 0.421875}, "above 0.42; 0.7000 above 0.5"),
        ({"nucleus": 0.5, "boundary": 0.25}, "above 0.50, 0.25; 0.7000 above 0.5"),
    ],
)
def test_thresholds_are_named_where_they_are_not_the_usual_ones(thresholds: dict[str, float], words: str) -> None:
    summary = Summary("train", "completed", "IoU", best_metric=0.8, thresholds=thresholds, metric_at_half=0.7)
    assert summary.threshold_words == words
