"""Parts of the validation images as prediction reads them, with their masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from tune_smp.data.channel_statistics import ChannelStatistics
from tune_smp.data.reading.image_reader import ImageInfo
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.data.tiles import Window, windows
from tune_smp.inference.blending import Rows
from tune_smp.inference.sources import PixelSource
from tune_smp.training.metrics import PixelCounts

FEWEST = 3


@dataclass(frozen=True)
class Part:
    """An image of the store by the part of it that counts; what prediction reads pixels from."""

    store: ImageStore
    region: Region

    @property
    def info(self) -> ImageInfo:
        """Size, channels and type of the part."""
        image, region = self.store.image(self.region.pair), self.region
        return ImageInfo(self.store.channels, region.y1 - region.y0, region.x1 - region.x0, 1, image.dtype)

    @property
    def pixels(self) -> int:
        """Its size, in px."""
        return self.info.height * self.info.width

    def read(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any]:  # noqa: ARG002
        """Pixels (C, h, w); the store has a pair of its own for each plane."""
        return self._cut(self.store.image(self.region.pair))[:, y, x]

    @property
    def mask(self) -> NDArray[np.uint8]:
        """(K or 1, h, w) of the part, 255 = ignored."""
        return self._cut(self.store.mask(self.region.pair))

    @property
    def statistics(self) -> ChannelStatistics:
        """Of the whole image: a part is normalised as in training."""
        return self.store.statistics(self.region.pair)

    def _cut(self, pixels: NDArray[Any]) -> NDArray[Any]:
        region = self.region
        return pixels[:, region.y0 : region.y1, region.x0 : region.x1]


class PartPredictor(Protocol):
    """A model that predicts images: a Predictor is one."""

    def predict(self, reader: PixelSource, *, statistics: ChannelStatistics | None = None) -> Iterator[Rows]:
        """Probabilities of every plane from top to bottom."""


def probabilities(predictor: PartPredictor, part: Part) -> NDArray[np.float32]:
    """(K, h, w) of a part, normalised by the constants of its whole image."""
    rows = predictor.predict(part, statistics=part.statistics)
    return np.concatenate([strip.probabilities for strip in rows], axis=1)


def count(counts: PixelCounts, predicted: NDArray[np.float32], part: Part) -> None:
    """Add the pixels of a part by its mask and its probabilities (K, h, w)."""
    counts.add_probabilities(torch.from_numpy(predicted)[None], torch.from_numpy(part.mask.copy())[None])


def part_of(store: ImageStore, region: Region, *, largest: int) -> Part:
    """The region, or of one with sides above ``largest`` px the window with the most sampled foreground."""
    height, width = region.y1 - region.y0, region.x1 - region.x0
    if max(height, width) <= largest:
        return Part(store, region)
    places = store.foreground(region.pair) - (region.y0, region.x0)

    def foreground(window: Window) -> int:
        low, high = (window.y, window.x), (window.y + window.height, window.x + window.width)
        return int(((places >= low) & (places < high)).all(axis=1).sum())

    window = max(windows(height, width, tile=largest), key=foreground)
    y, x = region.y0 + window.y, region.x0 + window.x
    return Part(store, replace(region, y0=y, y1=y + window.height, x0=x, x1=x + window.width))


def evenly(parts: Sequence[Part], *, most: int, pixels: int) -> list[Part]:
    """Of the parts, evenly spaced, at most ``most`` of about ``pixels`` in all; the first and the last among them."""
    affordable = max(FEWEST, pixels * len(parts) // max(sum(part.pixels for part in parts), 1))
    count = min(len(parts), most, affordable)
    return [parts[round(place)] for place in np.linspace(0, len(parts) - 1, count)] if count else []
