"""Overlapping tiles of probabilities, added up with weights and given back row by row, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tune_smp.data.tiles import Window, blend_weights

LARGEST_ON_A_GPU = 2**28
"""Bytes of a band on a GPU; a larger one, of a wide image with many classes, is held by the host."""


@dataclass(frozen=True)
class Rows:
    """Rows ``y`` … ``y + h`` of one plane, finished: probabilities (K, h, W), float32; K = 1 for binary."""

    plane: int
    y: int
    probabilities: NDArray[np.float32]


class RowBlender:
    """The weighted mean of overlapping tiles of one plane, taken on the device that predicts them.

    Tiles come in the order of ``tiles.windows``, row by row: what lies above a tile is finished when the tile comes.
    Only the band of rows that a tile spans is held: (K + 1) · tile · W float32, whatever the height of the image.
    """

    def __init__(
        self, *, plane: int, classes: int, width: int, tile: int, overlap: int, device: torch.device | str = "cpu"
    ) -> None:
        self._plane = plane
        device = device if (classes + 1) * tile * width * 4 <= LARGEST_ON_A_GPU else "cpu"
        self._weights = torch.from_numpy(blend_weights(tile, overlap)).to(device)
        self._sums = torch.zeros((classes, tile, width), device=device)
        self._weight_sums = torch.zeros((tile, width), device=device)
        self._y = 0  # the row of the image that is the band's first

    @property
    def nbytes(self) -> int:
        """Memory of the band, in bytes."""
        return self._sums.nbytes + self._weight_sums.nbytes

    def add(self, window: Window, probabilities: Tensor) -> Rows | None:
        """Add one tile (K, tile, tile), of which the window's part counts; returns the rows that this finishes."""
        finished = self._advance(window.y) if window.y > self._y else None
        rows, columns = slice(0, window.height), slice(window.x, window.x + window.width)
        weights = self._weights[: window.height, : window.width]
        probabilities = probabilities.to(self._sums.device)
        self._sums[:, rows, columns] += probabilities[:, : window.height, : window.width] * weights
        self._weight_sums[rows, columns] += weights
        return finished

    def finish(self, height: int) -> Rows:
        """The rows from the last tiles to the end of the image."""
        return self._advance(height)

    def _advance(self, y: int) -> Rows:
        """Hand out the rows above ``y`` and move the band down to it."""
        count = y - self._y
        rows = Rows(self._plane, self._y, (self._sums[:, :count] / self._weight_sums[:count]).cpu().numpy())
        for band in (self._sums, self._weight_sums):
            band[..., :-count, :] = band[..., count:, :].clone()
            band[..., -count:, :] = 0
        self._y = y
        return rows
