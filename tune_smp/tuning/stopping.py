"""Ctrl-C and SIGTERM while Ray Tune runs: an orderly end that says so, and a second one that does not wait.

Tune has an orderly end of its own, which throws the epochs under way away when they are done. Here each trial is
stopped with the result of its epoch, which is then stored and shown like any other.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from ray.tune.stopper import Stopper


class LastEpochs(Stopper):
    """Once it is asked to, ends every trial with the epoch under way, and all when none is left."""

    def __init__(self) -> None:
        self.asked = False
        self._under_way: set[str] = set()
        self._ended: set[str] = set()

    def began(self, trial_id: str) -> None:
        """A trial has a worker."""
        self._under_way.add(trial_id)

    def ended(self, trial_id: str) -> None:
        """A trial gave its worker back."""
        self._under_way.discard(trial_id)

    def has_ended(self, trial_id: str) -> bool:
        """Whether this trial was ended here, to be resumed in a later session."""
        return trial_id in self._ended

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Called by Ray with every result."""
        if self.asked and not result.get("done"):
            self._ended.add(trial_id)
        return self.asked

    def stop_all(self) -> bool:
        """Called by Ray all the time."""
        return self.asked and not self._under_way


@contextlib.contextmanager
def orderly_stop(last: LastEpochs, on_stop: Callable[[], None]) -> Iterator[None]:
    """End what Ray Tune runs after the epochs under way, at the first SIGINT or SIGTERM, and call ``on_stop``.

    The second one, and one before Tune listens, raises KeyboardInterrupt at once. Tune itself would listen to SIGINT,
    without a word, and stay at it when it is done (cluster.QUIET forbids it); that it has begun is seen by its
    handler of SIGUSR1. To be used in the main thread, around ``Tuner.fit``.
    """

    def stop_before_tune_listens(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if last.asked or signal.getsignal(signal.SIGUSR1) is stop_before_tune_listens:
            raise KeyboardInterrupt
        last.asked = True
        # In a thread of its own: the handler may have come in the middle of another line's printing.
        threading.Thread(target=on_stop, daemon=True).start()

    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread alone
        return
    handlers = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGUSR1: stop_before_tune_listens}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: it was not Python's
