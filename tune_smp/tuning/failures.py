"""Ray's reports of failed trials, shortened to a line."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tune_smp.errors import OutOfMemoryError, Problem, ResourceError, TuneSmpError

# Ray reports the death of a worker or its node in a paragraph, whose last line is the least of it.
_DEATHS = {
    "its worker process has died": "its worker process has died: killed, or out of the machine's memory",
    "its node has died": "its node has died",
}


def is_full_disk(text: str) -> bool:
    """Whether this is what Ray says when the disk is full."""
    # Ray hands errors on as text; the second is what training.checkpoint says where torch's own writer met the end.
    return any(sign in text for sign in (f"Errno {errno.ENOSPC}", "the checkpoint cannot be written"))


def disk_full(storage: Path) -> ResourceError:
    """The error of ours for that."""
    return ResourceError(Problem("the disk is full", str(storage), "free some space, then: tune-smp resume"))


def failure_reason(text: str) -> str:
    """Say what happened, in a line, from the tracebacks that Ray keeps of a trial that failed for good."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last_try = "\n".join(lines[_last_start(lines) :])
    for phrase, reason in _DEATHS.items():
        if phrase in last_try:
            return reason
    return lines[-1] if lines else "unknown"


def tracebacks(trial: Any) -> str:
    """The tracebacks of all tries: Ray's own ``get_error`` looks into the storage, where the last comes too late."""
    written = Path(trial.error_file or "")
    return written.read_text("utf-8", "replace") if written.is_file() else str(trial.get_error() or "")


def refusal_reason(error: TuneSmpError) -> str:
    """Say why an error of ours ended a trial, in a line."""
    kind = "out_of_memory: " if isinstance(error, OutOfMemoryError) else ""
    return kind + error.problems[0].problem


def _last_start(lines: Sequence[str]) -> int:
    """Find where the last traceback begins: Ray adds them up, each below a line of its own."""
    return max((number for number, line in enumerate(lines) if line.startswith("Failure #")), default=0)
