"""Views of square tiles: laid in another way, and laid back; and which of the presets is taken."""

from __future__ import annotations

from torch import Tensor

from tune_smp.choices.views import Preset, View
from tune_smp.data.view_gains import ViewGains
from tune_smp.settings.predict import AskedViews


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


def taken_preset(asked: AskedViews, gains: ViewGains | None) -> Preset:
    """The preset asked for; ``auto`` is the one recommended, and none where nothing was measured."""
    if asked != "auto":
        return asked
    return gains.recommended if gains is not None else "none"
