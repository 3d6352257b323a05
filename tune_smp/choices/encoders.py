"""The encoders: families, names, weights, and which architectures they can serve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tune_smp.choices.architectures import ARCHITECTURES, Architecture

TABLE = Path(__file__).with_name("encoders.txt")

RANDOM = "random"
"""The word for no pretrained weights; every encoder has it."""

PATCH_SIZE = 16
"""Height and width (px) of what a plain vision transformer sees as one: with 14, smp's DPT does not fit together."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """One encoder.

    ``name`` is what users write, ``smp_name`` what smp is given. ``weights`` are the pretrained weights that exist,
    without ``random``. ``unet_parameters`` counts a whole Unet (three channels in, one out; for an encoder without a
    pyramid: a DPT). ``can_dilate``: gives an output stride below 32. ``has_pyramid``: gives features at several
    scales. ``tile_size``: the only height and width (px) that it accepts, if it accepts only one.
    """

    family: str
    name: str
    smp_name: str
    weights: tuple[str, ...]
    unet_parameters: int
    can_dilate: bool = True
    has_pyramid: bool = True
    tile_size: int | None = None

    @property
    def through_timm(self) -> bool:
        """Built by smp's universal timm encoder."""
        return self.smp_name.startswith("tu-")

    @property
    def output_strides(self) -> tuple[int, ...]:
        """By how much (px per feature) its last features can be coarser than the image."""
        if not self.has_pyramid:
            return (PATCH_SIZE,)
        return (8, 16, 32) if self.can_dilate else (32,)


# Families whose networks cannot keep their last features finer than 32 px, and those that give one scale only.
_NOT_DILATED = frozenset(
    {"DenseNet", "Inception", "VGG", "Swin", "MaxViT", "PVT", "HRNet", "CAFormer", "HGNet", "SAM2", "ViT"}
)
_WITHOUT_PYRAMID = frozenset({"ViT"})


def _encoders() -> Iterator[Encoder]:
    lines = TABLE.read_text("utf-8").splitlines()
    for line in [line for line in lines if not line.startswith("#")][1:]:
        family, name, parameters, tile_size, weights, *smp_name = line.split()
        yield Encoder(
            family=family,
            name=name,
            smp_name=smp_name[0] if smp_name else name,
            weights=() if weights == "-" else tuple(weights.split(",")),
            unet_parameters=int(parameters),
            can_dilate=family not in _NOT_DILATED,
            has_pyramid=family not in _WITHOUT_PYRAMID,
            tile_size=None if tile_size == "-" else int(tile_size),
        )


ENCODERS: Mapping[str, Encoder] = MappingProxyType({row.name: row for row in _encoders()})
_BY_SMP_NAME = {row.smp_name: row for row in ENCODERS.values()}


def find_encoder(name: str) -> Encoder | None:
    """The encoder of this name, old or of today (``timm-resnest14d`` and ``tu-resnest14d`` are one)."""
    return ENCODERS.get(name) or _BY_SMP_NAME.get(name)


def unbuildable(architecture: Architecture, encoder: Encoder) -> str | None:
    """Say why this pair cannot be built; None where it can."""
    if architecture.timm_only and not encoder.through_timm:
        return f"{architecture.name} takes only encoders that come through timm"
    if encoder.family in architecture.refused_families:
        return f"{architecture.name} refuses encoders of the family {encoder.family}"
    if architecture.dilates_encoder and not encoder.can_dilate:
        return f"{architecture.name} dilates its encoder, and encoders of the family {encoder.family} cannot be dilated"
    if not architecture.timm_only and not encoder.has_pyramid:
        return f"{architecture.name} needs features at several scales; encoders of the family {encoder.family} give one"
    return None


def partner_architectures(encoder: Encoder) -> tuple[str, ...]:
    """Names of the architectures that can be built with this encoder."""
    return tuple(name for name, row in ARCHITECTURES.items() if unbuildable(row, encoder) is None)


def partner_encoders(architecture: Architecture) -> tuple[str, ...]:
    """Names of the encoders that this architecture can be built with."""
    return tuple(name for name, row in ENCODERS.items() if unbuildable(architecture, row) is None)
