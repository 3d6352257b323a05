"""logs/: what ran, in words, with the tracebacks that the screen does not show."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from tune_smp.errors import TuneSmpError

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _LogFile(logging.FileHandler):
    """A log that cannot be written, on a full disk say, never stands in the way of what is logged."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        """Python prints a traceback here, to the user."""

    def close(self) -> None:
        """Give up what could not be written."""
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def logged(folder: Path, command: str) -> Iterator[logging.Logger]:
    """Write what tune-smp logs inside the block, and the traceback of what ends it, to ``folder/<command>.log``.

    So are the warnings of other packages, which the screen does not show.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root, logger = logging.getLogger(), logging.getLogger("tune_smp")
    handler = _LogFile(folder / f"{command}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter(FORMAT))
    root.addHandler(handler)
    previous = logger.level
    logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
    try:
        yield logger
    except TuneSmpError:
        logger.exception("%s ended with an error", command)
        raise
    except Exception:
        logger.exception("%s ended with an unexpected error", command)
        raise
    finally:
        logger.setLevel(previous)
        root.removeHandler(handler)
        handler.close()
