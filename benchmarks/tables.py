"""Tables of recorded runs: CSV files that several processes append to, a row at a time."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def rows_of(table: Path) -> list[dict[str, str]]:
    """The rows; none where there is no table yet."""
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_row(table: Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    """Append a row in one write, after the header where the table is new; other keys of the row are left out."""
    is_new = not table.exists()
    with table.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
