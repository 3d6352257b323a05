"""Tiled, overlapping, blended prediction of images of any size, in memory that does not grow with their height."""

from __future__ import annotations

import copy
import logging
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from tune_smp.choices.views import PRESETS, View
from tune_smp.data.ahead import ahead
from tune_smp.data.channel_statistics import ChannelStatistics
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.reading.image_reader import ImageInfo
from tune_smp.errors import Problem, ResourceError
from tune_smp.inference.blending import RowBlender, Rows
from tune_smp.inference.cuts import Cut, Cutter, Failed, OpenImage, in_batches
from tune_smp.inference.sources import PixelSource, PlaneBands
from tune_smp.inference.tiling import Tiling, choose_tiling
from tune_smp.inference.views import turned, turned_back
from tune_smp.training.memory import is_out_of_memory
from tune_smp.training.precision import FLOAT32, Precision

logger = logging.getLogger(__name__)

# A CPU gains nothing from larger batches, a GPU is busy with this many tiles of 256 px.
CPU_BATCH_SIZE, GPU_BATCH_SIZE = 4, 32

BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Rows of one of the images that are predicted."""

    image: int  # in the order of the images
    info: ImageInfo
    rows: Rows


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
        self._cutter = Cutter(preprocessing, self._tiling)
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
        return self._rows(self._cutter.of_image(reader, statistics=statistics))

    def predict_images(self, images: Iterable[OpenImage]) -> Generator[Strip | Failed, None, None]:
        """The strips of all images, one image after the other, of which a batch may hold several.

        Of an image that cannot be read, what is wrong comes after the strips that were there, and then the next image.
        """
        return self._predicted(self._cutter.of_images(images))

    def predict_plane(
        self, bands: PlaneBands, info: ImageInfo, plane: int, statistics: ChannelStatistics | None = None
    ) -> Generator[Rows, None, None]:
        """The strips of one plane, which several models may read through the same bands."""
        return self._rows(self._cutter.of_plane(bands, info, plane, statistics))

    def _rows(self, cuts: Generator[Cut, None, None]) -> Generator[Rows, None, None]:
        with closing(self._predicted(cuts)) as predicted:
            for strip in predicted:
                assert isinstance(strip, Strip)  # noqa: S101 - what is wrong with one image is raised
                yield strip.rows

    def _predicted(self, cuts: Generator[Cut | Failed, None, None]) -> Generator[Strip | Failed, None, None]:
        blender: RowBlender | None = None
        # Read and decoded while the model works.
        with closing(ahead(in_batches(cuts, self._batch_size), count=BATCHES_AHEAD)) as batches:
            for batch in batches:
                probabilities = iter(self._probabilities([item for item in batch if isinstance(item, Cut)]))
                for item in batch:
                    if isinstance(item, Failed):
                        blender = None
                        yield item
                        continue
                    blender = blender or self._new_blender(item)
                    for rows in blender.add(item.window, next(probabilities)):
                        yield Strip(item.image, item.info, rows)
                    if item.is_last:
                        for rows in blender.finish(item.info.height):
                            yield Strip(item.image, item.info, rows)
                        blender = None

    def _new_blender(self, first: Cut) -> RowBlender:
        return RowBlender(
            plane=first.plane,
            classes=self.preprocessing.class_map.classes,
            width=first.info.width,
            tile=self._tiling.tile_size,
            overlap=self._tiling.overlap,
            device=self._device,
        )

    def _probabilities(self, cuts: Sequence[Cut]) -> Sequence[Tensor]:
        """(K, T, T) of each tile, on the device; predicted in halves where its memory runs out."""
        if not cuts:
            return ()
        try:
            return self._forward(cuts).unbind()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if len(cuts) == 1:
                raise _too_large(self._tiling.tile_size) from error
        half = len(cuts) // 2
        logger.warning("a batch of %d tiles does not fit into memory: halved", len(cuts))
        torch.cuda.empty_cache()
        return [tile for part in (cuts[:half], cuts[half:]) for tile in self._probabilities(part)]

    @torch.inference_mode()
    def _forward(self, cuts: Sequence[Cut]) -> Tensor:
        """Probabilities (N, K, T, T)."""
        tiles = np.stack([cut.pixels for cut in cuts])  # (N, C, T, T)
        raw = tiles if tiles.dtype == np.uint8 else tiles.astype(np.float32)  # bytes travel to the GPU as bytes
        images = torch.from_numpy(raw).to(self._device).float()
        scale, offset = (
            torch.from_numpy(np.stack(constants)).to(self._device)[:, :, None, None]
            for constants in zip(*(cut.affine for cut in cuts), strict=True)
        )
        images = images * scale + offset  # normalised, each by its own image's constants
        views = (turned_back(self._activated(turned(images, view)), view) for view in self._views)
        return reduce(torch.add, views) / len(self._views)  # one view after the other: memory for one, not for eight

    def _activated(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, T, T) → probabilities (N, K, T, T)."""
        with self._precision.context(self._device):
            logits: Tensor = self._model(images.contiguous(memory_format=torch.channels_last)).float()
        multiclass = self.preprocessing.segmentation_mode == "multiclass"
        return logits.softmax(dim=1) if multiclass else logits.sigmoid()


def _too_large(tile_size: int) -> ResourceError:
    fix = "pass a smaller --tileSize, or another --device"
    return ResourceError(Problem(f"the memory does not suffice to predict one tile of {tile_size} px", fix=fix))
