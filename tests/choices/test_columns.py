"""Records in columns, on one line each or folded."""

from __future__ import annotations

from tune_smp.choices.columns import NO_BREAK, as_table

RECORDS = [
    {"name": "short", "not_with": ["PAN", "DeepLabV3"], "takes_all": True, "px": None},
    {"name": f"a ={NO_BREAK}b", "not_with": [], "takes_all": False, "px": 224},
]


def test_one_line_each() -> None:
    assert as_table(RECORDS, width=None).splitlines() == [
        "name   takes_all  px   not_with",
        "short  yes        -    PAN, DeepLabV3",
        "a = b  -          224  -",
    ]


def test_folded_to_the_terminal() -> None:
    assert as_table(RECORDS, width=29).splitlines() == [
        "name   takes_  px   not_with",
        "       all",
        "short  yes     -    PAN,",
        "                    DeepLabV3",
        "a = b  -       224  -",
    ]


def test_a_wide_terminal_changes_nothing() -> None:
    assert as_table(RECORDS, width=200) == as_table(RECORDS, width=None)


def test_words_stay_whole_however_narrow() -> None:
    table = as_table(RECORDS, width=5)
    assert "DeepLabV3" in table
    assert "= b" in table
