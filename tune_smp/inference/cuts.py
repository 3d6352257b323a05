"""The tiles of one image after the other, read and cut for a predictor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.channel_statistics import ChannelStatistics, image_statistics
from tune_smp.data.normalization import Affine
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.image_reader import ImageInfo
from tune_smp.data.tiles import Window, windows
from tune_smp.errors import DataError, Problem
from tune_smp.inference.sources import PixelSource, PlaneBands
from tune_smp.inference.tiling import Tiling

logger = logging.getLogger(__name__)

OpenImage: TypeAlias = Callable[[], AbstractContextManager[PixelSource]]
"""Opens an image. Raises DataError where it cannot be opened."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One tile: its raw pixels (C, tile, tile), the constants that normalise them, and where it lies."""

    image: int  # in the order of the images
    info: ImageInfo
    plane: int
    window: Window
    pixels: NDArray[Any]
    affine: Affine
    is_last: bool  # of its plane


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """An image that could not be read to its end; the error has no traceback, which would hold on to its pixels."""

    image: int
    error: DataError


Made = TypeVar("Made")


def of_each(
    images: Iterable[OpenImage], make: Callable[[int, PixelSource], Generator[Made, None, None]]
) -> Generator[Made | Failed, None, None]:
    """What is made of one image after the other; one that cannot be read ends with what is wrong with it."""
    for number, open_image in enumerate(images):
        try:
            with open_image() as reader, closing(make(number, reader)) as made:
                yield from made
        except DataError as error:
            logger.info("image %d cannot be read", number, exc_info=True)
            failed = Failed(number, DataError(error.problems))
        else:
            continue
        yield failed


class Cutter:
    """Cuts images for one model: its normalisation, its tiles."""

    def __init__(self, preprocessing: Preprocessing, tiling: Tiling) -> None:
        self._preprocessing = preprocessing
        self._tiling = tiling

    def of_images(self, images: Iterable[OpenImage]) -> Generator[Cut | Failed, None, None]:
        """The tiles of all images; one that cannot be read ends with what is wrong with it."""
        return of_each(images, lambda number, reader: self.of_image(reader, number=number))

    def of_image(
        self, reader: PixelSource, *, statistics: ChannelStatistics | None = None, number: int = 0
    ) -> Generator[Cut, None, None]:
        """The tiles of every plane. ``statistics``: those of the whole image, where the reader gives a part of it.

        Raises DataError where the image has other channels than the model or cannot be decoded.
        """
        check_channels(reader, self._preprocessing)
        for plane in range(reader.info.planes):
            yield from self.of_plane(PlaneBands(reader, plane), reader.info, plane, statistics, number=number)

    def of_plane(
        self,
        bands: PlaneBands,
        info: ImageInfo,
        plane: int,
        statistics: ChannelStatistics | None = None,
        *,
        number: int = 0,
    ) -> Generator[Cut, None, None]:
        """The tiles of one plane, row by row; an image smaller than a tile is mirrored to the right and below."""
        affine = self._affine(bands, statistics)
        tile, height, width = self._tiling.tile_size, info.height, info.width
        grid = windows(height, width, tile=tile, overlap=self._tiling.overlap)
        missing = ((0, 0), (0, max(0, tile - height)), (0, max(0, tile - width)))
        for y, row in groupby(grid, key=lambda window: window.y):
            pixels = np.pad(bands.rows(y, min(tile, height)), missing, mode="reflect")
            for window in row:
                is_last = window.y + window.height == height and window.x + window.width == width
                columns = pixels[:, :, window.x : window.x + tile]
                yield Cut(number, info, plane, window, columns, affine, is_last=is_last)

    def _affine(self, bands: PlaneBands, statistics: ChannelStatistics | None) -> Affine:
        normalization = self._preprocessing.normalization
        if normalization.needs_statistics and statistics is None:
            statistics = image_statistics(bands)
        return normalization.affine(statistics)


def check_channels(reader: PixelSource, preprocessing: Preprocessing) -> None:
    """Raise DataError where an image has another number of channels than the model."""
    if reader.info.channels != preprocessing.channels:
        raise DataError(
            Problem(
                f"the model takes {preprocessing.channels} channels, the image has {reader.info.channels}",
                fix=_way_to_the_channels(preprocessing),
            )
        )


def _way_to_the_channels(preprocessing: Preprocessing) -> str:
    variable = preprocessing.channel_variable
    if variable is None:
        return "choose images of the kind that the model was trained on"
    return f"name the variable {{{variable}}} in --imagesPattern: the model stacks its values into channels"


def in_batches(items: Generator[Cut | Failed, None, None], size: int) -> Generator[list[Cut | Failed], None, None]:
    """The same items in their order, in lists of ``size`` tiles, or fewer where an image failed and at the end.

    Closes ``items``, and so the image that is open, in the thread that makes them.
    """
    batch: list[Cut | Failed] = []
    with closing(items):
        for item in items:
            batch.append(item)
            if len(batch) == size or isinstance(item, Failed):
                yield batch
                batch = []
    if batch:
        yield batch
