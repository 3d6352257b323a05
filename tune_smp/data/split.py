"""The split into training and validation; seeded, saved and read back.

The unit of a split is a group: what must not be on both sides. That is the value of ``--groupBy`` where it is given,
else all pairs that share an image or a label file, such as the planes of one stack. Groups with the same picture are
one. A single group is split in space.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.pairing.pairs import Collection, Pair, relative_name
from tune_smp.errors import DataError, Problem, ResourceError, SettingsError, nearest
from tune_smp.texts import shown
from tune_smp.writing import whole_file

Subset = Literal["train", "validation"]

COLUMNS = ("image", "label", "subset", "group", "y0", "y1", "x0", "x1", "plane")


@dataclass(frozen=True, slots=True)
class Region:
    """Rows y0…y1 and columns x0…x1 (exclusive) of one pair; ``pair`` is the index into Collection.pairs and store."""

    pair: int
    y0: int
    y1: int
    x0: int
    x1: int
    subset: Subset


def split_groups(collection: Collection, group_by: str | None = None) -> tuple[Hashable, ...]:
    """For each pair the group that must stay together.

    Raises:
        SettingsError: ``group_by`` is not a variable of the patterns.
        DataError: all pairs are of one group.
    """
    if group_by is None:
        return _linked(collection.pairs, collection.twins)
    known = sorted({name for pair in collection.pairs for name in pair.variables})
    if group_by not in known:
        problem = f"images can be grouped by a variable of --imagesPattern, which {group_by!r} is not"
        fix = f"{nearest(group_by, known)}variables: {', '.join(known) or 'none'}"
        raise SettingsError(Problem(problem, f"--groupBy {group_by}", fix))
    groups = tuple(pair.variables[group_by] for pair in collection.pairs)
    if len(set(groups)) == 1:
        problem = (
            f"training and validation need at least two groups, all {len(groups)} images have {group_by}={groups[0]}"
        )
        raise DataError(Problem(problem, f"--groupBy {group_by}", "group by another variable, or leave out --groupBy"))
    return _merged(groups, collection.twins)


def split_regions(
    sizes: Sequence[tuple[int, int]],
    groups: Sequence[Hashable] | None = None,
    *,
    names: Sequence[str],
    train_fraction: float,
    seed: int,
) -> tuple[Region, ...]:
    """A region of training or validation for every pair, or one of each where there is a single group.

    The groups in training have as nearly ``train_fraction`` of the pairs as groups can, with at least one on each side.
    Which ones they are depends on the seed and the names alone, not on the order of the pairs. A single group is cut in
    space along the longer axis of each image (planes of one stack at the same place).

    Args:
        sizes: (H, W) of every pair.
        groups: what must stay together, per pair; None: every pair may go its own way.
        names: a name for every pair, no two alike.
        train_fraction: in (0, 1).
        seed: decides which groups go where.

    Raises:
        DataError: a single group whose images are one pixel long cannot be split.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index in sorted(range(len(sizes)), key=lambda index: names[index]):
        members[index if groups is None else groups[index]].append(index)
    if len(members) == 1:
        regions = [part for index, size in enumerate(sizes) for part in _split_in_space(index, size, train_fraction)]
        return tuple(regions)
    training = _drawn(list(members.values()), train_fraction, seed)
    return tuple(
        Region(index, 0, height, 0, width, "train" if index in training else "validation")
        for index, (height, width) in enumerate(sizes)
    )


def write_split(
    path: Path, regions: Sequence[Region], collection: Collection, groups: Sequence[Hashable] | None = None
) -> None:
    """Write regions as CSV, whole or not at all. Several files of one pair stand in one field as a JSON list of names.

    Raises:
        ResourceError: the file cannot be written.
    """
    rows = (_row(region, collection, groups) for region in regions)
    text = io.StringIO(newline="")
    writer = csv.writer(
        text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )  # else a name with a carriage return breaks
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    try:
        with whole_file(path) as temporary:
            temporary.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise ResourceError(Problem(f"the file cannot be written ({error.strerror})", shown(path))) from error


def all_for_training(regions: Sequence[Region]) -> tuple[Region, ...]:
    """The regions with those of validation in training too: nothing is then left that the training has not seen."""
    return (*regions, *(replace(region, subset="train") for region in regions if region.subset == "validation"))


def pair_keys(collection: Collection) -> NDArray[np.uint64]:
    """(n,) a number for each pair, of the names of its files and the plane: what a split finds it by.

    The numbers stand for names of some hundred bytes; that two of 10,000 are alike has a chance of 3 in 10^12.
    """
    files = (_files(pair, collection.levels) for pair in collection.pairs)
    return np.fromiter((_key(*names) for names in files), np.uint64, len(collection.pairs))


def read_split(path: Path, keys: NDArray[np.uint64]) -> tuple[Region, ...]:
    """The regions of a file that ``write_split`` wrote for the same pairs, wherever their folders are now.

    ``keys``: the ``pair_keys``, in the order that ``Region.pair`` counts. Nothing else of a pair is needed, so that
    what a worker holds does not grow with the names of a large collection.

    Raises:
        DataError: the file cannot be read, or does not fit the collection.
    """
    numbers = {key: index for index, key in enumerate(keys.tolist())}
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        regions = tuple(_region(row, numbers) for row in csv.DictReader(io.StringIO(text, newline="")))
    except OSError as error:
        raise DataError(Problem(f"the split cannot be read ({error.strerror})", shown(path))) from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        problem = "the split does not fit these images and labels"
        raise DataError(Problem(problem, f"{shown(path)}: {error}", "split anew: remove the file")) from error
    if missing := len(keys) - len({region.pair for region in regions}):
        raise DataError(Problem(f"the split lacks {missing} of {len(keys)} images", shown(path), "remove the file"))
    return regions


def _merged(groups: tuple[Hashable, ...], twins: Sequence[Sequence[int]]) -> tuple[Hashable, ...]:
    """Groups that hold the same picture are one, unless nothing would be left to split."""
    merged = list(groups)
    for group in twins:
        joined = {merged[index] for index in group}
        merged = [merged[group[0]] if value in joined else value for value in merged]
    return tuple(merged) if len(set(merged)) > 1 else groups


def _linked(pairs: Sequence[Pair], twins: Sequence[Sequence[int]]) -> tuple[Hashable, ...]:
    """Pairs that share a file or a picture, directly or through others, get the same group: the name of one of them."""
    parent = list(range(len(pairs)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first_with: dict[Path, int] = {}
    for index, pair in enumerate(pairs):
        for path in (*pair.images, *pair.labels):
            parent[root(index)] = root(first_with.setdefault(path, index))
    for group in twins:
        for index in group:
            parent[root(index)] = root(group[0])
    return tuple(pairs[root(index)].name for index in range(len(pairs)))


def _drawn(groups: Sequence[Sequence[int]], train_fraction: float, seed: int) -> set[int]:
    """The pairs of the groups drawn for training: of all subsets, one whose size is nearest to ``train_fraction``.

    A subset sum, kept as bits. Groups of 3, 2 and 2 pairs, 60 % of the 7 wanted, which is 4.2:

        reachable   {0}   {0, 3}   {0, 2, 3, 5}   {0, 2, 3, 4, 5, 7}   after none, the first, two, all three
        nearest     4, as neither 0 nor 7 leaves both sides something
        backwards   4 is not in {0, 2, 3, 5}: take the third, 2 are left; 2 is not in {0, 3}: take the second

    >>> sorted(_drawn([[0, 1, 2], [3, 4], [5, 6]], 0.6, seed=0))
    [3, 4, 5, 6]
    """
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    reachable = [1]  # bit s of reachable[n]: some of the first n groups have s pairs together
    for number in order:
        reachable.append(reachable[-1] | reachable[-1] << len(groups[number]))
    total = sum(map(len, groups))
    sums = [size for size in range(1, total) if reachable[-1] >> size & 1]
    left = min(sums, key=lambda size: abs(size - train_fraction * total))
    training: set[int] = set()
    for number, before in zip(reversed(order), reversed(reachable[:-1]), strict=True):
        if not before >> left & 1:  # this sum is not reached without this group
            training.update(groups[number])
            left -= len(groups[number])
    return training


def _split_in_space(index: int, size: tuple[int, int], train_fraction: float) -> tuple[Region, Region]:
    height, width = size
    longer = max(size)
    if longer < 2:
        raise DataError(Problem("a single image of one pixel cannot be split into training and validation"))
    cut = min(max(round(longer * train_fraction), 1), longer - 1)
    if height >= width:
        return Region(index, 0, cut, 0, width, "train"), Region(index, cut, height, 0, width, "validation")
    return Region(index, 0, height, 0, cut, "train"), Region(index, 0, height, cut, width, "validation")


def _row(region: Region, collection: Collection, groups: Sequence[Hashable] | None) -> tuple[object, ...]:
    image, label, plane = _files(collection.pairs[region.pair], collection.levels)
    group = "" if groups is None else groups[region.pair]
    return image, label, region.subset, group, region.y0, region.y1, region.x0, region.x1, plane


def _files(pair: Pair, levels: tuple[int, int]) -> tuple[str, str, int]:
    """Identify a pair: the names of its files, with the folders in the pattern, and the plane."""
    return _joined(pair.images, levels[0]), _joined(pair.labels, levels[1]), pair.plane


def _joined(paths: Iterable[Path], levels: int) -> str:
    names = [relative_name(path, levels) for path in paths]
    return names[0] if len(names) == 1 and not names[0].startswith("[") else json.dumps(names, ensure_ascii=False)


def _key(image: str, label: str, plane: int) -> int:
    return int.from_bytes(hashlib.blake2b(json.dumps([image, label, plane]).encode(), digest_size=8).digest(), "big")


def _region(row: Mapping[str, str], numbers: Mapping[int, int]) -> Region:
    key = _key(row["image"], row["label"], int(row["plane"]))
    if key not in numbers:
        raise ValueError(f"{row['image']!r} with {row['label']!r} is not in the collection")
    if row["subset"] not in ("train", "validation"):
        raise ValueError(f"{row['subset']!r} is neither train nor validation")
    subset: Subset = "train" if row["subset"] == "train" else "validation"
    return Region(numbers[key], int(row["y0"]), int(row["y1"]), int(row["x0"]), int(row["x1"]), subset)
