"""Items made ahead in a background thread while earlier ones are processed."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Generator, Iterable
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

ITEMS_AHEAD = 3  # each costs its own memory
SLOWEST_ITEM_S = 300.0  # most take milliseconds, from a cold network folder seconds
LONGEST_END_S = 5.0

Item = TypeVar("Item")


def ahead(items: Iterable[Item], *, count: int = ITEMS_AHEAD, from_storage: str = "") -> Generator[Item, None, None]:
    """The same items, up to ``count`` of them made ahead in one background thread, which ends with this generator.

    No item may be None. Raises what making them raises. ``from_storage`` names what is read from there:
    TimeoutError where one does not come, since a file system that hangs raises nothing.
    """
    maker = _Maker(items, count)
    maker.start()
    try:
        while (item := maker.take(from_storage)) is not None:
            yield item
    finally:
        maker.end()


class _Maker(threading.Thread, Generic[Item]):
    """Makes items ahead. Python does not wait for it at its exit: it may hang for ever."""

    def __init__(self, items: Iterable[Item], count: int) -> None:
        super().__init__(name="ahead", daemon=True)
        self._items = iter(items)
        self._made: queue.SimpleQueue[Item | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(count)
        self._has_ended = False

    def run(self) -> None:
        try:
            while self._has_room():
                item = next(self._items, None)
                self._made.put(item)
                if item is None:
                    return
        except BaseException as error:  # noqa: BLE001 - raised again by whoever takes it
            self._made.put(error)
        finally:
            self._close_items()

    def _close_items(self) -> None:
        """Let a generator give back what it holds, a thread or files."""
        if isinstance(self._items, Generator):
            try:
                self._items.close()
            except Exception:
                logger.exception("what was made ahead could not be closed")

    def take(self, from_storage: str) -> Item | None:
        """The next item, None after the last."""
        try:
            made = self._made.get(timeout=SLOWEST_ITEM_S if from_storage else None)
        except queue.Empty:
            raise TimeoutError(f"no {from_storage} came within {SLOWEST_ITEM_S:g} s: the storage hangs") from None
        if isinstance(made, BaseException):
            raise made
        self._room.release()
        return made

    def end(self) -> None:
        """Stop as soon as the item under way is made, and wait for that, but not for ever."""
        self._has_ended = True
        self._room.release()
        self.join(LONGEST_END_S)

    def _has_room(self) -> bool:
        self._room.acquire()
        return not self._has_ended
