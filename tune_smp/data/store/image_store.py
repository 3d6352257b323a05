"""The image store: every image and mask of a collection, decoded once and memory-mapped by every trial of a node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.channel_statistics import ChannelStatistics
from tune_smp.data.labels import Mode
from tune_smp.data.pairing.pairs import Collection, Pair
from tune_smp.data.split import Region
from tune_smp.data.store import cache as store_cache
from tune_smp.data.store.build import StoreRequest, build_store
from tune_smp.data.store.foreground import class_pixels, value_counts
from tune_smp.data.store.format import (
    IMAGES,
    INDEX,
    MASKS,
    STATISTICS,
    StoreIndex,
    extent_at,
    map_file,
    read_collection,
    read_tables,
)
from tune_smp.errors import DataError, Problem

BYTES = np.dtype(np.uint8).str
_ROWS = 1024  # of a mask counted in one go: bounds the memory


class ImageStore:
    """All images and masks of a collection, read-only.

    Opening maps files and copies no pixel; pickled, it is its path, so that handing it to a worker costs nothing.

    ``sizes`` are (height, width) in pixels; regions index into them. ``notes`` are what building it found.
    """

    def __init__(self, path: Path, index: StoreIndex) -> None:
        self.path = path
        self.class_map = index.class_map
        self.notes = index.notes
        self._tables = read_tables(path)
        self._images, self._masks = map_file(path / IMAGES), map_file(path / MASKS)
        places, dtypes = self._tables["image_places"], self._tables["image_dtypes"]
        masks = self._tables["mask_places"]
        ends = extent_at(places[-1], _text(dtypes[-1])).end, extent_at(masks[-1], BYTES).end
        if ends[0] > self._images.size or ends[1] > self._masks.size:
            raise ValueError("files are shorter than the tables say")
        of_pairs = "pair_keys", "image_places", "image_dtypes", "mask_places", "totals"
        if len({len(self._tables[name]) for name in of_pairs}) != 1:
            raise ValueError("the tables have different lengths")
        self.channels = int(places[0, 1])
        self.sizes = _without_copies(places[:, 2:])
        of_batches = np.uint8 if (dtypes == BYTES.encode("ascii")).all() else np.float32
        self.dtype = np.dtype(of_batches)

    @cached_property
    def collection(self) -> Collection:
        """The images and labels, one pair for each Z or T plane. Raises DataError where the store is damaged."""
        try:
            return read_collection(self.path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            with suppress(OSError):  # opened no more, it is built anew
                (self.path / INDEX).unlink()
            raise _damaged(self.path) from error

    @property
    def keys(self) -> NDArray[np.uint64]:
        """(n,) the number of each pair by which a split finds it; see ``pair_keys``."""
        keys: NDArray[np.uint64] = self._tables["pair_keys"]
        return keys

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Those of the collection; regions index into them."""
        return self.collection.pairs

    @staticmethod
    def open(path: Path) -> ImageStore:
        """Open a store by its folder. Raises DataError where there is none, or a damaged one."""
        store = _opened(path)
        if store is None:
            raise _damaged(path)
        return store

    def __reduce__(self) -> tuple[Callable[[Path], ImageStore], tuple[Path]]:
        return ImageStore.open, (self.path,)

    def __len__(self) -> int:
        return len(self.sizes)

    def image(self, index: int) -> NDArray[Any]:
        """(C, H, W) in its own dtype, read-only."""
        dtype = _text(self._tables["image_dtypes"][index])
        return extent_at(self._tables["image_places"][index], dtype).of(self._images)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """(K or 1, H, W): class numbers (multiclass), or 0/1; 255 = IGNORE. Read-only."""
        return extent_at(self._tables["mask_places"][index], BYTES).of(self._masks)

    def statistics(self, index: int) -> ChannelStatistics:
        """Of all pixels of one image."""
        rows = self._tables["statistics"][index].tolist()
        numbers = {name: tuple(row) for name, row in zip(STATISTICS, rows, strict=True)}
        height, width = self.sizes[index]
        return ChannelStatistics(**numbers, pixels=height * width, quantiles=self._tables["quantiles"][index])

    def foreground(self, index: int, class_number: int | None = None) -> NDArray[np.int32]:
        """(n, 2) sampled places (y, x) of foreground pixels, of one class or of all, each class with an equal share."""
        classes = self.class_map.classes
        first, end = (0, classes) if class_number is None else (class_number, class_number + 1)
        starts = self._tables["foreground_starts"]
        places: NDArray[np.int32] = self._tables["foreground"]
        return places[starts[index * classes + first] : starts[index * classes + end]]

    def class_pixels(self, index: int) -> NDArray[np.int64]:
        """(classes,) pixels of each class; binary: foreground only; multilabel: ones per channel."""
        pixels: NDArray[np.int64] = self._tables["class_pixels"][index]
        return pixels

    def foreground_pixels(self, index: int) -> int:
        """Pixels of any class but the background (multiclass's class 0)."""
        return int(self._tables["totals"][index, 0])

    def ignored_pixels(self, index: int) -> int:
        """Values of the mask that are IGNORE."""
        return int(self._tables["totals"][index, 1])


def _without_copies(sizes: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
    """The rows as tuples, equal ones the same object: images of one size, as most have, then take 8 bytes each."""
    known: dict[tuple[int, int], tuple[int, int]] = {}
    return tuple(known.setdefault(size, size) for size in map(tuple, sizes.tolist()))


def _text(dtype: np.bytes_) -> str:
    return dtype.decode("ascii")


def _damaged(path: Path) -> DataError:
    fix = "run the same command again: they will be decoded anew"
    return DataError(Problem("the decoded images are missing or damaged", str(path), fix))


def open_or_build(
    collection: Collection,
    *,
    mode: Mode,
    ignore_value: int | None = None,
    cache_dir: Path | None = None,
    skip_corrupt: bool = False,
    label_colors: Mapping[str, int] | None = None,
) -> ImageStore:
    """The store of a collection from the cache, or built now, by as many processes as there are cores.

    Several processes may ask at once: one builds, the others wait. A changed file or setting gives another store.

    Raises:
        DataError: files or pairs that cannot be used (all at once; with ``skip_corrupt`` they are left out and named in
            ``notes``), or labels that do not fit the mode.
        ResourceError: the cache cannot be written, or the disk is too small.
    """
    request = StoreRequest(collection, mode, ignore_value, skip_corrupt, tuple((label_colors or {}).items()))
    path = store_cache.cache_folder(cache_dir) / store_cache.store_key(request)
    store = _opened(path)
    if store is not None:
        return store
    with store_cache.building_right(path):
        store = _opened(path)  # another process may have built it meanwhile
        if store is None:
            store_cache.fill(path, partial(build_store, request=request))
            store = ImageStore.open(path)
    return store


def class_counts(store: ImageStore, regions: Sequence[Region]) -> NDArray[np.int64]:
    """(classes,) pixels of each class, as ``ImageStore.class_pixels`` counts them, in all regions together."""
    counts = [_region_pixels(store, region) for region in regions]
    return np.sum(counts, axis=0, dtype=np.int64) if counts else np.zeros(store.class_map.classes, np.int64)


def _region_pixels(store: ImageStore, region: Region) -> NDArray[np.int64]:
    if (region.y0, region.x0, region.y1, region.x1) == (0, 0, *store.sizes[region.pair]):
        return store.class_pixels(region.pair)
    mask = store.mask(region.pair)[:, region.y0 : region.y1, region.x0 : region.x1]
    strips = (value_counts(mask[:, y : y + _ROWS]) for y in range(0, mask.shape[1], _ROWS))
    return class_pixels(sum(strips, np.zeros((len(mask), 256), np.int64)), store.class_map)


def _opened(path: Path) -> ImageStore | None:
    """None where there is no whole store."""
    try:
        store = ImageStore(path, StoreIndex.read(path))
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    store_cache.touch(path)
    return store
