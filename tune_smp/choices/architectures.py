"""The architectures of segmentation-models-pytorch and what each asks of its encoder and of a tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture.

    ``divisor`` divides the height and width (px) of every tile, ``min_tile_size`` is the smallest tile (px) that a
    forward pass survives. ``dilates_encoder``: asks the encoder for an output stride below 32, which some encoders
    cannot give. ``timm_only``: takes only encoders that smp builds through timm (``tu-`` names). ``refused_families``
    are families of encoders that its constructor refuses. ``pools_to_one_pixel``: has batch normalisation behind a
    global pooling, so that a training batch of one has nothing to normalise over.

    ``encoder_depth`` is how often its encoder halves the image, ``least_depth`` the least that it can do with.
    ``decoder_channels`` is the width of its decoder, a multiple of ``channels_step``; None: that follows from the
    encoder. smp calls it ``width_argument``. ``halves_width``: it is the width of the decoder's coarsest level, and
    each finer one has half of it.
    ``takes_attention``: its decoder can weigh its features.
    """

    name: str
    summary: str
    divisor: int = 32
    min_tile_size: int = 32
    dilates_encoder: bool = False
    timm_only: bool = False
    refused_families: frozenset[str] = frozenset()
    pools_to_one_pixel: bool = False
    encoder_depth: int = 5
    least_depth: int = 5
    decoder_channels: int | None = 256
    channels_step: int = 8
    width_argument: str = "decoder_channels"
    halves_width: bool = False
    takes_attention: bool = False

    def own_width(self, depth: int) -> int | None:
        """The width of the decoder, in channels, at this depth of the encoder, where none is asked for."""
        if self.decoder_channels is None or not self.halves_width:
            return self.decoder_channels
        return self.decoder_channels >> (self.encoder_depth - depth)

    def smp_arguments(self, *, depth: int, width: int | None, attention: str) -> dict[str, Any]:
        """What smp's constructor is given for this depth of the encoder, and this width and attention of the decoder.

        A Unet of width 64 and depth 3 has a decoder of 64, 32 and 16 channels; below 16 no level of it goes.
        """
        arguments: dict[str, Any] = {"encoder_depth": depth}
        if self.takes_attention:
            arguments["decoder_attention_type"] = None if attention == NO_ATTENTION else attention
        if width is None:
            return arguments
        if self.halves_width:
            arguments["decoder_channels"] = tuple(max(width >> level, LEAST_CHANNELS) for level in range(depth))
        else:
            arguments[self.width_argument] = width
        if self.name == "FPN":
            arguments["decoder_segmentation_channels"] = width // 2
        return arguments


LEAST_CHANNELS = 16
"""Channels of a Unet's finest levels, where halving would go below."""
NO_ATTENTION = "none"
MOST_CHANNELS = 1024
"""Channels of a decoder above which it only costs."""

_NO_MIX_VISION = frozenset({"MixVision"})

# Divisors: what smp's own shape check asks with its default depth and output stride. Unet has no such check, but its
# tiles follow the rule of the others, so that changing the architecture never changes which tiles are legal for the
# worse.
_ROWS = (
    Architecture(
        "Unet",
        "symmetric encoder and decoder with skip connections; the sturdy default",
        least_depth=3,
        halves_width=True,
        takes_attention=True,
    ),
    Architecture(
        "UnetPlusPlus",
        "Unet with nested, dense skip connections; finer, slower",
        refused_families=_NO_MIX_VISION,
        least_depth=3,
        halves_width=True,
        takes_attention=True,
    ),
    Architecture("MAnet", "Unet with attention over position and scale", least_depth=3, halves_width=True),
    Architecture(
        "Linknet",
        "Unet that adds instead of concatenating; small and fast",
        refused_families=_NO_MIX_VISION,
        least_depth=3,
        decoder_channels=None,
    ),
    # smp normalises half of these channels in groups of a 32nd.
    Architecture(
        "FPN",
        "feature pyramid; predicts at a quarter of the size and enlarges",
        channels_step=64,
        width_argument="decoder_pyramid_channels",
    ),
    Architecture(
        "PSPNet",
        "pyramid pooling on a shallow encoder; fast, coarse borders",
        divisor=8,
        encoder_depth=3,
        least_depth=3,
        decoder_channels=512,
        width_argument="psp_out_channels",
    ),
    Architecture(
        "PAN",
        "pyramid attention on a dilated encoder",
        divisor=16,
        min_tile_size=128,
        dilates_encoder=True,
        pools_to_one_pixel=True,
        decoder_channels=32,
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
    Architecture("UPerNet", "feature pyramid with pyramid pooling on top", pools_to_one_pixel=True, least_depth=3),
    Architecture(
        "Segformer",
        "light decoder of per-pixel linear layers",
        least_depth=3,
        width_argument="decoder_segmentation_channels",
    ),
    Architecture(
        "DPT",
        "dense prediction transformer; the one for plain vision transformers",
        timm_only=True,
        encoder_depth=4,
        least_depth=4,
        width_argument="decoder_fusion_channels",
    ),
)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({row.name: row for row in _ROWS})
