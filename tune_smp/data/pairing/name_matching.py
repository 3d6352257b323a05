"""Regular expressions over file names, with a time limit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

MATCHING_SECONDS = 30.0  # 10,000 names take 0.1 s; only a pattern like (a+)+$ takes longer

# Reads [[expression, ...], [name, ...]], writes per expression a list of groups or null per name.
_MATCHER = """
import json, re, sys
expressions, names = json.load(sys.stdin)
compiled = [re.compile(expression, re.DOTALL) for expression in expressions]
matches = [[expression.fullmatch(name) for name in names] for expression in compiled]
json.dump([[match and match.groupdict("") for match in row] for row in matches], sys.stdout)
"""


def match_names(expressions: Sequence[str], names: Sequence[str]) -> list[list[dict[str, str] | None]]:
    """The named groups of every name (None: no match) under every expression.

    Runs in a child process, because nothing else stops a regular expression that backtracks for ever; costs 20 ms.

    Raises:
        TimeoutError: not done within ``MATCHING_SECONDS``.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _MATCHER],
            input=json.dumps([expressions, names]),
            capture_output=True,
            text=True,
            timeout=MATCHING_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{len(names)} names were not matched within {MATCHING_SECONDS:.0f} s") from error
    matched: list[list[dict[str, str] | None]] = json.loads(child.stdout)
    return matched


def number_or_text(text: str) -> int | float | str:
    """Numbers become numbers, as filepattern has it: ``007`` and ``7`` are the same value."""
    if re.fullmatch(r"-?[0-9]+", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?[0-9]+\.[0-9]+", text) else text
