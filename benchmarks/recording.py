"""The command line of benchmarks that record runs, which several processes share, and report what was recorded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Job = TypeVar("Job")


def recording_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser with ``--data``, ``--part`` and ``--report``, described by the first line of a module's docstring."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else "")
    parser.add_argument("--data", type=Path, help="the folder of the collections")
    parser.add_argument("--part", default="0/1", help="this process and how many there are: 0/2")
    parser.add_argument("--report", action="store_true", help="print what was recorded")
    return parser


def own_part(jobs: Sequence[Job], part: str) -> Sequence[Job]:
    """The jobs of this process, of all that share them: every second one for ``0/2``."""
    number, processes = map(int, part.split("/"))
    return jobs[number::processes]
