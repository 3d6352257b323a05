"""Map a function over items in Python processes of their own.

Why not multiprocessing: its fresh workers import the caller's main module again, which runs a user's script without a
main guard a second time, and a forked copy of a process with threads (Ray's, torch's) may hang. Threads gain nothing:
decoding a small image is mostly Python. A worker here imports what is installed and this very package, knows nothing
else of its parent, and ends with it.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, Self, TypeVar, cast

from tune_smp.errors import Problem, ResourceError
from tune_smp.importing import python_command, python_environment

Item = TypeVar("Item")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)

_MOST_LINES = 100  # that a worker keeps per message
_MOST_ITEMS = 16  # that travel together: keeps the cost of a message below 0.1 ms per item
_START = "from tune_smp.data.processes import serve; serve()"


class Workers:
    """``count`` processes for the duration of a with-block; with one, the work is done right here."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        if self._count > 1:
            command, environment = python_command(_START), {**os.environ, **python_environment()}
            pipe = subprocess.PIPE
            self._processes = [
                subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) for _ in range(self._count)
            ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            if kind is not None:
                process.kill()
            for stream in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):  # of a request that a dead worker never read
                    cast(IO[bytes], stream).close()  # without a next item, a worker ends
        for process in self._processes:
            process.wait()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """``[function(item) for item in items]``; ``function`` is one of a module of this package.

        Raises:
            ResourceError: a worker died, killed from outside as a rule.
            Exception: whatever ``function`` raised first; the other workers are stopped.
        """
        if not self._processes:
            return [function(item) for item in items]
        size = max(1, min(_MOST_ITEMS, len(items) // (4 * self._count)))
        waiting = deque(range(0, len(items), size))
        results: dict[int, list[Result]] = {}

        def feed(process: subprocess.Popen[bytes]) -> None:
            while waiting:
                try:
                    start = waiting.popleft()
                except IndexError:  # another thread was faster
                    return
                results[start] = _ask(process, function, items[start : start + size])

        with ThreadPoolExecutor(self._count) as threads:
            answers = [threads.submit(feed, process) for process in self._processes]
            try:
                for answer in answers:
                    answer.result()
            except BaseException:
                waiting.clear()
                for process in self._processes:
                    process.kill()
                raise
        return [result for start in sorted(results) for result in results[start]]


def serve() -> None:
    """Answer requests from standard input until it ends: the whole of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of the terminal; the parent decides
    logging.captureWarnings(True)
    logging.getLogger().addHandler(_LOGGED)  # what goes wrong comes back as an exception
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not get among the replies
    requests = sys.stdin.buffer
    while True:
        try:
            function, items = pickle.load(requests)  # noqa: S301  the parent wrote it
        except EOFError:
            return
        try:
            replies.write(_answer(function, items))
            replies.flush()
        except BrokenPipeError:  # the parent is gone
            return


def _answer(function: Callable[[Any], Any], items: Sequence[Any]) -> bytes:
    try:
        return pickle.dumps((True, [function(item) for item in items], _LOGGED.taken()))
    except Exception as error:  # noqa: BLE001  raised again in the parent
        error.add_note(traceback.format_exc())
        return pickle.dumps((False, error, _LOGGED.taken()))


class _Logged(logging.Handler):
    """Keeps what libraries warn of in a worker, for the parent's log; never for the terminal."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._lines) < _MOST_LINES:
            self._lines.append(f"{record.name}: {record.getMessage()}")

    def taken(self) -> list[str]:
        """The lines since the last call."""
        lines, self._lines = self._lines, []
        return lines


_LOGGED = _Logged()


def _ask(process: subprocess.Popen[bytes], function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    requests, replies = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
    try:
        pickle.dump((function, items), requests)
        requests.flush()
        is_done, answer, logged = pickle.load(replies)  # noqa: S301  our own worker wrote it
    except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
        process.kill()  # changes nothing for one that is dead, as all but a garbled one are
        raise ResourceError(
            Problem(
                f"a process that decodes images ended unexpectedly (exit code {process.wait()})",
                fix="a negative code is a signal, -9 most often lack of memory: close other programs and run again",
            )
        ) from error
    for line in logged:
        logger.info("a worker: %s", line)
    if not is_done:
        raise cast(Exception, answer)
    return cast(list[Result], answer)
