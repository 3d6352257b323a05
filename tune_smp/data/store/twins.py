"""Images that are the same picture under several names: in validation one says nothing new about the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.pairing.pairs import Pair
from tune_smp.errors import listing
from tune_smp.texts import shown

Pixels = Callable[[int], NDArray[Any]]
Twins = tuple[tuple[int, ...], ...]


def find_twins(pairs: Sequence[Pair], checksums: Sequence[int | None], image: Pixels) -> Twins:
    """Groups of pairs, by their indices, whose images are equal pixel by pixel though their files are not the same.

    ``checksums`` are of the pixels, None for images that need not be compared: blank ones are all alike.
    """
    alike: dict[int, list[int]] = defaultdict(list)
    for index, checksum in enumerate(checksums):
        if checksum is not None:
            alike[checksum].append(index)
    return tuple(
        tuple(group)
        for indices in alike.values()
        for group in _equal(indices, image)
        if len({pairs[index].images for index in group}) > 1
    )


def _equal(indices: Sequence[int], image: Pixels) -> Iterator[list[int]]:
    """A checksum may be shared by chance: the pixels decide."""
    left = list(indices)
    while len(left) > 1:
        first = image(left[0])
        group = [index for index in left if np.array_equal(image(index), first)]
        if len(group) > 1:
            yield group
        left = [index for index in left if index not in group]


def twin_notes(pairs: Sequence[Pair], twins: Twins, mask: Pixels) -> list[str]:
    """Report which images are the same, and which of these have different labels."""
    contradicting = [group for group in twins if any(not np.array_equal(mask(i), mask(group[0])) for i in group[1:])]
    notes = []
    if twins:
        one = "one picture" if len(twins) == 1 else f"{len(twins)} pictures"
        notes.append(
            f"{sum(map(len, twins))} images are {one} under several names: {_named(pairs, twins)}; "
            "the same picture stays on one side of the split"
        )
    if contradicting:
        notes.append(
            "the same picture has different labels, which contradict each other, in "
            f"{len(contradicting)} of {len(twins)} cases: {_named(pairs, contradicting)}"
        )
    return notes


def _named(pairs: Sequence[Pair], groups: Sequence[tuple[int, ...]]) -> str:
    return listing([" = ".join(shown(pairs[index].name) for index in group) for group in groups], 5)
