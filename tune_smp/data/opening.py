"""From settings to images: the pairs that they name, and the store of their decoded pixels."""

from __future__ import annotations

from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.pairing.pairs import Collection
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.settings.data import DataSettings
from tune_smp.settings.label_colors import label_colors


def find_collection(settings: DataSettings) -> Collection:
    """The images, paired with their labels. Raises DataError."""
    return find_pairs(
        settings.images_dir,
        settings.labels_dir,
        images_pattern=settings.images_pattern,
        labels_pattern=settings.labels_pattern,
        allow_unpaired=settings.allow_unpaired,
    )


def open_store(settings: DataSettings, collection: Collection) -> ImageStore:
    """The decoded images, from the cache where they are in it. Raises DataError, ResourceError."""
    return open_or_build(
        collection,
        mode=settings.segmentation_mode,
        ignore_value=settings.ignore_value,
        cache_dir=settings.cache_dir,
        skip_corrupt=settings.skip_corrupt,
        label_colors=label_colors(settings.label_colors),
    )
