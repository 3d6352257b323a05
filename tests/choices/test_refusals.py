"""Every cell of the product of architectures and encoders: accepted, or refused at once with those it goes with."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tune_smp.choices.architectures import ARCHITECTURES, Architecture
from tune_smp.choices.encoders import ENCODERS, Encoder, partner_architectures, partner_encoders
from tune_smp.errors import SettingsError
from tune_smp.settings.run import RunSettings

HEAVY = ("torch", "timm", "segmentation_models_pytorch", "ray", "optuna", "numpy")


def chosen(architecture: Architecture, encoder: Encoder) -> RunSettings:
    return RunSettings(
        images_dir=Path("/none/images"),
        labels_dir=Path("/none/labels"),
        images_pattern=".*",
        labels_pattern=".*",
        output_dir=Path("/none/output"),
        segmentation_mode="binary",
        model_name=architecture.name,
        encoder_base_variant_weights=f"{encoder.family},{encoder.name},random",
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda row: row.name)
def test_every_pair_is_accepted_or_refused_with_its_partners(architecture: Architecture) -> None:
    partners = partner_encoders(architecture)
    families = {ENCODERS[name].family for name in partners}
    for encoder in ENCODERS.values():
        if encoder.name in partners:
            settings = chosen(architecture, encoder)
            assert settings.resolved_tile_size % architecture.divisor == 0
            continue
        with pytest.raises(SettingsError) as caught:
            chosen(architecture, encoder)
        (problem,) = caught.value.problems
        assert f"{architecture.name} and {encoder.name} do not go together" in problem.problem
        of_encoder, of_architecture = problem.fix.split("; ", maxsplit=1)
        assert of_encoder == f"{encoder.name} goes with {', '.join(partner_architectures(encoder))}"
        named = of_architecture.removeprefix(f"{architecture.name} goes with encoders of ").partition(" (tune-smp")[0]
        assert set(named.split(", ")) == families


REFUSALS = [
    (
        {"modelName": "PAN", "encoderBaseVariantWeights": "VGG,vgg16,imagenet"},
        ["PAN and vgg16 do not go together", "vgg16 goes with Unet, UnetPlusPlus", "PAN goes with encoders of"],
    ),
    (
        {"modelName": "DPT", "encoderBaseVariantWeights": "ResNet,resnet34,imagenet"},
        ["DPT takes only encoders that come through timm", "resnet34 goes with Unet", "ViT"],
    ),
    ({"modelName": "Unett"}, ["did you mean 'Unet'?", "DeepLabV3Plus"]),
    ({"encoderBaseVariantWeights": "ResNet,resnet43,imagenet"}, ["names no encoder that exists", "resnet34"]),
    ({"encoderBaseVariantWeights": "ConvNeXt,tu-convnext_v2_tiny,imagenet"}, ["did you mean 'tu-convnextv2_tiny'?"]),
    (
        {"encoderBaseVariantWeights": "Test,tu-test_efficientnet,imagenet"},
        ["tu-test_efficientnet has no weights 'imagenet'", "one of: random"],
    ),
    (
        {"encoderBaseVariantWeights": "ResNeXt,resnext101_32x48d,imagenet"},
        ["resnext101_32x48d has no weights 'imagenet'", "one of: instagram, random"],
    ),
    (
        {"lossName": "SoftCrossEntropyLoss"},
        ["SoftCrossEntropyLoss exists for multiclass only, not for binary", "for binary, one of: JaccardLoss"],
    ),
    (
        {"encoderBaseVariantWeights": "MaxViT,tu-maxvit_tiny_tf_384,random", "tileSize": 256},
        ["tu-maxvit_tiny_tf_384 works on tiles of 384 px only, got 256", "pass --tileSize 384"],
    ),
]


def words_of(flags: dict[str, Any]) -> list[str]:
    required = {
        "imagesDir": "/none/images",
        "labelsDir": "/none/labels",
        "imagesPattern": ".*",
        "labelsPattern": ".*",
        "outputDir": "/none/output",
        "segmentationMode": "binary",
    }
    return ["train", *(f"--{name}={value}" for name, value in {**required, **flags}.items())]


@pytest.mark.parametrize(("flags", "told"), REFUSALS, ids=lambda value: " ".join(map(str, value)))
def test_the_command_refuses_at_once(flags: dict[str, Any], told: list[str]) -> None:
    """Exit 2 with the way out and nothing heavy loaded, in half a second of CPU time; on a machine where Python takes
    more than a third of that to start with numpy and pydantic, in three times as long as that."""
    program = f"""
import sys
from tune_smp.cli import main
code = main({words_of(flags)!r})
print([name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""

    def attempt(program: str = program) -> tuple[float, subprocess.CompletedProcess[str]]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, finished

    attempts = [attempt()]
    while len(attempts) < 5 and min(seconds for seconds, _ in attempts) >= 0.5:  # neighbours cost CPU time too
        attempts.append(attempt())
    for _, finished in attempts:
        assert finished.returncode == 2
        assert finished.stdout == "[]\n"
        assert all(words in finished.stderr for words in told), finished.stderr
        assert finished.stderr.count("problem: ") == 1
        assert "\nfix:     " in finished.stderr
    least = min(seconds for seconds, _ in attempts)
    assert least < 0.5 or least < 3 * min(attempt("import numpy, pydantic")[0] for _ in attempts)
