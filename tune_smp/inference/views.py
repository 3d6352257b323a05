"""The eight ways to lay a square tile: four quarter turns, each plain or mirrored."""

from __future__ import annotations

from torch import Tensor

View = tuple[int, bool]  # quarter turns, mirrored first

VIEWS: tuple[View, ...] = tuple(
    (turns, mirrored) for mirrored in (False, True) for turns in range(4)
)  # the first: as it is


def turned(images: Tensor, view: View) -> Tensor:
    """Images (N, C, T, T) as seen in ``view``."""
    turns, mirrored = view
    seen = images.flip(-1) if mirrored else images
    return seen.rot90(turns, dims=(-2, -1)) if turns else seen  # no turn: rot90 would copy


def turned_back(images: Tensor, view: View) -> Tensor:
    """The inverse of ``turned``."""
    turns, mirrored = view
    straight = images.rot90(-turns, dims=(-2, -1)) if turns else images
    return straight.flip(-1) if mirrored else straight
