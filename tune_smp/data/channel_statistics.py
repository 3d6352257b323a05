"""Statistics of an image's pixels, in bounded memory, and of all images of a collection together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LOW_PERCENTILE = 1.0  # cuts dead pixels and dark borders
HIGH_PERCENTILE = 99.8  # cuts hot pixels and saturated debris; small bright objects stay, they may cover under 1 %
QUANTILES = 1024  # per image and channel, what the percentiles of a whole collection are pooled from: 4 kB
SAMPLE_PIXELS = 2**18  # of images above 16 bit; the rank of a percentile is then right within about 0.01 %
_BLOCK_PIXELS = 2**20  # looked at in one go: counting and random keys need eight bytes for each


@dataclass(frozen=True)
class ChannelStatistics:
    """Statistics of one image or collection, one number per channel.

    ``low`` and ``high`` are the percentiles LOW_PERCENTILE and HIGH_PERCENTILE. ``quantiles`` (C, QUANTILES) are evenly
    spaced in rank and stand for the whole distribution.
    """

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    pixels: int
    quantiles: NDArray[np.float32] = field(compare=False, repr=False)


def image_statistics(chunks: Iterable[NDArray[Any]]) -> ChannelStatistics:
    """Statistics of one image given as chunks (C, h, w) of one dtype, in raster order.

    Exact for integers of up to 16 bit. For others the percentiles come from SAMPLE_PIXELS pixels drawn with a fixed
    seed (all pixels of a smaller image), the rest is exact. NaN and Inf are left out. Raises ValueError without pixels.
    """
    chunks = iter(chunks)
    first = next(chunks, None)
    if first is None:
        raise ValueError("no pixels")
    small_integers = first.dtype.kind in "bui" and first.dtype.itemsize <= 2
    distribution = _Histogram(first) if small_integers else _Sample(len(first))
    for chunk in chain([first], chunks):
        pixels = chunk.reshape(len(chunk), -1)
        for start in range(0, pixels.shape[1], _BLOCK_PIXELS):
            distribution.add(pixels[:, start : start + _BLOCK_PIXELS])
    return distribution.statistics()


def pool_statistics(statistics: Sequence[ChannelStatistics]) -> ChannelStatistics:
    """Statistics of all images together, every pixel with the same weight; percentiles from the pooled quantiles."""
    weights = np.array([one.pixels for one in statistics], dtype=np.float64)
    total = weights.sum()
    means = np.array([one.mean for one in statistics])  # (images, C)
    variances = np.array([one.std for one in statistics]) ** 2
    mean = weights @ means / total
    std = np.sqrt(weights @ (variances + (means - mean) ** 2) / total)
    pooled = np.concatenate([one.quantiles for one in statistics], axis=1)  # (C, images * QUANTILES)
    quantiles = [_weighted_quantiles(channel, np.repeat(weights, QUANTILES)) for channel in pooled]
    return _statistics(
        minimum=np.min([one.minimum for one in statistics], axis=0),
        maximum=np.max([one.maximum for one in statistics], axis=0),
        mean=mean,
        std=std,
        quantiles=np.array(quantiles),
        pixels=int(total),
    )


class _Histogram:
    """Exact distribution of integers of up to 16 bit: at most 65,536 counts per channel."""

    def __init__(self, first: NDArray[Any]) -> None:
        is_bool = first.dtype == np.bool_
        limits = np.iinfo(np.uint8) if is_bool else np.iinfo(first.dtype)
        self._smallest = int(limits.min)
        self._counts = np.zeros((len(first), int(limits.max) - self._smallest + 1), dtype=np.int64)

    def add(self, pixels: NDArray[Any]) -> None:
        """Count ``pixels`` (C, n)."""
        for index, channel in enumerate(pixels):
            shifted = channel.astype(np.intp) - self._smallest if self._smallest else channel
            self._counts[index] += np.bincount(shifted, minlength=self._counts.shape[1])

    def statistics(self) -> ChannelStatistics:
        pixels = int(self._counts[0].sum())
        occurring = [np.flatnonzero(counts) for counts in self._counts]  # far fewer than 65,536 as a rule
        values = [(bins + self._smallest).astype(np.float64) for bins in occurring]
        counts = [row[bins] for row, bins in zip(self._counts, occurring, strict=True)]
        mean = [count @ value / pixels for count, value in zip(counts, values, strict=True)]
        variance = [count @ (value - m) ** 2 / pixels for count, value, m in zip(counts, values, mean, strict=True)]
        return _statistics(
            minimum=np.array([value[0] for value in values]),
            maximum=np.array([value[-1] for value in values]),
            mean=np.array(mean),
            std=np.sqrt(variance),
            quantiles=np.stack([self._quantiles(count, value) for count, value in zip(counts, values, strict=True)]),
            pixels=pixels,
        )

    @staticmethod
    def _quantiles(counts: NDArray[np.int64], values: Floats) -> Floats:
        """The same as np.quantile of the pixels themselves."""
        up_to = np.cumsum(counts)
        rank = _RANKS * (up_to[-1] - 1)
        below: Floats = values[np.searchsorted(up_to, np.floor(rank), side="right")]
        above: Floats = values[np.searchsorted(up_to, np.ceil(rank), side="right")]
        interpolated: Floats = below + (above - below) * (rank - np.floor(rank))
        return interpolated


class _Sample:
    """Distribution of any numbers: exact moments, and the SAMPLE_PIXELS pixels with the smallest random keys.

    One key per pixel in raster order: the sample is the same however the image is cut into chunks of whole rows.
    """

    def __init__(self, channels: int) -> None:
        self._moments = [_Moments() for _ in range(channels)]
        self._random = np.random.default_rng(0)
        self._keys: list[Floats] = []
        self._kept: list[Floats] = []  # (C, n) each
        self._limit = math.inf  # pixels with a larger key are not among the smallest any more
        self._pixels = 0

    def add(self, pixels: NDArray[Any]) -> None:
        """Take in ``pixels`` (C, n)."""
        self._pixels += pixels.shape[1]
        values = pixels.astype(np.float64)
        for moments, channel in zip(self._moments, values, strict=True):
            moments.add(channel[np.isfinite(channel)])
        keys = self._random.random((values.shape[1],))
        candidates = np.flatnonzero(keys < self._limit)
        self._keys.append(keys[candidates])
        self._kept.append(values[:, candidates])
        if sum(map(len, self._keys)) > 2 * SAMPLE_PIXELS:
            self._compact()

    def _compact(self) -> None:
        keys, kept = np.concatenate(self._keys), np.concatenate(self._kept, axis=1)
        if keys.size > SAMPLE_PIXELS:
            smallest = np.argpartition(keys, SAMPLE_PIXELS)[:SAMPLE_PIXELS]
            keys, kept = keys[smallest], kept[:, smallest]
            self._limit = float(keys.max())
        self._keys, self._kept = [keys], [kept]

    def statistics(self) -> ChannelStatistics:
        self._compact()
        finite = [channel[np.isfinite(channel)] for channel in self._kept[0]]
        quantiles = [np.quantile(channel, _RANKS) if channel.size else np.zeros(_RANKS.size) for channel in finite]
        return _statistics(
            minimum=np.array([moments.minimum if moments.count else 0.0 for moments in self._moments]),
            maximum=np.array([moments.maximum if moments.count else 0.0 for moments in self._moments]),
            mean=np.array([moments.mean for moments in self._moments]),
            std=np.array([math.sqrt(moments.squares / max(moments.count, 1)) for moments in self._moments]),
            quantiles=np.stack(quantiles),
            pixels=self._pixels,
        )


class _Moments:
    """Running count, extremes, mean and sum of squared deviations, merged block by block.

    Chan, Golub and LeVeque (1979), Updating formulae and a pairwise algorithm for computing sample variances.
    """

    def __init__(self) -> None:
        self.count = 0
        self.minimum, self.maximum = math.inf, -math.inf
        self.mean = self.squares = 0.0

    def add(self, values: Floats) -> None:
        """Merge finite values."""
        if not values.size:
            return
        mean = float(values.mean())
        total = self.count + values.size
        difference = mean - self.mean
        self.squares += float(((values - mean) ** 2).sum()) + difference**2 * self.count * values.size / total
        self.mean += difference * values.size / total
        self.count = total
        self.minimum, self.maximum = min(self.minimum, float(values.min())), max(self.maximum, float(values.max()))


# Ranks in [0, 1] of the two percentiles and, after them, of the evenly spaced quantiles.
_RANKS = np.concatenate([[LOW_PERCENTILE / 100, HIGH_PERCENTILE / 100], (np.arange(QUANTILES) + 0.5) / QUANTILES])


def _statistics(
    *, minimum: Floats, maximum: Floats, mean: Floats, std: Floats, quantiles: Floats, pixels: int
) -> ChannelStatistics:
    """The record from arrays (C,) and ``quantiles`` (C, len(_RANKS))."""

    def numbers(values: Floats) -> tuple[float, ...]:
        return tuple(map(float, values))

    return ChannelStatistics(
        minimum=numbers(minimum),
        maximum=numbers(maximum),
        mean=numbers(mean),
        std=numbers(std),
        low=numbers(quantiles[:, 0]),
        high=numbers(quantiles[:, 1]),
        pixels=pixels,
        quantiles=quantiles[:, 2:].astype(np.float32),
    )


def _weighted_quantiles(values: NDArray[np.float32], weights: Floats) -> Floats:
    """Quantiles at _RANKS of values that stand for ``weights`` pixels each, every value in the middle of its weight."""
    order = np.argsort(values)
    middle = np.cumsum(weights[order]) - weights[order] / 2
    quantiles: Floats = np.interp(_RANKS, middle / weights.sum(), values[order])
    return quantiles
