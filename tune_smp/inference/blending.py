"""Overlapping tiles of probabilities, added up with weights and given back row by row, in bounded memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tune_smp.data.temporary import temporary_folder
from tune_smp.data.tiles import Window, blend_weights
from tune_smp.errors import Problem, ResourceError
from tune_smp.training.memory import available_memory

LARGEST_ON_A_GPU = 2**28
"""Bytes of a band on a GPU; a larger one, of a wide image with many classes, is held by the host."""
LARGEST_IN_MEMORY = 2**30
"""Bytes of a band in the host's memory; a larger one lies in a temporary file, which the system writes and reads."""
LARGEST_STRIP = 2**25
"""Bytes of the probabilities that are handed out at once."""


@dataclass(frozen=True)
class Rows:
    """Rows ``y`` … ``y + h`` of one plane, finished: probabilities (K, h, W), float32; K = 1 for binary."""

    plane: int
    y: int
    probabilities: NDArray[np.float32]


class RowBlender:
    """The weighted mean of overlapping tiles of one plane, taken on the device that predicts them.

    Tiles come in the order of ``tiles.windows``, row by row: what lies above a tile is finished when the tile comes.
    Only the band of rows that a tile spans is held: (K + 1) · tile · W float32, whatever the height of the image; of a
    wide image with many classes it is a temporary file.
    """

    def __init__(
        self, *, plane: int, classes: int, width: int, tile: int, overlap: int, device: torch.device | str = "cpu"
    ) -> None:
        """Raises ResourceError where the band fits neither on the disk nor into memory."""
        self._plane = plane
        device = device if (classes + 1) * tile * width * 4 <= LARGEST_ON_A_GPU else "cpu"
        self._weights = torch.from_numpy(blend_weights(tile, overlap)).to(device)
        self._sums = _zeros((classes, tile, width), torch.device(device))
        self._weight_sums = torch.zeros((tile, width), device=device)
        self._y = 0  # the row of the image that is the band's first

    @property
    def nbytes(self) -> int:
        """Memory of the band, in bytes."""
        return self._sums.nbytes + self._weight_sums.nbytes

    def add(self, window: Window, probabilities: Tensor) -> Iterator[Rows]:
        """Add one tile (K, tile, tile), of which the window's part counts; gives the rows that this finishes."""
        if window.y > self._y:
            yield from self._advance(window.y)
        rows, columns = slice(0, window.height), slice(window.x, window.x + window.width)
        weights = self._weights[: window.height, : window.width]
        probabilities = probabilities.to(self._sums.device)
        self._sums[:, rows, columns] += probabilities[:, : window.height, : window.width] * weights
        self._weight_sums[rows, columns] += weights

    def finish(self, height: int) -> Iterator[Rows]:
        """The rows from the last tiles to the end of the image."""
        return self._advance(height)

    def _advance(self, y: int) -> Iterator[Rows]:
        """Hand out the rows above ``y`` and move the band down to it."""
        count = y - self._y
        at_once = max(1, LARGEST_STRIP // (self._sums[:, 0].numel() * 4))
        for first in range(0, count, at_once):
            rows = slice(first, min(first + at_once, count))
            probabilities = self._sums[:, rows] / self._weight_sums[rows]
            yield Rows(self._plane, self._y + first, probabilities.cpu().numpy())
        for band in (*self._sums, self._weight_sums):  # one by one: the copy is that of one class
            band[:-count] = band[count:].clone()
            band[-count:] = 0
        self._y = y


def _zeros(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Float32 zeros, in a temporary file where they are many."""
    nbytes = 4 * int(np.prod(shape))
    if device.type != "cpu" or nbytes <= LARGEST_IN_MEMORY:
        return torch.zeros(shape, device=device)
    folder = temporary_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, nbytes)  # a full disk would end the process later, without a word
            return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=shape))
    except OSError as error:
        if nbytes < available_memory() / 2:
            return torch.zeros(shape)
        said = f"blending needs {nbytes / 1e9:.1f} GB of temporary disk space ({error.strerror})"
        fix = "free some space, or name another folder by TMPDIR"
        raise ResourceError(Problem(said, str(folder), fix)) from error
