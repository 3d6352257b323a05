"""The files of an image store.

    index.json            class map and notes
    collection.json       the pairs: names, files and variables
    images.bin masks.bin  pixels (C, H, W) one after the other, images each in their own dtype, masks uint8
    *.npy                 one row per pair: where its image and mask lie, statistics, pixel counts, foreground places

Tables and pixels are read by memory map. The list of pairs is read only when it is needed: of 10,000 it takes a quarter
of a second. Nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.labels import ClassMap
from tune_smp.data.pairing.pairs import Collection, Pair

FORMAT_VERSION = 4  # raised when older stores must be built anew
ALIGNMENT = 64  # bytes; an array that begins at a cache line
INDEX, COLLECTION, IMAGES, MASKS = "index.json", "collection.json", "images.bin", "masks.bin"
STATISTICS = ("minimum", "maximum", "mean", "std", "low", "high")  # fields of ChannelStatistics, one number per channel
TABLES = (
    *("pair_keys", "image_places", "image_dtypes", "mask_places"),
    *("statistics", "quantiles", "class_pixels", "totals", "foreground", "foreground_starts"),
)


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


def places_of(extents: Sequence[Extent]) -> NDArray[np.int64]:
    """(n, 4) offset, channels, height and width of each."""
    return np.array([(extent.offset, *extent.shape) for extent in extents], np.int64)


def dtypes_of(extents: Sequence[Extent]) -> NDArray[np.bytes_]:
    """(n,) the dtype of each, as numpy writes it."""
    return np.array([extent.dtype for extent in extents], np.bytes_)


def extent_at(place: NDArray[np.int64], dtype: str) -> Extent:
    """The extent of a row of ``places_of``."""
    offset, channels, height, width = place.tolist()
    return Extent(offset, (channels, height, width), dtype)


@dataclass(frozen=True)
class StoreIndex:
    """The content of index.json. ``collection_bytes`` is the length of collection.json, which is not read with it."""

    class_map: ClassMap
    notes: tuple[str, ...]
    collection_bytes: int

    def write(self, folder: Path) -> None:
        """Write index.json, last of all files of a store."""
        document = {
            "format_version": FORMAT_VERSION,
            "class_map": self.class_map.to_json(),
            "notes": self.notes,
            "collection_bytes": self.collection_bytes,
        }
        (folder / INDEX).write_text(json.dumps(document), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raise OSError, ValueError, KeyError or TypeError where the file is missing or damaged, or collection.json has
        another length than was written."""
        document = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if document["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format {document['format_version']}, not {FORMAT_VERSION}")
        if (folder / COLLECTION).stat().st_size != document["collection_bytes"]:
            raise ValueError(f"{COLLECTION} is not the one that was written")
        return cls(
            class_map=ClassMap.from_json(document["class_map"]),
            notes=tuple(document["notes"]),
            collection_bytes=document["collection_bytes"],
        )


def write_collection(folder: Path, collection: Collection) -> int:
    """Write collection.json; its bytes."""
    return (folder / COLLECTION).write_text(
        json.dumps(collection_to_json(collection), default=str, ensure_ascii=True), encoding="ascii"
    )


def read_collection(folder: Path) -> Collection:
    """Raise OSError, ValueError, KeyError or TypeError where the file is missing or damaged."""
    return _collection_from_json(json.loads((folder / COLLECTION).read_text(encoding="ascii")))


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
