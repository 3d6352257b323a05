"""Lengths of time as people write them: ``90m``, ``4h``, ``1h30m``."""

from __future__ import annotations

import re

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def seconds_of(text: str) -> float | None:
    """``1h30m`` in seconds; a bare number counts seconds; None where the text is no length of time above 0."""
    match = _DURATION.fullmatch(text.strip().lower().replace(" ", ""))
    if match is None:
        return None
    total = sum(float(part) * unit for part, unit in zip(match.groups(), _SECONDS.values(), strict=True) if part)
    return total or None
