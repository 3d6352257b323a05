"""Command lines and search spaces that tests share."""

from __future__ import annotations

from typing import Any

from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.space import SearchSpace

REQUIRED = {
    "imagesDir": "/data/images",
    "labelsDir": "/data/labels",
    "imagesPattern": "img_{i:d+}.tif",
    "labelsPattern": "mask_{i:d+}.tif",
    "segmentationMode": "binary",
    "outputDir": "/out",
}
"""The flags without a default, by name."""

SWIN = "Swin,tu-swin_tiny_patch4_window7_224,random"
VIT = "ViT,tu-vit_tiny_patch16_224,random"


def under(space: SearchSpace, mode: str = "binary", **flags: Any) -> SearchSpace:
    """The space under a command line, as ``tune-smp search`` reads it."""
    line = SearchSettings.from_flags({**REQUIRED, "segmentationMode": mode, **flags})
    return space.with_flags(line.given_run_flags())
