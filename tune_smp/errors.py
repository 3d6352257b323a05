"""The exception tree: what can go wrong, and whose fault it is.

    TuneSmpError                  exit code
    ├── SettingsError             2   a flag, a setting or a search space is wrong
    ├── DataError                 3   images, labels or model files are wrong
    ├── NoTrialSucceededError     4   everything was tried, nothing gave a model
    ├── ResourceError             5   disk, memory, device or cluster
    │   ├── FolderBusyError       5   another program holds this output folder
    │   └── OutOfMemoryError      5   not even a fraction of a batch fits
    └── InterruptedRunError     130   stopped by the user, can be resumed

Every exception carries *all* the problems that one stage found, each as a rule that was broken, where, and the way out.
Exceptions of other libraries are translated once, at the border where they are raised, with ``raise ... from``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in the user's words.

    ``problem`` states the rule and the value received, ``where`` names files or flags, ``fix`` is the way out; the
    last two may be empty.
    """

    problem: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        lines = [f"problem: {self.problem}"]
        if self.where:
            lines.append(f"where:   {self.where}")
        if self.fix:
            lines.append(f"fix:     {self.fix}")
        return "\n".join(lines)


class TuneSmpError(Exception):
    """Base of every error that tune-smp raises on purpose."""

    exit_code = 1

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[TuneSmpError], tuple[tuple[Problem, ...]]]:
        # Exceptions travel between processes: rebuild from the problems, not from the printed text.
        return type(self), (self.problems,)


class SettingsError(TuneSmpError):
    """A flag, a setting or a search space is wrong."""

    exit_code = 2


class DataError(TuneSmpError):
    """Images, labels or model files are wrong."""

    exit_code = 3


class NoTrialSucceededError(TuneSmpError):
    """Everything was tried and nothing gave a model."""

    exit_code = 4


class ResourceError(TuneSmpError):
    """Disk, memory, device or cluster do not suffice."""

    exit_code = 5


class FolderBusyError(ResourceError):
    """Another program holds this output folder."""


class OutOfMemoryError(ResourceError):
    """Memory does not suffice, not even for a fraction of a batch."""


class InterruptedRunError(TuneSmpError):
    """Stopped by the user; the state is saved and can be resumed."""

    exit_code = 130


def file_error(path: Path, problem: str, fix: str) -> DataError:
    """The error about one file or folder."""
    return DataError(Problem(problem, str(path), fix))


def listing(names: Sequence[str], limit: int = 10) -> str:
    """Up to ``limit`` of the names, comma-separated, and how many more there are."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def nearest(name: str, names: Iterable[str]) -> str:
    """``did you mean 'X'? `` for the closest known name, else an empty string."""
    by_folded = {known.casefold(): known for known in names}
    matches = difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.6)
    return f"did you mean {by_folded[matches[0]]!r}? " if matches else ""
