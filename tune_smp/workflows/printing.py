"""Printing from the workflows: plain text, to the console of whoever called."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

from rich.console import Console

logger = logging.getLogger(__name__)


class Output:
    """Prints lines to a console: to standard output, where nobody asked for another one."""

    def __init__(self) -> None:
        self.console = Console()

    def print(self, line: str = "") -> None:
        """Print a line as it stands: file names may hold anything, square brackets too."""
        self.console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


output = Output()


@contextlib.contextmanager
def printing_to(console: Console | None) -> Iterator[None]:
    """Print what the block prints to this console, or nowhere for None."""
    before, output.console = output.console, console or Console(quiet=True)
    try:
        yield
    finally:
        output.console = before


def note(notes: Iterable[str]) -> None:
    """Print what the user should know, and log it."""
    for note in notes:
        output.print(f"note: {note}")
        logger.info("note: %s", note)


def say_stopping() -> None:
    """Report that Ctrl-C or SIGTERM was heard, and that the end takes as long as an epoch."""
    output.print("stopping after the epochs under way, then saving the best so far; once more: stop at once")
