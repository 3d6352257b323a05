"""Batches on the device: raw tiles sent over, normalised and augmented there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tune_smp.choices.augmentations import AUGMENTATIONS
from tune_smp.data.augment import Augmenter
from tune_smp.data.batches import Batch, TrainingTiles, ValidationTiles
from tune_smp.data.normalization import Normalizer
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.data.transfer import sent
from tune_smp.settings.run import RunSettings
from tune_smp.training.seeding import seed_of
from tune_smp.training.step import Tiles

VALIDATED_AT_ONCE = {"cuda": 4}
"""Training batches that validation works off together, so that a GPU is busy where they are small; without gradients
they should need less memory than training with one (neither is measured). Elsewhere one."""
STEPS_AT_ONCE = 256
"""Steps whose tiles are drawn at once where an epoch has no fixed number of them."""
EPOCHS_APART = 1_000_000
"""More than the epochs of any run: tiles of an epoch's second round are drawn with numbers that no epoch has."""


class TileFeed:
    """The training and validation tiles of one run, in batches of ``batch_size``, which may be set."""

    def __init__(
        self, settings: RunSettings, store: ImageStore, regions: Sequence[Region], *, device: torch.device
    ) -> None:
        normalizer = Normalizer(store, settings.normalization, settings.normalization_scope)
        self._seed = settings.seed
        self._device = device
        self._augment = Augmenter(AUGMENTATIONS[settings.augmentation])
        self._training = TrainingTiles(
            store=store,
            regions=regions,
            normalizer=normalizer,
            tile_size=settings.resolved_tile_size,
            batch_size=1,
            seed=settings.seed,
            steps_per_epoch=settings.steps_per_epoch,
            foreground_fraction=settings.foreground_fraction,
        )
        self._validation = ValidationTiles(
            store=store, regions=regions, normalizer=normalizer, tile_size=settings.resolved_tile_size, batch_size=1
        )

    @property
    def batch_size(self) -> int:
        """Tiles per training batch."""
        return self._training.batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._training = replace(self._training, batch_size=value)
        together = VALIDATED_AT_ONCE.get(self._device.type, 1)
        self._validation = replace(self._validation, batch_size=together * value)

    @property
    def steps(self) -> int:
        """Training batches per epoch."""
        return self._training.steps

    @property
    def training_tiles(self) -> int:
        """Tiles in one pass over the training regions."""
        return replace(self._training, batch_size=1, steps_per_epoch=None).steps

    def training(self, epoch: int, *, without_end: bool = False) -> Iterator[Tiles]:
        """The batches of one epoch, augmented; ``without_end``: as many as are taken."""
        random_numbers = torch.Generator().manual_seed(seed_of(self._seed, epoch))
        for batch in self._without_end(epoch) if without_end else self._training.epoch(epoch):
            tiles = self._on_device(batch)
            images, masks = self._augment(tiles.images, tiles.masks, random_numbers)
            yield Tiles(images.contiguous(memory_format=torch.channels_last), masks, tiles.has_ignored)

    def _without_end(self, epoch: int) -> Iterator[Batch]:
        for round_number in itertools.count():
            yield from replace(self._training, steps_per_epoch=STEPS_AT_ONCE).epoch(epoch + round_number * EPOCHS_APART)

    def plain_training(self, epoch: int, *, tiles: int, batch_size: int) -> Iterator[Tiles]:
        """At least so many random tiles of the training images as validation would see them: not augmented, and
        foreground no more often than it is there."""
        steps = math.ceil(tiles / batch_size)
        plain = replace(self._training, batch_size=batch_size, steps_per_epoch=steps, foreground_fraction=0.0)
        for batch in plain.epoch(epoch):
            yield self._on_device(batch)

    def validation(self) -> Iterator[Tiles]:
        """The tiles of the validation set, as they are, some training batches at a time; the last may be short."""
        for batch in self._validation:
            yield self._on_device(batch)

    def validation_by_image(self) -> Iterator[Iterator[Tiles]]:
        """As ``validation``, for each region by itself, in the order of the regions."""
        for region in self._validation.regions:
            if region.subset == "validation":
                yield (self._on_device(batch) for batch in replace(self._validation, regions=(region,)))

    def _on_device(self, batch: Batch) -> Tiles:
        """Normalised on the device: of 8-bit images a quarter of the bytes travels."""
        scale = self._sent(batch.scale)[:, :, None, None]
        offset = self._sent(batch.offset)[:, :, None, None]
        images = (self._sent(batch.images) * scale).add_(offset)
        return Tiles(images.contiguous(memory_format=torch.channels_last), self._sent(batch.masks), batch.has_ignored)

    def _sent(self, array: NDArray[Any]) -> Tensor:
        return sent(torch.from_numpy(array), self._device)
