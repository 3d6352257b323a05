"""Where the workflows print, and how: plain text, to the console of whoever called."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator

from rich.console import Console

logger = logging.getLogger(__name__)
# Plain text: file names may hold anything, square brackets too.
console = Console(highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def printing_to(target: Console | None) -> Iterator[None]:
    """Print what the block prints to the file of another console, or not at all for None."""
    before, quiet = console.file, console.quiet
    console.quiet = target is None
    if target is not None:
        console.file = target.file
    try:
        yield
    finally:
        console.file, console.quiet = before, quiet


def tell(notes: Iterable[str]) -> None:
    """Print what the user should know, and log it."""
    for note in notes:
        console.print(f"note: {note}")
        logger.info("note: %s", note)


def say_stopping() -> None:
    """Report that Ctrl-C or SIGTERM was heard, and that the end takes as long as an epoch."""
    console.print("stopping after the epochs under way, then saving the best so far; once more: stop at once")
