"""Batches of tiles: random crops for training, every pixel once and in order for validation."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.ahead import ahead
from tune_smp.data.labels import IGNORE
from tune_smp.data.normalization import IMAGES_REMEMBERED, Normalizer
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.data.tiles import Window, grid_count, owned, windows
from tune_smp.errors import DataError, Problem

BATCH_OF_TILES = "batch of tiles"


@dataclass(frozen=True)
class Batch:
    """Raw tiles; normalised = images * scale + offset, per sample and channel. T is the tile size, in pixels."""

    images: NDArray[Any]  # (N, C, T, T) uint8 or float32
    scale: NDArray[np.float32]  # (N, C)
    offset: NDArray[np.float32]  # (N, C)
    masks: NDArray[np.uint8]  # (N, K or 1, T, T), 255 = IGNORE
    has_ignored: bool  # False: certainly no IGNORE in these masks


@dataclass(frozen=True, kw_only=True)
class _Tiles:
    """The source that training and validation tiles are cut from."""

    store: ImageStore
    regions: Sequence[Region]  # those of the other subset are left alone
    normalizer: Normalizer
    tile_size: int  # px
    batch_size: int

    def _of_subset(self, subset: str) -> tuple[Region, ...]:
        own = tuple(region for region in self.regions if region.subset == subset)
        if not own:
            problem = f"no image is left for {subset}"
            raise DataError(Problem(problem, "split.csv", "add images, or choose another --trainFraction or --groupBy"))
        return own

    def _empty(self, pairs: Sequence[int], *, has_ignored: bool) -> Batch:
        """A batch of tiles of these pairs, pixels to be filled in."""
        side = (self.tile_size, self.tile_size)
        affine = [self.normalizer.affine(pair) for pair in pairs]
        return Batch(
            images=np.empty((len(pairs), self.store.channels, *side), self.store.dtype),
            scale=np.stack([scale for scale, _ in affine]),
            offset=np.stack([offset for _, offset in affine]),
            masks=np.full((len(pairs), self.store.mask(pairs[0]).shape[0], *side), IGNORE, np.uint8),
            has_ignored=has_ignored,
        )

    def _cut(self, source: NDArray[Any], region: Region, y: int, x: int, target: NDArray[Any]) -> None:
        """Copy the tile at (y, x) of an image or mask, reflected at the region's borders where it reaches beyond."""
        end_y, end_x = y + self.tile_size, x + self.tile_size
        if region.y0 <= y and end_y <= region.y1 and region.x0 <= x and end_x <= region.x1:
            target[...] = source[:, y:end_y, x:end_x]
        else:
            rows = reflected(y, end_y, low=region.y0, high=region.y1)
            columns = reflected(x, end_x, low=region.x0, high=region.x1)
            # Two steps, and only the part that is needed: five times as fast as one index with both.
            part = source[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            target[...] = part.take(rows - rows.min(), axis=1).take(columns - columns.min(), axis=2)


@dataclass(frozen=True, kw_only=True)
class TrainingTiles(_Tiles):
    """Random crops of the training regions.

    Each region is cropped as often per epoch as it holds tiles, in shuffled order; ``foreground_fraction`` of the crops
    are put around a foreground pixel, all classes of the image being equally likely. The batches of epoch n depend on
    (``seed``, n) only. Raises DataError when no region is for training.
    """

    seed: int
    steps_per_epoch: int | None = None  # None: one pass over the training tiles
    foreground_fraction: float = 0.0

    @cached_property
    def steps(self) -> int:
        """Batches per epoch, every one full: further crops fill up the last."""
        return self.steps_per_epoch or math.ceil(self._crops.sum() / self.batch_size)

    @cached_property
    def has_ignored(self) -> bool:
        """Whether masks may hold IGNORE."""
        return any(self.store.ignored_pixels(region.pair) for region in self._own)

    def epoch(self, number: int) -> Generator[Batch, None, None]:
        """The batches of epoch ``number`` (from 0 or 1, as the caller counts), made ahead in a background thread."""
        order = self._order(np.random.default_rng((self.seed, number)))
        plans = ((number, step, order[step * self.batch_size :][: self.batch_size]) for step in range(self.steps))
        return ahead(map(self._batch, plans), from_storage=BATCH_OF_TILES)

    @cached_property
    def _own(self) -> tuple[Region, ...]:
        return self._of_subset("train")

    @cached_property
    def _crops(self) -> NDArray[np.int64]:
        """Crops per region and epoch."""
        sides = ((region.y1 - region.y0, region.x1 - region.x0) for region in self._own)
        return np.array([grid_count(height, width, self.tile_size) for height, width in sides])

    @cached_property
    def _places(self) -> Callable[[Region], list[NDArray[np.int32]]]:
        """Of a region, for each class that is there: sampled places (y, x) of its pixels."""
        return lru_cache(IMAGES_REMEMBERED)(partial(_places_within, self.store))

    def _order(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw the region of each crop of an epoch: as many passes as it takes, each in an order of its own."""
        one_pass = np.repeat(np.arange(len(self._own)), self._crops)
        passes = math.ceil(self.steps * self.batch_size / len(one_pass))
        return np.concatenate([random.permutation(one_pass) for _ in range(passes)])

    def _batch(self, plan: tuple[int, int, NDArray[np.int64]]) -> Batch:
        number, step, chosen = plan
        random = np.random.default_rng((self.seed, number, step))
        regions = [self._own[index] for index in chosen]
        pairs = [region.pair for region in regions]
        batch = self._empty(pairs, has_ignored=any(self.store.ignored_pixels(pair) for pair in pairs))
        for sample, region in enumerate(regions):
            y, x = self._corner(region, random)
            self._cut(self.store.image(region.pair), region, y, x, batch.images[sample])
            self._cut(self.store.mask(region.pair), region, y, x, batch.masks[sample])
        return batch

    def _corner(self, region: Region, random: np.random.Generator) -> tuple[int, int]:
        """Draw where a crop begins: anywhere in its region, or so that a foreground pixel lies in its middle half."""
        tile = self.tile_size
        lowest_y, highest_y = sorted((region.y0, region.y1 - tile))
        lowest_x, highest_x = sorted((region.x0, region.x1 - tile))
        y, x = random.integers((lowest_y, lowest_x), (highest_y, highest_x), endpoint=True)
        if random.random() < self.foreground_fraction and (places := self._places(region)):
            of_class = places[random.integers(len(places))]
            y, x = of_class[random.integers(len(of_class))] - random.integers(tile // 4, tile - tile // 4, 2)
        return min(max(int(y), lowest_y), highest_y), min(max(int(x), lowest_x), highest_x)


@dataclass(frozen=True, kw_only=True)
class ValidationTiles(_Tiles):
    """Every pixel of the validation regions exactly once, in order; nothing is kept, each pass reads the store again.

    What a tile holds beyond its own pixels (neighbours', padding) is IGNORE in its mask. The last batch may be short.
    Raises DataError when no region is for validation.
    """

    @cached_property
    def tiles(self) -> int:
        """Number of tiles."""
        return sum(grid_count(region.y1 - region.y0, region.x1 - region.x0, self.tile_size) for region in self._own)

    @cached_property
    def has_ignored(self) -> bool:
        """Whether masks may hold IGNORE."""
        return any(
            (region.y1 - region.y0) % self.tile_size
            or (region.x1 - region.x0) % self.tile_size
            or self.store.ignored_pixels(region.pair)
            for region in self._own
        )

    def __len__(self) -> int:
        return math.ceil(self.tiles / self.batch_size)

    def __iter__(self) -> Generator[Batch, None, None]:
        placements = self._placements()
        batches = iter(lambda: list(islice(placements, self.batch_size)), [])
        return ahead(map(self._batch, batches), from_storage=BATCH_OF_TILES)

    @cached_property
    def _own(self) -> tuple[Region, ...]:
        return self._of_subset("validation")

    def _placements(self) -> Iterator[tuple[Region, Window, Window]]:
        """Each tile's region, and within that its window and the part that it owns."""
        for region in self._own:
            size = region.y1 - region.y0, region.x1 - region.x0
            own = owned(*size, tile=self.tile_size)
            for window, share in zip(windows(*size, tile=self.tile_size), own, strict=True):
                yield region, window, share

    def _batch(self, placements: Sequence[tuple[Region, Window, Window]]) -> Batch:
        whole = self.tile_size, self.tile_size
        has_ignored = any(
            (share.height, share.width) != whole or self.store.ignored_pixels(region.pair)
            for region, _, share in placements
        )
        batch = self._empty([region.pair for region, _, _ in placements], has_ignored=has_ignored)
        for sample, (region, window, share) in enumerate(placements):
            image, mask = self.store.image(region.pair), self.store.mask(region.pair)
            self._cut(image, region, region.y0 + window.y, region.x0 + window.x, batch.images[sample])
            inside = Window(share.y - window.y, share.x - window.x, share.height, share.width)
            within_image = Window(region.y0 + share.y, region.x0 + share.x, share.height, share.width)
            batch.masks[sample][:, *inside.slices] = mask[:, *within_image.slices]
        return batch


def reflected(start: int, end: int, *, low: int, high: int) -> NDArray[np.intp]:
    """The coordinates start … end - 1 folded into low … high - 1, as numpy's "reflect" does, any number of times."""
    period = max(1, 2 * (high - low - 1))
    along = np.arange(start - low, end - low) % period
    return np.minimum(along, period - along) + low if high - low > 1 else along + low


def _places_within(store: ImageStore, region: Region) -> list[NDArray[np.int32]]:
    """For each class with foreground in the region: sampled places (y, x)."""
    places = [store.foreground(region.pair, number) for number in range(store.class_map.classes)]
    if (region.y0, region.x0, region.y1, region.x1) != (0, 0, *store.sizes[region.pair]):
        low, high = (region.y0, region.x0), (region.y1, region.x1)
        places = [found[((found >= low) & (found < high)).all(axis=1)] for found in places]
    return [found for found in places if len(found)]
