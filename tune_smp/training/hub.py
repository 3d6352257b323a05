"""Files of the Hugging Face hub, through its own client: what is in the cache, and what is fetched, or a quick no."""

from __future__ import annotations

import contextlib
import logging
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import huggingface_hub
from huggingface_hub import HfFileMetadata, constants
from huggingface_hub.errors import EntryNotFoundError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]  # not listed

ANSWER_SECONDS = 5.0
"""How long the hub may take to say what it knows about a file: the client alone would try for 25 to 49 s."""
PAUSE_SECONDS = 1.0
"""Before it is asked once more, where it was only busy."""

TellSize = Callable[[int | None], object]


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Files of one repository, at one revision (None: the newest).

    Of the names in a group the first that exists is meant; every group is needed.
    """

    repository: str
    revision: str | None
    groups: tuple[tuple[str, ...], ...]

    def are_cached(self) -> bool:
        """Whether the client would find all of them without a network."""
        return all(any(self._is_cached(name) for name in group) for group in self.groups)

    def _is_cached(self, name: str) -> bool:
        found = huggingface_hub.try_to_load_from_cache(self.repository, name, revision=self.revision)
        return isinstance(found, str)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The reason why files could not be had.

    ``for_all``: whatever else were asked for now would be refused as well. ``of_the_cache``: not the hub refused, its
    folder did.
    """

    reason: str
    for_all: bool = False
    of_the_cache: bool = False


def fetch(files: HubFiles, on_size: TellSize) -> Refusal | None:
    """Put the files into the cache; why that was not possible, or None.

    ``on_size`` is called with the bytes of the first file (None: unknown) before it is fetched. A hub that is silent,
    busy or broken is given up within seconds; a download that stalls on its way, within the client's own limits.
    Processes that want the same file at once wait for the one that fetches it: the client holds a lock per file.
    """
    if constants.HF_HUB_OFFLINE:
        return Refusal("HF_HUB_OFFLINE is set", for_all=True)
    try:
        with _client_is_quiet():
            for group in files.groups:
                _fetch_first(files, group, on_size)
                on_size = _say_nothing
    except Exception as error:  # noqa: BLE001 - the client, and whichever network library it is built on
        return _refusal(error)
    return None


def endpoint() -> str:
    """The hub's address, without what it may hold of a password."""
    return without_secrets(constants.ENDPOINT)


def without_secrets(text: str) -> str:
    """The text without the user's token, passwords in addresses, and signatures of addresses."""
    token = huggingface_hub.get_token()
    if token:
        text = text.replace(token, "…")
    text = re.sub(r"//[^/\s@]+@", "//", text)
    return re.sub(r"\?[^\s'\"]+", "", text)


@contextlib.contextmanager
def cache_only() -> Iterator[None]:
    """Inside the block, nothing asks the hub: smp and timm take what is cached."""
    # The environment variable HF_HUB_OFFLINE is read once, at import; the client asks this constant at every call.
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _fetch_first(files: HubFiles, group: tuple[str, ...], on_size: TellSize) -> None:
    *others, last = group
    for name in others:
        try:
            return _fetch_one(files, name, on_size)
        except EntryNotFoundError:
            continue
    return _fetch_one(files, last, on_size)


def _fetch_one(files: HubFiles, name: str, on_size: TellSize) -> None:
    metadata = _ask_twice(huggingface_hub.hf_hub_url(files.repository, name, revision=files.revision))
    on_size(metadata.size)
    huggingface_hub.hf_hub_download(files.repository, name, revision=files.revision)


def _ask_twice(url: str) -> HfFileMetadata:
    """Ask what the hub knows about a file. Raises what the client raises, and TimeoutError."""
    try:
        return _ask(url)
    except Exception as error:
        if (_status(error) or 0) < 500:
            raise
    time.sleep(PAUSE_SECONDS)
    return _ask(url)


def _ask(url: str) -> HfFileMetadata:
    # In a thread of its own: no limit of the client's holds while a name server is silent.
    answers: queue.SimpleQueue[HfFileMetadata | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            metadata = huggingface_hub.get_hf_file_metadata(url, timeout=ANSWER_SECONDS)
            _read_first_byte(url)
            answers.put(metadata)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that waits
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=2 * ANSWER_SECONDS)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(answer, Exception):
        raise answer
    if answer.commit_hash is None or answer.etag is None:
        raise ConnectionError("what answers there is no hub: a login page of the network, or a wrong HF_ENDPOINT")
    return answer


def _read_first_byte(url: str) -> None:
    """Large files lie on another host than what is known of them; there, the client alone would try for minutes."""
    headers, client = {**build_hf_headers(), "Range": "bytes=0-0"}, huggingface_hub.get_session()
    with client.stream("GET", url, headers=headers, timeout=ANSWER_SECONDS, follow_redirects=True) as response:
        hf_raise_for_status(response)


def _refusal(error: Exception) -> Refusal:
    status = _status(error)
    if status is not None:
        return _refused_with(status, error)
    if "Timeout" in type(error).__name__:
        return Refusal(f"no answer within {ANSWER_SECONDS:g} seconds", for_all=True)
    first_line = without_secrets(str(error).strip().partition("\n")[0]) or type(error).__name__
    # Errors of the system have a number; those of the network have kinds of their own.
    of_the_cache = isinstance(error, OSError) and bool(error.errno) and not isinstance(error, ConnectionError)
    # A download that was cut off says nothing of the others.
    unreachable = isinstance(error, ConnectionError) or "Connect" in type(error).__name__
    return Refusal(first_line, for_all=unreachable or of_the_cache, of_the_cache=of_the_cache)


def _refused_with(status: int, error: Exception) -> Refusal:
    if status == 429:
        seconds = _headers(error).get("retry-after", "")
        again = f", asks to be left alone for {seconds} seconds" if seconds.isdigit() else ""
        return Refusal(f"too many requests (it answers 429{again})", for_all=True)
    if status >= 500:
        return Refusal(f"it answers {status}", for_all=True)
    if status in (401, 403):
        return Refusal(f"it answers {status}: there is no such repository, or HF_TOKEN does not open it")
    return Refusal(f"it answers {status}: they are not there")


def _status(error: Exception) -> int | None:
    """The answer's HTTP status, where there was an answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _headers(error: Exception) -> Any:
    return getattr(getattr(error, "response", None), "headers", {})


@contextlib.contextmanager
def _client_is_quiet() -> Iterator[None]:
    # It warns of every attempt with the whole address, signatures and passwords included.
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _say_nothing(_: int | None) -> None:
    """The size of a set of weights is that of its first file; the others are small."""
