"""The work on each file and each pair while an image store is built: look, then decode, check and copy.

Functions of this module run in worker processes. They hold at most one strip of an image and its label.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.channel_statistics import ChannelStatistics, image_statistics
from tune_smp.data.label_looks import WINDOW, LabelLook, look_at
from tune_smp.data.label_values import LabelValues, ValueCounter, label_values
from tune_smp.data.labels import IGNORE, ClassMap
from tune_smp.data.reading.formats import open_image
from tune_smp.data.reading.image_reader import ImageInfo, ImageReader
from tune_smp.data.store.foreground import ForegroundSample, class_pixels, foreground_pixels, value_counts
from tune_smp.data.store.format import IMAGES, MASKS, Extent
from tune_smp.errors import DataError

STRIP_BYTES = 2**26  # decoded in one go
STRIP_ROWS = 1024  # strips are multiples of this where they can: no tile of a tiled file is decoded twice
BLOCK_PIXELS = 2**22  # looked at in one go, some steps need eight bytes per pixel

FaultKind = Literal["unreadable", "planes", "channel_sizes", "sizes", "channels", "not_finite"]


@dataclass(frozen=True)
class Fault:
    """The reason why a file or a pair cannot be used."""

    kind: FaultKind
    name: str
    detail: str


@dataclass(frozen=True)
class Survey:
    """The content of one file; ``values`` of a label only."""

    info: ImageInfo
    values: LabelValues | None = None


@dataclass(frozen=True)
class PlaneTask:
    """One plane of a pair's files, and where its image and mask go."""

    name: str
    plane: int
    image: Extent
    mask: Extent


@dataclass(frozen=True)
class DecodeTask:
    """All planes of one pair, for its files to be opened once. No class map: check the images, write nothing."""

    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    planes: tuple[PlaneTask, ...]
    folder: Path
    class_map: ClassMap | None


@dataclass(frozen=True)
class Decoded:
    """Everything known about an image and its mask, besides their pixels."""

    statistics: ChannelStatistics
    class_pixels: NDArray[np.int64]  # (classes,)
    foreground_pixels: int
    ignored_pixels: int
    places: list[NDArray[np.int32]]  # (n, 2) per class
    checksum: int | None  # of the image's pixels; None: they are all equal


def survey_image(path: Path, size: tuple[int, int] | None = None) -> Survey | Fault:
    """Shape and dtype of an image file, from its header; ``size`` chooses among several images in the file."""
    try:
        with open_image(path, size=size) as reader:
            return Survey(reader.info)
    except DataError as error:
        return _unreadable(error)


def survey_label(path: Path, size: tuple[int, int] | None = None) -> Survey | Fault:
    """Shape, dtype and distinct values of a label file, all planes together."""
    try:
        with open_image(path, size=size) as reader:
            every_plane = range(reader.info.planes)
            blocks = (block for plane in every_plane for _, block in _row_blocks([reader], plane))
            values = replace(
                label_values(path.name, blocks),
                lossy=reader.info.lossy,
                palette=reader.info.palette,
                inverted=reader.info.inverted,
                alpha_values=_alpha_values(reader),
            )
            return Survey(reader.info, values)
    except DataError as error:
        return _unreadable(error)


def _alpha_values(reader: ImageReader) -> int:
    """How many distinct values the alpha channel holds."""
    counter = ValueCounter()
    for plane in range(reader.info.planes if reader.info.alpha else 0):
        alpha = reader.alpha(plane)
        if alpha is not None:
            counter.add(alpha)
    return len(counter.result()[0])


def look_at_label(file: tuple[Path, tuple[int, int]]) -> list[LabelLook]:
    """A closer look at the first plane of a label of this size, channel by channel; at one of three equal ones."""
    path, size = file
    with open_image(path, size=size) as reader:
        label = reader.read(0, slice(0, WINDOW), slice(0, WINDOW))
    if len(label) == 3 and (label == label[:1]).all():
        label = label[:1]
    looks = [look_at(channel) for channel in label]
    return [look for look in looks if look is not None]


def decode(task: DecodeTask) -> list[Decoded | Fault | None]:
    """Copy every plane into the store; None for one that was only checked. Raises OSError when the disk is full."""
    try:
        size = task.planes[0].image.shape[1:]
        with _opened(task.images, size) as images, _opened(task.labels, size) as labels:
            return [_decode_plane(images, labels, plane, task) for plane in task.planes]
    except DataError as error:
        return [_unreadable(error)] * len(task.planes)


def _decode_plane(
    images: Sequence[ImageReader], labels: Sequence[ImageReader], plane: PlaneTask, task: DecodeTask
) -> Decoded | Fault | None:
    try:
        if task.class_map is None:
            checked = _copy_image(images, plane, None)
            return checked if isinstance(checked, Fault) else None
        with (task.folder / IMAGES).open("r+b") as file:
            copied = _copy_image(images, plane, file)
        if isinstance(copied, Fault):
            return copied
        with (task.folder / MASKS).open("r+b") as file:
            return _copy_mask(labels, plane, file, copied, task.class_map)
    except DataError as error:
        return _unreadable(error)


def _unreadable(error: DataError) -> Fault:
    """Readers name the file in ``where``; its folder distinguishes an image from a label of the same name."""
    folder_and_file = Path(error.problems[0].where).parts[-2:]
    return Fault("unreadable", "/".join(folder_and_file), error.problems[0].problem)


def _copy_image(
    images: Sequence[ImageReader], plane: PlaneTask, file: BinaryIO | None
) -> tuple[ChannelStatistics, int] | Fault:
    """Statistics and checksum of an image that was copied; one that is not finite is a fault."""
    not_finite = checksum = 0

    def copied_blocks() -> Iterator[NDArray[Any]]:
        nonlocal not_finite, checksum
        for y, block in _row_blocks(images, plane.plane):
            if block.dtype.kind == "f":
                not_finite += block.size - int(np.count_nonzero(np.isfinite(block)))
            if file is not None:
                _write_rows(file, plane.image, y, block)
                checksum = zlib.crc32(np.ascontiguousarray(block).data, checksum)
            yield block

    statistics = image_statistics(copied_blocks())
    if not_finite:
        return Fault("not_finite", plane.name, f"{not_finite} NaN or infinite pixels")
    return statistics, checksum


def _copy_mask(
    labels: Sequence[ImageReader],
    plane: PlaneTask,
    file: BinaryIO,
    image: tuple[ChannelStatistics, int],
    class_map: ClassMap,
) -> Decoded:
    channels, _, width = plane.mask.shape
    counts = np.zeros((channels, 256), np.int64)
    foreground = 0
    sample = ForegroundSample(class_map)
    for y, block in _row_blocks(labels, plane.plane):
        mask = class_map.encode(_painted(block, labels[0].info.palette) if class_map.colors else block)
        _write_rows(file, plane.mask, y, mask)
        counts += value_counts(mask)
        foreground += foreground_pixels(mask, class_map)
        sample.add(mask, y)
    ignored = int(counts[:, IGNORE].sum())
    statistics, checksum = image
    return Decoded(
        statistics,
        class_pixels(counts, class_map),
        foreground,
        ignored,
        sample.places(width),
        None if statistics.minimum == statistics.maximum else checksum,
    )


def _painted(label: NDArray[Any], palette: Sequence[tuple[int, int, int]]) -> NDArray[np.uint8]:
    """A label of any form as colours (3, H, W): of a palette, or greys."""
    if len(label) == 3:
        return label.astype(np.uint8)
    colors = np.zeros((256, 3), np.uint8) if palette else np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    colors[: len(palette)] = palette or colors[:0]
    return np.moveaxis(colors[label[0]], -1, 0)


@contextmanager
def _opened(paths: Sequence[Path], size: tuple[int, int]) -> Iterator[list[ImageReader]]:
    with ExitStack() as stack:
        yield [stack.enter_context(open_image(path, size=size)) for path in paths]


def _row_blocks(readers: Sequence[ImageReader], plane: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """(y, block (C, h, W)) of one plane from top to bottom, the files' channels stacked; their dtypes lose nothing."""
    info = readers[0].info
    dtype = np.result_type(*(reader.info.dtype for reader in readers))
    channels = sum(reader.info.channels for reader in readers)
    rows = max(1, STRIP_BYTES // (channels * info.width * dtype.itemsize))
    rows = rows - rows % STRIP_ROWS or rows
    step = max(1, BLOCK_PIXELS // info.width)
    for top in range(0, info.height, rows):
        strips = [_read(reader, plane, slice(top, min(top + rows, info.height))) for reader in readers]
        strip = strips[0] if len(strips) == 1 else np.concatenate(strips, dtype=dtype)
        for y in range(0, strip.shape[1], step):
            yield top + y, strip[:, y : y + step]


def _read(reader: ImageReader, plane: int, rows: slice) -> NDArray[Any]:
    return reader.read(plane if reader.info.planes > 1 else 0, rows)


def _write_rows(file: BinaryIO, extent: Extent, y: int, block: NDArray[Any]) -> None:
    """Rows (C, h, W) to their places; written, since a memory map on a full disk kills the process."""
    _, height, width = extent.shape
    for channel, rows in enumerate(block):
        file.seek(extent.offset + (channel * height + y) * width * block.dtype.itemsize)
        file.write(np.ascontiguousarray(rows).data)
