"""The files of an image store.

    index.json            collection, class map, notes, and where each image and mask lies
    images.bin masks.bin  pixels (C, H, W) one after the other, images each in their own dtype, masks uint8
    *.npy                 one row per pair: statistics, quantiles, pixel counts, foreground places

All of it is read by memory map, nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.labels import ClassMap
from tune_smp.data.pairing.pairs import Collection, Pair

FORMAT_VERSION = 2  # raised when older stores must be built anew
ALIGNMENT = 64  # bytes; an array that begins at a cache line
INDEX, IMAGES, MASKS = "index.json", "images.bin", "masks.bin"
STATISTICS = ("minimum", "maximum", "mean", "std", "low", "high")  # fields of ChannelStatistics, one number per channel
TABLES = ("statistics", "quantiles", "class_pixels", "totals", "foreground", "foreground_starts")


@dataclass(frozen=True, slots=True)
class Extent:
    """The place of an array in its file."""

    offset: int  # bytes
    shape: tuple[int, int, int]  # (C, H, W)
    dtype: str

    @property
    def end(self) -> int:
        """Byte after the last."""
        return self.offset + math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def of(self, content: NDArray[np.uint8]) -> NDArray[Any]:
        """The array, as a view of the file's bytes."""
        return content[self.offset : self.end].view(self.dtype).reshape(self.shape)


def lay_out(shapes: Iterable[tuple[tuple[int, int, int], np.dtype[Any]]]) -> tuple[Extent, ...]:
    """Extents one after the other."""
    extents: list[Extent] = []
    offset = 0
    for shape, dtype in shapes:
        extents.append(Extent(offset, shape, dtype.str))
        offset = -(-extents[-1].end // ALIGNMENT) * ALIGNMENT
    return tuple(extents)


@dataclass(frozen=True)
class StoreIndex:
    """The content of index.json; extents are in the order of ``collection.pairs``."""

    collection: Collection
    class_map: ClassMap
    images: tuple[Extent, ...]
    masks: tuple[Extent, ...]
    notes: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Write index.json, last of all files of a store."""
        document = {
            "format_version": FORMAT_VERSION,
            "collection": collection_to_json(self.collection),
            "class_map": self.class_map.to_json(),
            "images": [astuple(extent) for extent in self.images],
            "masks": [astuple(extent) for extent in self.masks],
            "notes": self.notes,
        }
        (folder / INDEX).write_text(json.dumps(document, default=str), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raise OSError, ValueError, KeyError or TypeError where the file is missing or damaged."""
        document = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if document["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {document['format_version']}, not {FORMAT_VERSION}")
        return cls(
            collection=_collection_from_json(document["collection"]),
            class_map=ClassMap.from_json(document["class_map"]),
            images=tuple(Extent(offset, tuple(shape), dtype) for offset, shape, dtype in document["images"]),
            masks=tuple(Extent(offset, tuple(shape), dtype) for offset, shape, dtype in document["masks"]),
            notes=tuple(document["notes"]),
        )


def collection_to_json(collection: Collection) -> dict[str, Any]:
    """Everything but the notes, as plain JSON values, or paths."""
    return asdict(replace(collection, notes=()))


def write_tables(folder: Path, tables: Mapping[str, NDArray[Any]]) -> None:
    """One .npy file for each of TABLES."""
    for name in TABLES:
        np.save(folder / f"{name}.npy", tables[name], allow_pickle=False)


def read_tables(folder: Path) -> dict[str, NDArray[Any]]:
    """Memory maps of all tables. Raises OSError or ValueError where one is missing or damaged."""
    return {name: map_file(folder / f"{name}.npy") for name in TABLES}


def map_file(path: Path) -> NDArray[Any]:
    """A .npy file, or the bytes of any other, as a read-only memory map (a plain ndarray: cheaper to slice)."""
    if path.suffix != ".npy":
        return np.memmap(path, np.uint8, mode="r").view(np.ndarray)
    table: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return table.view(np.ndarray)


def flush_to_disk(folder: Path) -> None:
    """Before the folder gets its name: a store that a power cut left half on disk would train on zeros."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _collection_from_json(document: Mapping[str, Any]) -> Collection:
    pairs = (
        Pair(
            name=pair["name"],
            images=tuple(map(Path, pair["images"])),
            labels=tuple(map(Path, pair["labels"])),
            variables=pair["variables"],
            plane=pair["plane"],
        )
        for pair in document["pairs"]
    )
    return Collection(
        pairs=tuple(pairs),
        channel_variable=document["channel_variable"],
        channel_values=tuple(document["channel_values"]),
        class_variable=document["class_variable"],
        class_values=tuple(document["class_values"]),
        twins=tuple(map(tuple, document["twins"])),
        levels=tuple(document["levels"]),
    )
