"""How values stand in a line of text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_smp.texts import counted, duration, shown


@pytest.mark.parametrize(
    ("seconds", "rough", "exact"),
    [
        (0, "0 s", "0.0 s"),
        (9.94, "10 s", "9.9 s"),
        (9.96, "10 s", "10 s"),
        (59.4, "59 s", "59 s"),
        (59.6, "1 min", "1 min 00 s"),
        (185, "3 min", "3 min 05 s"),
        (3569, "59 min", "59 min 29 s"),
        (3570, "1 h 00 min", "59 min 30 s"),
        (3599.6, "1 h 00 min", "1 h 00 min"),
        (90000, "25 h 00 min", "25 h 00 min"),
    ],
)
def test_durations(seconds: float, rough: str, exact: str) -> None:
    assert (duration(seconds, rough=True), duration(seconds)) == (rough, exact)


def test_counts() -> None:
    assert [counted(count, "epoch") for count in (0, 1, 2, 1000)] == ["0 epochs", "1 epoch", "2 epochs", "1,000 epochs"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("größer", "größer"),
        (Path("/a b/c"), "/a b/c"),
        (True, "true"),
        (0.5, "0.5"),
        ("", "''"),
        (" blank ", "' blank '"),
        ("two\nlines", "'two\\nlines'"),
        ("\x1b[31m", "'\\x1b[31m'"),
        ("\udcff", "'\\udcff'"),
    ],
)
def test_what_could_spoil_a_line_is_quoted(value: object, text: str) -> None:
    assert shown(value) == text
