"""Records as a table for the eye."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

LAST_COLUMNS = ("summary", "description", "weights", "searches", "not_with", "values")
GAP = 2
"""Blanks between two columns of a table."""

NO_BREAK = "\u00a0"
"""A blank at which no line is folded; printed as an ordinary one."""


def as_table(records: Sequence[Mapping[str, Any]], *, width: int | None) -> str:
    """Records of the same keys in columns; the longest texts, summaries and lists, stand last.

    Without a ``width`` every record is one line, as programs that look for lines want it. With one (columns of a
    terminal) cells are folded to fit it, as far as their words let it.
    """
    names = sorted(records[0], key=lambda name: name in LAST_COLUMNS)
    rows = [[_cell(record[name]) for name in names] for record in records]
    columns = list(zip(names, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    if width is not None:
        widths = _narrowed(widths, [_longest_word(column) for column in columns], width - GAP * (len(widths) - 1))
    head = [_folded_name(name, size) for name, size in zip(names, widths, strict=True)]
    body = [[_folded(cell, size) for cell, size in zip(row, widths, strict=True)] for row in rows]
    return "".join(_lines(row, widths) for row in (head, *body))


def _longest_word(column: Sequence[str]) -> int:
    name, *cells = column
    words = [*name.split("_"), *(word for cell in cells for word in cell.split(" "))]
    return max(map(len, words)) + ("_" in name)


def _narrowed(widths: Sequence[int], least: Sequence[int], total: int) -> list[int]:
    """Widths that add up to ``total`` where ``least`` allows it: the widest give way first."""
    narrowed = list(widths)
    while sum(narrowed) > total:
        wide = [column for column, size in enumerate(narrowed) if size > least[column]]
        if not wide:
            break
        narrowed[max(wide, key=narrowed.__getitem__)] -= 1
    return narrowed


def _lines(cells: Sequence[Sequence[str]], widths: Sequence[int]) -> str:
    """One record, its cells already folded."""
    text = ""
    for number in range(max(map(len, cells))):
        parts = [
            (lines[number] if number < len(lines) else "").ljust(size)
            for lines, size in zip(cells, widths, strict=True)
        ]
        text += (" " * GAP).join(parts).rstrip().replace(NO_BREAK, " ") + "\n"
    return text


def _folded(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]


def _folded_name(name: str, width: int) -> list[str]:
    """The head of a column, folded behind underscores where it is wider than what is below it."""
    lines = [""]
    for part in re.findall(r"[^_]*_|[^_]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
