"""The architectures of segmentation-models-pytorch and what each asks of its encoder and of a tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture.

    ``divisor`` divides the height and width (px) of every tile, ``min_tile_size`` is the smallest tile (px) that a
    forward pass survives. ``dilates_encoder``: asks the encoder for an output stride below 32, which some encoders
    cannot give. ``timm_only``: takes only encoders that smp builds through timm (``tu-`` names). ``refused_families``
    are families of encoders that its constructor refuses. ``pools_to_one_pixel``: has batch normalisation behind a
    global pooling, so that a training batch of one has nothing to normalise over.
    """

    name: str
    summary: str
    divisor: int = 32
    min_tile_size: int = 32
    dilates_encoder: bool = False
    timm_only: bool = False
    refused_families: frozenset[str] = frozenset()
    pools_to_one_pixel: bool = False


_NO_MIX_VISION = frozenset({"MixVision"})

# Divisors: what smp's own shape check asks with its default depth and output stride. Unet has no such check, but its
# tiles follow the rule of the others, so that changing the architecture never changes which tiles are legal for the
# worse.
_ROWS = (
    Architecture("Unet", "symmetric encoder and decoder with skip connections; the sturdy default"),
    Architecture(
        "UnetPlusPlus", "Unet with nested, dense skip connections; finer, slower", refused_families=_NO_MIX_VISION
    ),
    Architecture("MAnet", "Unet with attention over position and scale"),
    Architecture("Linknet", "Unet that adds instead of concatenating; small and fast", refused_families=_NO_MIX_VISION),
    Architecture("FPN", "feature pyramid; predicts at a quarter of the size and enlarges"),
    Architecture("PSPNet", "pyramid pooling on a shallow encoder; fast, coarse borders", divisor=8),
    Architecture(
        "PAN",
        "pyramid attention on a dilated encoder",
        divisor=16,
        min_tile_size=128,
        dilates_encoder=True,
        pools_to_one_pixel=True,
    ),
    Architecture(
        "DeepLabV3",
        "atrous pyramid on an encoder of stride 8; slow, wide view",
        divisor=8,
        dilates_encoder=True,
        pools_to_one_pixel=True,
    ),
    Architecture(
        "DeepLabV3Plus",
        "DeepLabV3 with a small decoder for sharper borders",
        divisor=16,
        dilates_encoder=True,
        pools_to_one_pixel=True,
    ),
    Architecture("UPerNet", "feature pyramid with pyramid pooling on top", pools_to_one_pixel=True),
    Architecture("Segformer", "light decoder of per-pixel linear layers"),
    Architecture("DPT", "dense prediction transformer; the one for plain vision transformers", timm_only=True),
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({row.name: row for row in _ROWS})
