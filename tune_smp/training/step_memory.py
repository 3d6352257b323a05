"""What training steps were measured to need, kept in the cache folder: the next run of such a network measures nothing.

A run that leaves its batch size open would else try one size after the other, each time that it starts: seconds on a
GPU, a forward pass on a CPU, for every trial of a search.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tune_smp.writing import whole_file

FOLDER = "step-memory"


class StepMemory:
    """Bytes of memory that a step of one network takes, by the tiles of its batch.

    One small file for each network; a file that is missing, damaged or cannot be written counts as empty. What counts
    as taken depends on the device: on a GPU all that the process has there, on a CPU the activations of so many tiles,
    and for 0 tiles the gradients and the optimizer's state.
    """

    def __init__(self, cache: Path, network: Mapping[str, object]) -> None:
        """``network``: all that the memory depends on but the number of tiles, as JSON values."""
        described = json.dumps(network, sort_keys=True)
        self._path = cache / FOLDER / f"{hashlib.blake2b(described.encode(), digest_size=16).hexdigest()}.json"
        self._taken = _read(self._path)

    def taken(self, tiles: int) -> int | None:
        """Bytes that a step with so many tiles took; None where it was not measured."""
        return self._taken.get(str(tiles))

    def note_taken(self, tiles: int, nbytes: int) -> None:
        """Note what a step took."""
        self._taken[str(tiles)] = nbytes
        self._write()

    def _write(self) -> None:
        with suppress(OSError):
            self._path.parent.mkdir(exist_ok=True)
            with whole_file(self._path) as temporary:
                temporary.write_text(json.dumps(self._taken), "utf-8")


def _read(path: Path) -> dict[str, int]:
    try:
        return {str(tiles): int(nbytes) for tiles, nbytes in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
