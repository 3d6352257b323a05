"""Ctrl-C and SIGTERM while Ray Tune runs: an orderly end that says so, and a second one that does not wait."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def orderly_stop(on_stop: Callable[[], None]) -> Iterator[None]:
    """End what Ray Tune runs after the epochs under way, at the first SIGINT or SIGTERM, and call ``on_stop``.

    The second one, and one before Tune listens, raises KeyboardInterrupt at once. Tune itself would listen to SIGINT,
    without a word, and stay at it when it is done (cluster.QUIET tells it not to); its other way to be stopped is
    SIGUSR1. To be used in the main thread, around ``Tuner.fit``.
    """
    asked = False

    def stop_before_tune_listens(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked or signal.getsignal(signal.SIGUSR1) is stop_before_tune_listens:
            raise KeyboardInterrupt
        asked = True
        # In a thread of its own: the handler may have come in the middle of another line's printing.
        threading.Thread(target=on_stop, daemon=True).start()
        os.kill(os.getpid(), signal.SIGUSR1)

    handlers = {signal.SIGINT: stop, signal.SIGTERM: stop, signal.SIGUSR1: stop_before_tune_listens}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: it was not Python's
