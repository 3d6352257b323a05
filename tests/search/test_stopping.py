"""The first Ctrl-C asks Ray Tune for an orderly end, the second one does not wait for it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tune_smp.search.stopping import orderly_stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_is_handed_to_tune_and_the_second_ends_at_once(first: signal.Signals, second: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)]
    told, asked = threading.Event(), []
    with pytest.raises(KeyboardInterrupt), orderly_stop(told.set):
        signal.signal(signal.SIGUSR1, lambda number, _: asked.append(number))  # as Tune does
        os.kill(os.getpid(), first)
        assert told.wait(timeout=10)
        assert asked == [signal.SIGUSR1]
        os.kill(os.getpid(), second)
    assert [signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_before_tune_listens_the_first_ends_at_once(number: signal.Signals) -> None:
    told = threading.Event()
    with pytest.raises(KeyboardInterrupt), orderly_stop(told.set):
        os.kill(os.getpid(), number)
    assert not told.wait(timeout=0.2), "there is no epoch under way that would end first"


def test_nothing_is_told_where_nothing_is_asked() -> None:
    told = threading.Event()
    with orderly_stop(told.set):
        pass
    assert not told.is_set()
