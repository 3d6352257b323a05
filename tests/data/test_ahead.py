"""Items made ahead in a background thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tune_smp.data.ahead import ahead


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_the_items_come_in_their_order_and_the_thread_ends() -> None:
    assert list(ahead(range(100))) == list(range(100))
    assert threads() == []


def test_so_many_are_made_ahead_and_no_more() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    taken = ahead(items(), count=2)
    next(taken)
    until = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)  # time enough to make one too many

    assert made == [0, 1, 2]
    taken.close()


def test_what_making_raises_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("the second")

    taken = ahead(items())

    assert next(taken) == 1
    with pytest.raises(KeyError, match="the second"):
        next(taken)
    assert threads() == []


def test_leaving_early_closes_what_makes_the_items_and_what_that_has_ahead() -> None:
    closed = threading.Event()

    def inner() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    def outer() -> Iterator[int]:
        yield from ahead(inner())

    taken = ahead(outer())
    next(taken)
    assert len(threads()) == 2
    taken.close()

    assert closed.is_set()
    assert threads() == []


def test_only_a_storage_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tune_smp.data.ahead.SLOWEST_ITEM_S", 0.05)

    def slow() -> Iterator[int]:
        time.sleep(0.3)
        yield 1

    assert list(ahead(slow())) == [1]
    with pytest.raises(TimeoutError, match=r"no plane came within 0\.05 s"):
        next(ahead(slow(), from_storage="plane"))
