"""Regular expressions over file names, with a time limit."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import regex

MATCHING_SECONDS = 30.0  # 10,000 names take 0.2 s; only a pattern like (a|aa)+$ takes longer


def match_names(expressions: Sequence[str], names: Sequence[str]) -> list[list[dict[str, str] | None]]:
    """The named groups of every name (None: no match) under every expression, each legal for ``re``.

    ``regex`` and not ``re``, which nothing stops while it backtracks for ever.

    Raises:
        TimeoutError: not done within ``MATCHING_SECONDS``.
    """
    deadline = time.monotonic() + MATCHING_SECONDS
    # "[:" opens a POSIX class in regex, as in [[:digit:]], and means two characters in re.
    literal = [expression.replace("[:", r"[\:") for expression in expressions]
    compiled = [regex.compile(expression, regex.DOTALL | regex.VERSION0) for expression in literal]
    try:
        return [[_groups(expression, name, deadline) for name in names] for expression in compiled]
    except TimeoutError as error:
        raise TimeoutError(f"{len(names)} names were not matched within {MATCHING_SECONDS:.0f} s") from error


def number_or_text(text: str) -> int | float | str:
    """Numbers become numbers, as filepattern has it: ``007`` and ``7`` are the same value."""
    if re.fullmatch(r"-?[0-9]+", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?[0-9]+\.[0-9]+", text) else text


def _groups(expression: regex.Pattern[str], name: str, deadline: float) -> dict[str, str] | None:
    match = expression.fullmatch(name, timeout=max(0.001, deadline - time.monotonic()))
    return match and match.groupdict("")
