"""Preparing the data, as every command does before it begins: find, pair, decode and split."""

from __future__ import annotations

from dataclasses import dataclass

from tune_smp.data.findings import describe_collection, inspect_split
from tune_smp.data.opening import find_collection, open_store
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


@dataclass(frozen=True, slots=True)
class Findings:
    """A collection as found: the ``data``, a description in ``lines``, what is odd in ``notes``."""

    data: PreparedData
    lines: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.data.store)

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self.data.store.channels


def prepare(settings: RunFlags, folder: RunFolder) -> PreparedData:
    """Find, decode and split the collection, say what is in it, and write split.csv. Raises DataError."""
    data = look_at(settings).data
    groups = split_groups(data.store.collection, settings.group_by)
    write_split(folder.split, data.regions, data.store.collection, groups)
    return data


def look_at(settings: DataSettings) -> Findings:
    """Find, decode and split a collection, and print what is in it and what is odd about it. Raises DataError."""
    store, notes = decode(settings)
    regions = split_anew(store, settings, seed=settings.resolved_split_seed)
    lines = describe_collection(store, regions)
    for line in lines:
        output.print(line)
    of_split = inspect_split(store, regions)  # raises: what there is has been printed by then
    note(of_split)
    return Findings(PreparedData(store, regions), tuple(lines), (*notes, *of_split))


def split_anew(store: ImageStore, settings: DataSettings, *, seed: int) -> tuple[Region, ...]:
    """Split the images as this seed has it. Raises DataError, SettingsError where they cannot be split."""
    return split_regions(
        store.sizes,
        split_groups(store.collection, settings.group_by),
        names=[pair.name for pair in store.pairs],
        train_fraction=settings.train_fraction,
        seed=seed,
    )


def reopen(settings: RunFlags, folder: RunFolder) -> PreparedData:
    """The same data as an earlier session had, split as split.csv says. Raises DataError."""
    store, _ = decode(settings)
    return PreparedData(store, read_split(folder.split, store.keys))


def decode(settings: DataSettings) -> tuple[ImageStore, tuple[str, ...]]:
    """The images, paired with their labels and decoded, and what is odd, which is printed. Raises DataError,
    ResourceError."""
    collection = find_collection(settings)
    note(collection.notes)
    store = open_store(settings, collection)
    note(store.notes)
    return store, (*collection.notes, *store.notes)
