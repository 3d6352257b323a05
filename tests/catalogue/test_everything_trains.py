"""Everything that the tables promise is built, and makes a step of training. `make test-catalogue`; minutes."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import nn

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.encoders import ENCODERS, find_encoder, partner_architectures

pytestmark = pytest.mark.catalogue

Train = Callable[..., nn.Module]

# The smallest encoder of each family, and of each other implementation within a family: these meet all architectures.
_SMALLEST = """
resnet18 resnext50_32x4d timm-resnest14d timm-res2net50_26w_4s timm-res2next50 timm-regnetx_002 timm-regnety_002
timm-gernet_s se_resnet50 timm-skresnet18 densenet121 inceptionv4 inceptionresnetv2 xception efficientnet-b0
timm-efficientnet-b0 timm-efficientnet-lite0 tu-tf_efficientnetv2_b0 mobilenet_v2 timm-mobilenetv3_small_100
timm-mobilenetv3_small_minimal_100 tu-mobilenetv4_conv_small_050 tu-mobilenetv4_hybrid_medium dpn68 vgg11 vgg11_bn
mit_b0 mobileone_s0 tu-convnext_atto tu-convnextv2_atto tu-swin_tiny_patch4_window7_224 tu-swinv2_tiny_window8_256
tu-vit_tiny_patch16_224 tu-vit_small_patch16_dinov3 tu-maxvit_nano_rw_256 tu-pvt_v2_b0 tu-hrnet_w18_small
tu-caformer_s18 tu-hgnetv2_b0 tu-sam2_hiera_tiny tu-test_efficientnet
"""
REPRESENTATIVES = _SMALLEST.split()
# Two tiles of 32 px leave batch normalisation two values per channel: the gradients of the deepest encoders, random as
# they are here, overflow. Batches and tiles of real runs are larger than that.
TILE_SIZE = 64
PAIRS = [(architecture, encoder) for encoder in REPRESENTATIVES for architecture in ARCHITECTURES]
BUILT = [pair for pair in PAIRS if pair[0] in partner_architectures(ENCODERS[pair[1]])]
REFUSED = [pair for pair in PAIRS if pair not in BUILT]


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_trains(name: str, train: Train) -> None:
    encoder = ENCODERS[name]
    architecture = "Unet" if encoder.has_pyramid else "DPT"
    model = train(architecture, encoder, (2,), tile_size=encoder.tile_size or TILE_SIZE)
    assert sum(parameter.numel() for parameter in model.parameters()) == encoder.unet_parameters


@pytest.mark.parametrize(("architecture", "name"), BUILT)
def test_every_architecture_trains_with_every_family(architecture: str, name: str, train: Train) -> None:
    """On the smallest legal tiles; the last batch of an epoch may be a single one."""
    encoder = ENCODERS[name]
    train(architecture, encoder, (2, 1), tile_size=encoder.tile_size or ARCHITECTURES[architecture].min_tile_size)


@pytest.mark.parametrize(("architecture", "name"), REFUSED)
def test_what_the_rules_refuse_cannot_be_built(architecture: str, name: str) -> None:
    encoder = ENCODERS[name]
    with warnings.catch_warnings(action="ignore"), pytest.raises((ValueError, TypeError, AssertionError)):
        smp.create_model(architecture, encoder.smp_name, None, in_channels=3, classes=1)


def test_every_family_is_represented() -> None:
    families = {encoder.family for encoder in ENCODERS.values()}
    assert {ENCODERS[name].family for name in REPRESENTATIVES} == families


def test_every_surveyed_pair_is_tried(shared_data: Path) -> None:
    survey = shared_data.parent / "arch_encoder.csv"
    if not survey.is_file():
        pytest.skip("the survey of pairs is not beside this clone")
    with survey.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert set(rows[0]) - {"encoder"} == set(ARCHITECTURES)
    found = [find_encoder(row["encoder"]) for row in rows]
    assert {encoder.name for encoder in found if encoder is not None} <= set(REPRESENTATIVES)
    assert None not in found


@pytest.mark.parametrize("name", [name for name in REPRESENTATIVES if ENCODERS[name].has_pyramid])
def test_output_strides_are_those_of_the_table(name: str) -> None:
    encoder = ENCODERS[name]
    size = encoder.tile_size or 64
    with warnings.catch_warnings(action="ignore"), torch.inference_mode():
        for stride in encoder.output_strides:
            built = smp.encoders.get_encoder(encoder.smp_name, weights=None, output_stride=stride).eval()
            assert size // built(torch.zeros(1, 3, size, size))[-1].shape[-1] == stride
