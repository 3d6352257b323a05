"""What every command does before it begins: find, pair and decode the files, and split them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console

from tune_smp.data.collection import Collection, find_pairs
from tune_smp.data.findings import describe_collection, inspect_split
from tune_smp.data.split import Region, read_split, split_groups, split_regions, write_split
from tune_smp.data.store import ImageStore, open_or_build
from tune_smp.results.folder import RunFolder
from tune_smp.settings.data import DataSettings
from tune_smp.settings.run import RunSettings

logger = logging.getLogger(__name__)
# Plain text: file names may hold anything, square brackets too.
console = Console(highlight=False, markup=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The image store of a collection, and which regions of it train and which validate."""

    store: ImageStore
    regions: tuple[Region, ...]


def prepare(settings: RunSettings, folder: RunFolder) -> PreparedData:
    """Find, decode and split the collection, say what is in it, and write split.csv. Raises DataError."""
    collection = find(settings)
    store = open_store(settings, collection)
    regions = split(settings, store)
    tell(inspect_split(store, regions))
    write_split(folder.split, regions, store.collection, split_groups(store.collection, settings.group_by))
    for line in describe_collection(store, regions):
        console.print(line)
    return PreparedData(store, regions)


def reopen(settings: RunSettings, folder: RunFolder) -> PreparedData:
    """The same data as an earlier session had, split as split.csv says. Raises DataError."""
    store = open_store(settings, find(settings))
    return PreparedData(store, read_split(folder.split, store.collection))


def find(settings: DataSettings) -> Collection:
    """The images, paired with their labels. Raises DataError."""
    collection = find_pairs(
        settings.images_folder,
        settings.labels_folder,
        images_pattern=settings.images_pattern,
        labels_pattern=settings.labels_pattern,
        allow_unpaired=settings.allow_unpaired,
    )
    tell(collection.notes)
    return collection


def open_store(settings: DataSettings, collection: Collection) -> ImageStore:
    """The decoded images, from the cache where they are in it. Raises DataError, ResourceError."""
    store = open_or_build(
        collection,
        mode=settings.segmentation_mode,
        ignore_value=settings.ignore_value,
        cache_dir=settings.cache_dir,
        skip_corrupt=settings.skip_corrupt,
    )
    tell(store.notes)
    return store


def split(settings: DataSettings, store: ImageStore) -> tuple[Region, ...]:
    """Which regions train, and which validate. Raises DataError."""
    return split_regions(
        store.sizes,
        split_groups(store.collection, settings.group_by),
        names=[pair.name for pair in store.pairs],
        train_fraction=settings.train_fraction,
        seed=settings.seed,
    )


def tell(notes: Iterable[str]) -> None:
    """Say what the user should know, on the screen and in the log."""
    for note in notes:
        console.print(f"note: {note}")
        logger.info("told: %s", note)
