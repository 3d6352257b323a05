"""The first Ctrl-C asks Ray Tune for an orderly end, the second one does not wait for it."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tune_smp.tuning.stopping import LastEpochs, orderly_stop

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_first_ends_after_the_epochs_and_the_second_at_once(first: signal.Signals, second: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)]
    told, last = threading.Event(), LastEpochs()
    with pytest.raises(KeyboardInterrupt), orderly_stop(last, told.set):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # as Tune sets one of its own
        os.kill(os.getpid(), first)
        assert told.wait(timeout=10)
        assert last.asked
        os.kill(os.getpid(), second)
    assert [signal.getsignal(number) for number in (*SIGNALS, signal.SIGUSR1)] == before


def test_trials_end_with_their_epoch_and_all_when_none_is_left() -> None:
    last = LastEpochs()
    last.began("a")
    last.began("b")
    assert not last("a", {})
    assert not last.stop_all()
    last.asked = True
    assert last("a", {})
    assert not last.stop_all(), "b is in an epoch"
    last.ended("a")
    assert last("b", {"done": True})
    last.ended("b")
    assert last.stop_all()
    assert (last.has_ended("a"), last.has_ended("b")) == (True, False), "b came to its own end"


@pytest.mark.parametrize("number", SIGNALS)
def test_before_tune_listens_the_first_ends_at_once(number: signal.Signals) -> None:
    told = threading.Event()
    with pytest.raises(KeyboardInterrupt), orderly_stop(LastEpochs(), told.set):
        os.kill(os.getpid(), number)
    assert not told.wait(timeout=0.2), "there is no epoch under way that would end first"


def test_nothing_is_told_where_nothing_is_asked() -> None:
    told = threading.Event()
    with orderly_stop(LastEpochs(), told.set):
        pass
    assert not told.is_set()
