"""File names under regular expressions: the matches of ``re``, within a time limit."""

from __future__ import annotations

import re
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_smp.data.pairing import name_matching
from tune_smp.data.pairing.name_matching import match_names

ATOMS = (
    "[[:alpha:]]",
    "[:a]",
    r"\[:",
    "[[:x:]]",
    "a",
    "b",
    "1",
    "_",
    r"\.",
    ".",
    "[ab]",
    "[^a]",
    "[a-c1]",
    r"\d",
    r"\w",
    "(a|b)",
    "(?:ab)",
    "(a|ab)",
    "([ab]|1)",
)
VARIABLES = ("(?P<r>[0-9]+)", "(?P<c>[a-zA-Z]+)", "(?P<x>[0-9][0-9])", "(?P<y>.*)")
PIECES = st.sampled_from(VARIABLES) | st.builds(
    "".join, st.tuples(st.sampled_from(ATOMS), st.sampled_from(("", "*", "+", "?", "*?", "+?", "{1,2}")))
)


@given(
    st.lists(PIECES, max_size=6, unique_by=lambda piece: piece if piece in VARIABLES else object()).map("".join),
    st.lists(st.text("ab1_.A:]", max_size=8), min_size=1, max_size=4),
)
def test_the_matches_are_those_of_re(pattern: str, names: list[str]) -> None:
    with warnings.catch_warnings(action="ignore"):  # of Python, on what may mean sets in sets one day
        expression = re.compile(pattern, re.DOTALL)
    expected = [match and match.groupdict("") for match in map(expression.fullmatch, names)]
    assert match_names([pattern], names) == [expected]


def test_what_backtracks_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_matching, "MATCHING_SECONDS", 1.0)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="2 names were not matched within 1 s"):
        match_names(["(a|aa)+$"], ["a" * 60 + ".tif"] * 2)
    assert time.monotonic() - started < 10


def test_a_class_of_posix_is_what_it_is_in_re() -> None:
    assert match_names(["[[:digits:]]+.png"], ["1.png", "d].png"]) == [[None, {}]]
