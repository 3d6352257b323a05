"""Images and masks that lie on the device: tiles are cut there, and of a batch only the places travel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tune_smp.data.batches import Crops, reflected
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.data.transfer import sent

SHARE = 0.25
"""Of the memory that is free for this process on a GPU, what images may take: the model needs the rest."""


class ResidentImages:
    """The images and masks of some regions of a store, one after the other in the memory of a device."""

    def __init__(self, store: ImageStore, regions: Sequence[Region], device: torch.device) -> None:
        """Copies every pixel: see `bytes_needed`."""
        pairs = sorted({region.pair for region in regions})
        self._device = device
        self._rows = {pair: row for row, pair in enumerate(pairs)}
        self._widths = np.array([store.sizes[pair][1] for pair in pairs])
        self._areas = np.array([height * width for height, width in (store.sizes[pair] for pair in pairs)])
        self._channels = store.image(pairs[0]).shape[0], store.mask(pairs[0]).shape[0]
        lengths = [int(channels * self._areas.sum()) for channels in self._channels]
        self._images = _one_after_the_other(map(store.image, pairs), lengths[0], store.dtype, device)
        self._masks = _one_after_the_other(map(store.mask, pairs), lengths[1], np.dtype(np.uint8), device)

    def cut(self, crops: Crops, tile_size: int) -> tuple[Tensor, Tensor]:
        """Images (N, C, T, T) and masks (N, K or 1, T, T), as `TrainingTiles` cuts them on the host."""
        bounds = np.array([(region.y0, region.y1, region.x0, region.x1) for region in crops.regions])
        along = crops.corners[:, :, None] + np.arange(tile_size)  # (N, 2, T)
        rows = reflected(along[:, 0], low=bounds[:, 0:1], high=bounds[:, 1:2])
        columns = reflected(along[:, 1], low=bounds[:, 2:3], high=bounds[:, 3:4])
        which = np.array([self._rows[region.pair] for region in crops.regions])
        starts = self._sent(rows * self._widths[which, None])[:, :, None]
        within = starts + self._sent(columns)[:, None, :]  # (N, T, T) places within one channel
        sources = zip((self._images, self._masks), self._channels, strict=True)
        images, masks = (self._taken(source, channels, which, within) for source, channels in sources)
        return images, masks

    def _taken(self, source: Tensor, channels: int, which: NDArray[np.int64], within: Tensor) -> Tensor:
        ends = np.cumsum(channels * self._areas)
        first = ends[which] - channels * self._areas[which]
        planes = first[:, None] + np.arange(channels) * self._areas[which, None]  # (N, channels) where each begins
        begins = self._sent(planes)[:, :, None, None]
        return torch.stack([source[begins[:, channel] + within] for channel in range(channels)], dim=1)

    def _sent(self, array: NDArray[np.int64]) -> Tensor:
        return sent(torch.from_numpy(np.ascontiguousarray(array)), self._device)


def bytes_needed(store: ImageStore, regions: Sequence[Region]) -> int:
    """Bytes that these images and masks take on a device."""
    pairs = {region.pair for region in regions}
    of_a_pixel: int = store.channels * store.dtype.itemsize + store.mask(min(pairs)).shape[0]
    return of_a_pixel * sum(height * width for height, width in (store.sizes[pair] for pair in pairs))


def room_for_images(device: torch.device) -> float:
    """Bytes that images may take on this device; 0 on a CPU, which maps the store instead."""
    if device.type != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return SHARE * min(free, total * torch.cuda.get_per_process_memory_fraction(device))


def _one_after_the_other(
    arrays: Iterable[NDArray[Any]], length: int, dtype: np.dtype[Any], device: torch.device
) -> Tensor:
    """All values of the arrays in one tensor; the host holds a copy of one array at a time."""
    joined = torch.from_numpy(np.empty(0, dtype)).new_empty(length, device=device)
    begin = 0
    for array in arrays:
        end = begin + array.size
        joined[begin:end] = torch.from_numpy(np.array(array, dtype).reshape(-1))
        begin = end
    return joined
