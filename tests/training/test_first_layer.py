"""Pretrained weights of three channels in a network for any number of channels: what becomes of the first layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from tune_smp.choices.encoders import ENCODERS
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import build_model
from tune_smp.training.weights import WeightSet

MakeSettings = Callable[..., RunSettings]

# One encoder of each kind of code: every class of smp's own, and the ways in which timm's begin.
LIGHT = (
    *("mobilenet_v2", "efficientnet-b0", "mit_b0", "mobileone_s0"),
    *("timm-mobilenetv3_small_075", "timm-regnetx_002", "tu-convnext_atto"),
)
HEAVY = (
    *(
        "resnet18",
        "vgg11_bn",
        "densenet121",
        "timm-efficientnet-b0",
        "timm-skresnet18",
        "dpn68",
        "se_resnet50",
        "xception",
    ),
    *("inceptionv4", "inceptionresnetv2", "timm-resnest14d", "timm-gernet_s", "tu-swin_tiny_patch4_window7_224"),
)
ALL = [*LIGHT, *(pytest.param(name, marks=pytest.mark.slow) for name in HEAVY)]


def cache_weights(name: str) -> None:
    """Random weights of three channels, in the cache as the hub's client lays files out."""
    encoder = ENCODERS[name]
    files = WeightSet(encoder, encoder.weights[0]).files()
    model: nn.Module = (
        timm.create_model(encoder.smp_name.removeprefix("tu-"))
        if encoder.through_timm
        else smp.encoders.get_encoder(encoder.smp_name, weights=None)
    )
    folder = Path(constants.HF_HUB_CACHE) / f"models--{files.repository.replace('/', '--')}"
    commit = files.revision or "c0ffee"
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    (snapshot / "config.json").write_text("{}")


def as_three_channels(images: Tensor) -> Tensor:
    """(N, C, H, W) → (N, 3, H, W): what the published first layer, given this, makes of it is what the adapted one
    must make of the images. The rule: its weights go round the channels, by 3/C; for one channel that is their sum.
    """
    channels = images.shape[1]
    if channels == 1:
        return images.repeat(1, 3, 1, 1)
    mixed = torch.zeros(images.shape[0], 3, *images.shape[2:])
    for channel in range(channels):
        mixed[:, channel % 3] += images[:, channel] * 3 / channels
    return mixed


@pytest.mark.parametrize("name", ALL)
def test_the_first_layer_goes_round_the_channels(name: str, hub_cache: Path, make_settings: MakeSettings) -> None:
    cache_weights(name)
    encoder = ENCODERS[name]
    choice = str(WeightSet(encoder, encoder.weights[0]))
    tile = encoder.tile_size or 64
    settings = make_settings(model_name="FPN", encoder_base_variant_weights=choice, tile_size=tile)

    def encode(images: Tensor) -> list[Tensor]:
        model: Any = build_model(settings, channels=images.shape[1], classes=1)
        with torch.inference_mode():
            features: list[Tensor] = model.encoder.eval()(images)
        # The first are the images themselves; where an encoder has nothing at half the size, smp puts no channels.
        return [feature for feature in features[1:] if feature.numel()]

    for channels in (1, 2, 5):
        images = torch.rand(1, channels, tile, tile, generator=torch.Generator().manual_seed(channels))
        published = encode(as_three_channels(images))
        adapted = encode(images)
        assert len(published) == len(adapted) >= 4
        for found, expected in zip(adapted, published, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
