"""What every command does before it begins: find, pair and decode the files, and split them."""

from __future__ import annotations

from dataclasses import dataclass

from tune_smp.data.findings import describe_collection, inspect_split
from tune_smp.data.opening import find_collection, open_store
from tune_smp.data.pairing.collection import Collection
from tune_smp.data.split import Region, read_split, split_groups, split_regions, write_split
from tune_smp.data.store.image_store import ImageStore
from tune_smp.results.folder import RunFolder
from tune_smp.settings.data import DataSettings
from tune_smp.settings.run import RunFlags
from tune_smp.workflows.printing import note, output


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The image store of a collection, and which regions of it train and which validate."""

    store: ImageStore
    regions: tuple[Region, ...]


def prepare(settings: RunFlags, folder: RunFolder) -> PreparedData:
    """Find, decode and split the collection, say what is in it, and write split.csv. Raises DataError."""
    collection = find(settings)
    store = decode(settings, collection)
    regions = split(settings, store)
    note(inspect_split(store, regions))
    write_split(folder.split, regions, store.collection, split_groups(store.collection, settings.group_by))
    for line in describe_collection(store, regions):
        output.print(line)
    return PreparedData(store, regions)


def reopen(settings: RunFlags, folder: RunFolder) -> PreparedData:
    """The same data as an earlier session had, split as split.csv says. Raises DataError."""
    store = decode(settings, find(settings))
    return PreparedData(store, read_split(folder.split, store.collection))


def find(settings: DataSettings) -> Collection:
    """The images, paired with their labels; what is odd about them is printed. Raises DataError."""
    collection = find_collection(settings)
    note(collection.notes)
    return collection


def decode(settings: DataSettings, collection: Collection) -> ImageStore:
    """The decoded images; what is odd about them is printed. Raises DataError, ResourceError."""
    store = open_store(settings, collection)
    note(store.notes)
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
