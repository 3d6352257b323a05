"""The file that a study is kept in: Optuna's journal, which other tools can open."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock


class JournalFile(JournalFileBackend):
    """Optuna's journal file, of which some writes need not wait for the disk.

    Optuna waits for the disk with every value of every trial: a dozen times before a trial begins, milliseconds each.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = JournalFileSymlinkLock(str(path))
        self._open_file: BinaryIO | None = None
        super().__init__(str(path), lock_obj=self._mutex)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Leave what is written in this block to be on the disk once the next write outside of it is.

        Until then a power cut can take it away, the death of this program cannot. The journal is locked meanwhile: to
        lock it for every line anew costs half a millisecond each. Not to be nested.
        """
        self._mutex.acquire()
        try:
            with self._path.open("ab") as self._open_file:
                yield
        finally:
            self._open_file = None
            self._mutex.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Called by Optuna: one line per change."""
        if self._open_file is None:
            super().append_logs(logs)
            return
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._open_file.write(lines.encode("utf-8"))
        self._open_file.flush()


def mend(journal: Path) -> None:
    """Take away what a killed program may have left: its lock, and a last line that was cut short.

    To be called by the one program that holds the journal's folder.
    """
    for lock in journal.parent.glob(f"{journal.name}.lock*"):
        lock.unlink(missing_ok=True)
    if not journal.exists():
        return
    with journal.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
