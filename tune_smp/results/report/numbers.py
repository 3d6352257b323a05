"""Numbers, durations and settings as people read them."""

from __future__ import annotations

import json
from typing import Any

from tune_smp.results.leaderboard import number

MISSING = "–"


def metric(value: float | None) -> str:
    """Four decimals: the fifth is noise of any validation set that fits on a disk."""
    return MISSING if value is None else f"{value:.4f}"


def gain(value: float) -> str:
    """A difference of metrics, signed."""
    return f"{value:+.4f}".replace("-", "−")


def percent(share: float) -> str:
    """A share in [0, 1]."""
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else "< 1 %"


def cell(text: str) -> str:
    """A searched value: numbers with three significant digits, everything else as it is."""
    value = number(text)
    if value is None:
        return text or MISSING
    if value.is_integer() and abs(value) < 1e6:
        return f"{value:.0f}"
    if 0.01 <= abs(value) < 1e6:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e+")


def setting(value: Any) -> str:
    """A setting as it would stand on the command line; None is the program's own choice."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
