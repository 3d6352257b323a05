"""Tiled, overlapping, blended prediction of images of any size, in memory that does not grow with their height."""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import reduce
from itertools import groupby, islice
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tune_smp.choices.views import PRESETS, View
from tune_smp.data.ahead import ahead
from tune_smp.data.channel_statistics import ChannelStatistics, image_statistics
from tune_smp.data.normalization import Affine
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.image_reader import ImageInfo
from tune_smp.data.tiles import Window, windows
from tune_smp.errors import DataError, Problem, ResourceError
from tune_smp.inference.blending import RowBlender, Rows
from tune_smp.inference.sources import PixelSource, PlaneBands
from tune_smp.inference.tiling import Tiling, choose_tiling
from tune_smp.inference.views import turned, turned_back
from tune_smp.training.memory import is_out_of_memory
from tune_smp.training.precision import FLOAT32, Precision

logger = logging.getLogger(__name__)

# A CPU gains nothing from larger batches, a GPU is busy with this many tiles of 256 px.
CPU_BATCH_SIZE, GPU_BATCH_SIZE = 4, 32

BATCHES_AHEAD = 2

Tile: TypeAlias = tuple[Window, NDArray[Any]]  # where it lies, and its raw pixels (C, tile, tile)


class Predictor:
    """An exported model with all it needs to predict images.

    Every tile is normalised with its image's constants, predicted in each of the ``views``, whose mean counts, and
    blended with its neighbours. A batch that does not fit into memory is halved until it does.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        *,
        device: torch.device | str = "cpu",
        tiling: Tiling | None = None,
        batch_size: int | None = None,
        views: Sequence[View] = PRESETS["none"],
        precision: Precision = FLOAT32,
    ) -> None:
        """``model`` gives logits; it goes to the device and into evaluation mode. Defaults: see ``choose_tiling``."""
        self.preprocessing = preprocessing
        self._device = torch.device(device)
        # Channels last: 1.2 to 2 times as fast on a CPU (Unet with resnet18, tiles of 256 px, one core).
        self._model = model.to(self._device).to(memory_format=torch.channels_last).eval()
        self._tiling = tiling or choose_tiling(preprocessing)
        self._batch_size = batch_size or (CPU_BATCH_SIZE if self._device.type == "cpu" else GPU_BATCH_SIZE)
        self._views = tuple(views)
        self._precision = precision

    def with_views(self, views: Sequence[View]) -> Self:
        """The same model with other views."""
        other = copy.copy(self)
        other._views = tuple(views)
        return other

    def predict(
        self, reader: PixelSource, *, statistics: ChannelStatistics | None = None
    ) -> Generator[Rows, None, None]:
        """Probabilities of every plane from top to bottom, in strips of rows.

        ``statistics``: those of the whole image, where the reader gives a part of it. Held in memory: the decoded bands
        of PlaneBands, a band of classes · tile · width float32, and the pixels of the rows of a few batches.
        Raises DataError where the image has other channels than the model or cannot be decoded.
        """
        check_channels(reader, self.preprocessing)
        for plane in range(reader.info.planes):
            yield from self.predict_plane(PlaneBands(reader, plane), reader.info, plane, statistics)

    def predict_plane(
        self, bands: PlaneBands, info: ImageInfo, plane: int, statistics: ChannelStatistics | None = None
    ) -> Generator[Rows, None, None]:
        """The strips of one plane, which several models may read through the same bands."""
        tile, overlap = self._tiling.tile_size, self._tiling.overlap
        affine = self._affine(bands, statistics)
        classes = self.preprocessing.class_map.classes
        shape = {"classes": classes, "width": info.width, "tile": tile, "overlap": overlap}
        blender = RowBlender(plane=plane, **shape, device=self._device)

        tiles = _tiles(bands, info.height, info.width, self._tiling)
        # Read and decoded while the model works.
        made_ahead = ahead(_batches(tiles, self._batch_size), count=BATCHES_AHEAD)
        with closing(made_ahead) as batches:
            for batch in batches:
                probabilities = self._probabilities(np.stack([pixels for _, pixels in batch]), affine)
                for (window, _), tile_probabilities in zip(batch, probabilities, strict=True):
                    yield from blender.add(window, tile_probabilities)
        yield from blender.finish(info.height)

    def _affine(self, bands: PlaneBands, statistics: ChannelStatistics | None) -> Affine:
        normalization = self.preprocessing.normalization
        if normalization.needs_statistics and statistics is None:
            statistics = image_statistics(bands)
        return normalization.affine(statistics)

    def _probabilities(self, tiles: NDArray[Any], affine: Affine) -> Tensor:
        """Raw tiles (N, C, T, T) → probabilities (N, K, T, T) on the device; in halves where its memory runs out."""
        try:
            return self._forward(tiles, affine)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(tiles) == 1:
                raise _too_large(self._tiling.tile_size) from error
        half = len(tiles) // 2
        logger.warning("a batch of %d tiles does not fit into memory: halved", len(tiles))
        torch.cuda.empty_cache()
        return torch.cat([self._probabilities(part, affine) for part in (tiles[:half], tiles[half:])])

    @torch.inference_mode()
    def _forward(self, tiles: NDArray[Any], affine: Affine) -> Tensor:
        raw = tiles if tiles.dtype == np.uint8 else tiles.astype(np.float32)  # bytes travel to the GPU as bytes
        images = torch.from_numpy(raw).to(self._device).float()
        scale, offset = (torch.from_numpy(constants).to(self._device)[:, None, None] for constants in affine)
        images = images * scale + offset  # (N, C, T, T) normalised
        views = (turned_back(self._activated(turned(images, view)), view) for view in self._views)
        return reduce(torch.add, views) / len(self._views)  # one view after the other: memory for one, not for eight

    def _activated(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, T, T) → probabilities (N, K, T, T)."""
        with self._precision.context(self._device):
            logits: Tensor = self._model(images.contiguous(memory_format=torch.channels_last)).float()
        multiclass = self.preprocessing.segmentation_mode == "multiclass"
        return logits.softmax(dim=1) if multiclass else logits.sigmoid()


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


def _tiles(bands: PlaneBands, height: int, width: int, tiling: Tiling) -> Iterator[Tile]:
    """The tiles of one plane, row by row; an image smaller than a tile is mirrored to the right and below."""
    tile = tiling.tile_size
    grid = windows(height, width, tile=tile, overlap=tiling.overlap)
    for y, row in groupby(grid, key=lambda window: window.y):
        pixels = bands.rows(y, min(tile, height))
        missing = ((0, 0), (0, max(0, tile - height)), (0, max(0, tile - width)))
        pixels = np.pad(pixels, missing, mode="reflect")
        yield from ((window, pixels[:, :, window.x : window.x + tile]) for window in row)


def _batches(tiles: Iterable[Tile], size: int) -> Iterator[Sequence[Tile]]:
    tiles = iter(tiles)
    while batch := list(islice(tiles, size)):
        yield batch


def _too_large(tile_size: int) -> ResourceError:
    fix = "pass a smaller --tileSize, or another --device"
    return ResourceError(Problem(f"the memory does not suffice to predict one tile of {tile_size} px", fix=fix))
