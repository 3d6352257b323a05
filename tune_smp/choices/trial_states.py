"""How trials end, as words, and which of them can be the best of a search."""

from __future__ import annotations

import math

ENDED_WELL = ("completed", "early_stopped", "pruned")
"""States of trials that ran into no trouble: those whose best epoch counts, and is worth exporting."""

MAY_BE_BEST = frozenset({*ENDED_WELL, "interrupted", "running"})
"""Those, and trials that may still go on."""


def may_be_best(state: str, best_metric: float | None) -> bool:
    """Whether a trial can be the best: it ran into no trouble, and its metric is a finite number."""
    return state in MAY_BE_BEST and best_metric is not None and math.isfinite(best_metric)
