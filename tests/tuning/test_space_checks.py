"""Whether a whole space is legal: found before the first trial, with the lines and the ways out."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from tests.flags import SWIN, VIT, under
from tune_smp.errors import Problem, SettingsError
from tune_smp.tuning.space import Domain, Range, Scalar, SearchSpace
from tune_smp.tuning.space_checks import check_space
from tune_smp.tuning.space_file import named_spaces, parse_space, read_space

NAMES = sorted(named_spaces())


def space_of(text: str, mode: str = "binary", **flags: Any) -> SearchSpace:
    return under(parse_space(text, name="mine.yaml"), mode, **flags)


def refused(space: SearchSpace) -> tuple[Problem, ...]:
    """The problems with the space; fails where there are none."""
    with pytest.raises(SettingsError) as caught:
        check_space(space)
    return caught.value.problems


def only(space: SearchSpace) -> Problem:
    (problem,) = refused(space)
    return problem


def test_the_largest_space_is_checked_within_a_second() -> None:
    space = under(read_space("thorough"))

    def seconds() -> float:
        started = time.process_time()
        check_space(space)
        return time.process_time() - started

    assert min(seconds() for _ in range(3)) < 1, "the least of three: other programs share the cores"


LEGAL_LINES = [
    {"encoderBaseVariantWeights": "VGG,vgg16,imagenet"},
    {"optimizerName": "LBFGS"},
    {"optimizerName": "SGD", "momentum": 0.9},
    {"lossName": "TverskyLoss"},
    {"lossName": "FocalLoss", "focalGamma": 3},
    {"tileSize": 128},
    {"tileSize": 224},
    {"modelName": "PAN"},
    {"batchSize": 1, "maxEpochs": 1, "patience": 1, "learningRate": 0.1},
    {"schedule": "constant", "augmentation": "none", "normalization": "none", "stepsPerEpoch": 1},
    {"modelName": "DPT", "encoderBaseVariantWeights": "ConvNeXt,tu-convnext_atto,random"},
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("flags", LEGAL_LINES, ids=lambda flags: " ".join(map(str, flags.values())))
def test_shipped_spaces_go_with_flags_that_make_sense(name: str, flags: dict[str, Any]) -> None:
    space = under(read_space(name), **flags)
    check_space(space)
    chance = random.Random(0)
    for _ in range(10):
        trial = space.settings(space.walk(lambda _, domain: _some(chance, domain)))
        values = trial.to_json()["values"]
        assert {flag: values[flag] for flag in flags} == flags


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("flags", "problem", "fix"),
    [
        ({"tileSize": 100}, "Unet needs a tile size that divides by 32, got 100", "pass --tileSize 96 or 128"),
        ({"modelName": "PAN", "tileSize": 64}, "PAN needs a tile size that divides by 16", "pass --tileSize 128"),
        ({"momentum": 0.9, "optimizerName": "Adam"}, "Adam has no momentum", "leave --momentum out, or pass"),
        (
            {"focalGamma": 2, "lossName": "DiceLoss"},
            "--focalGamma means something to FocalLoss and DiceFocalLoss only",
            "leave",
        ),
        (
            {"focalGamma": 2},
            "--focalGamma means something to FocalLoss and DiceFocalLoss only",
            "leave --focalGamma out",
        ),
        ({"replaceHead": True}, "--replaceHead works on an earlier model", "pass --pretrainedModel too"),
        ({"modelName": "Unet", "encoderBaseVariantWeights": VIT}, "Unet and tu-vit_tiny_patch16_224 do not go", "DPT"),
        ({"encoderBaseVariantWeights": SWIN, "tileSize": 256}, "works on tiles of 224 px only, got 256", "224"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_flags_that_no_trial_can_have_are_refused(name: str, flags: dict[str, Any], problem: str, fix: str) -> None:
    told = [row for row in refused(under(read_space(name), **flags)) if problem in row.problem]
    assert fix in told[0].fix
    assert all(f"--{flag}" in told[0].where for flag in flags)
    assert "{low" not in told[0].fix, "a flag of the command line takes no condition"
    assert "{value" not in told[0].fix


def test_an_architecture_that_the_encoders_of_the_space_do_not_suit() -> None:
    told = only(under(read_space("fine_tune"), modelName="DPT"))
    assert "DPT takes only encoders that come through timm: DPT and resnet34 do not go together" in told.problem
    assert told.where == "fine_tune, line 15: --modelName DPT, --encoderBaseVariantWeights ResNet,resnet34,imagenet"


def test_an_encoder_that_suits_none_of_the_architectures() -> None:
    told = only(under(read_space("balanced"), encoderBaseVariantWeights=VIT))
    assert told.problem.startswith("no architecture, encoder and tile size of the space go together: Unet needs")
    assert told.where == f"balanced: --modelName Unet, --encoderBaseVariantWeights {VIT}"
    assert "tu-vit_tiny_patch16_224 goes with DPT" in told.fix


def test_a_pretrained_model_has_one_architecture() -> None:
    told = only(under(read_space("balanced"), pretrainedModel="/old"))
    assert "the space searches modelName and encoderBaseVariantWeights" in told.problem
    assert "pass --modelName and --encoderBaseVariantWeights as that model has" in told.fix
    model = {"modelName": "FPN", "encoderBaseVariantWeights": "ResNet,resnet34,imagenet"}
    check_space(under(read_space("balanced"), pretrainedModel="/old", **model))
    check_space(under(read_space("fine_tune"), pretrainedModel="/old"))
    encoder = only(under(read_space("balanced"), pretrainedModel="/old", modelName="FPN"))
    assert encoder.problem.endswith("the space searches encoderBaseVariantWeights")


def test_nothing_is_left_to_search() -> None:
    told = only(space_of("search: {batchSize: [4, 8]}", batchSize=4))
    assert told.problem == "the command line fixes all that the space would search"
    assert "tune-smp train" in told.fix


def test_the_numbers_right_above_zero_follow_another_rule() -> None:
    space = space_of("fixed: {lossName: FocalLoss}\nsearch:\n  focalGamma: {low: 0, high: 5}\n")
    told = only(space)
    assert told.problem == "--focalGamma must be 0 or at least 1, got 0.005: between them gradients are infinite"
    assert told.where.startswith("mine.yaml, line 3: ")
    check_space(space_of("fixed: {lossName: FocalLoss}\nsearch:\n  focalGamma: {low: 1, high: 5}\n"))
    check_space(space_of("fixed: {lossName: FocalLoss}\nsearch:\n  focalGamma: {low: 0, high: 5, step: 1}\n"))


def test_momentum_with_an_optimizer_that_has_none() -> None:
    text = "search:\n  optimizerName:\n    - SGD\n    - Adam\n  momentum: {low: 0.8, high: 0.9%s}\n"
    told = only(space_of(text % ""))
    assert told.problem == "Adam has no momentum"
    assert told.where == "mine.yaml, line 4, 5: --momentum 0.8, --optimizerName Adam"
    assert told.fix.startswith("leave --momentum out, or pass --optimizerName with one of: RMSprop, SGD")
    assert told.fix.endswith("give it a condition, momentum: {low: ..., high: ..., when: {optimizerName: [...]}}")
    check_space(space_of(text % ", when: {optimizerName: [SGD]}"))


def test_a_fixed_number_that_only_some_trials_can_have() -> None:
    told = only(space_of("fixed:\n  momentum: 0.9\nsearch:\n  optimizerName: [SGD, Adam]\n"))
    assert told.where == "mine.yaml, line 2, 4: --momentum 0.9, --optimizerName Adam"
    assert told.fix.endswith("momentum: {choices: [0.9], when: {optimizerName: [...]}}")


def test_losses_and_modes() -> None:
    text = "search:\n  lossName:\n    - DiceLoss\n    - %s\n"
    plain, conditional = "SoftCrossEntropyLoss", "{value: SoftCrossEntropyLoss, when: {segmentationMode: [multiclass]}}"
    check_space(space_of(text % plain, "multiclass"))
    for mode in ("binary", "multilabel"):
        check_space(space_of(text % conditional, mode))
        told = only(space_of(text % plain, mode))
        assert told.problem == f"SoftCrossEntropyLoss exists for multiclass only, not for {mode}"
        assert told.where == f"mine.yaml, line 4: --lossName SoftCrossEntropyLoss, --segmentationMode {mode}"
        assert told.fix.startswith(f"for {mode}, one of: JaccardLoss, DiceLoss")
        assert told.fix.endswith("{value: SoftCrossEntropyLoss, when: {segmentationMode: [...]}}")


def test_an_architecture_that_goes_with_no_encoder_names_the_partners() -> None:
    told = only(
        space_of("search:\n  modelName:\n    - Unet\n    - PAN\n  encoderBaseVariantWeights: ['VGG,vgg16,random']\n")
    )
    assert "PAN and vgg16 do not go together" in told.problem
    assert told.where == "mine.yaml, line 4: --modelName PAN, --encoderBaseVariantWeights VGG,vgg16,random"
    assert "vgg16 goes with Unet, UnetPlusPlus" in told.fix
    assert "PAN goes with encoders of ConvNeXt" in told.fix


def test_an_encoder_that_goes_with_no_architecture() -> None:
    told = only(space_of(f"search:\n  encoderBaseVariantWeights: ['ResNet,resnet18,random',\n    '{VIT}']\n"))
    assert "Unet and tu-vit_tiny_patch16_224 do not go together" in told.problem
    assert told.where.startswith("mine.yaml, line 3: --modelName Unet (the default)")
    check_space(
        space_of(f"search:\n  encoderBaseVariantWeights: ['ResNet,resnet18,random', '{VIT}']\n  modelName: [Unet, DPT]")
    )


def test_a_space_in_which_nothing_goes_together() -> None:
    told = only(space_of("fixed: {modelName: PAN}\nsearch: {encoderBaseVariantWeights: ['VGG,vgg16,random']}\n"))
    assert told.problem.startswith("no architecture, encoder and tile size of the space go together: PAN dilates")
    assert "vgg16 goes with" in told.fix


def test_tile_sizes_that_suit_nobody() -> None:
    told = only(space_of("search:\n  modelName: [Unet, FPN]\n  tileSize: [64, 72]\n"))
    assert told.problem == "Unet needs a tile size that divides by 32, got 72"
    assert told.where == "mine.yaml, line 3: --tileSize 72, --modelName Unet"
    check_space(space_of("search:\n  modelName: [Unet, PSPNet]\n  tileSize: [64, 72]\n"))


def test_an_architecture_that_no_tile_size_suits() -> None:
    told = only(space_of("search:\n  modelName: [Unet, PAN]\n  tileSize: [64, 96]\n"))
    assert told.problem == "PAN needs a tile size that divides by 16 and at least 128 px, got 64"
    assert "line 2" in told.where


def test_an_encoder_whose_tile_size_the_file_forbids() -> None:
    search = f"search:\n  encoderBaseVariantWeights: ['ResNet,resnet18,random', '{SWIN}']\n"
    told = only(space_of(f"fixed: {{tileSize: 256}}\n{search}"))
    assert "works on tiles of 224 px only, got 256" in told.problem
    check_space(space_of(search, tileSize=256))  # the command line leaves it out on purpose
    check_space(space_of(f"{search}  tileSize: [256, 128]\n"))


def _some(chance: random.Random, domain: Domain) -> Scalar:
    if not isinstance(domain, Range):
        return chance.choice(list(domain))
    return chance.choice([domain.low, domain.high])


def test_a_pretrained_model_has_one_depth_and_width() -> None:
    space = "search: {decoderChannels: [256, 64], encoderDepth: [5, 4], batchSize: [4, 8]}"
    told = only(space_of(space, pretrainedModel="/old"))
    assert told.problem.endswith("the space searches encoderDepth and decoderChannels")
    check_space(space_of(space, pretrainedModel="/old", decoderChannels=64, encoderDepth=4))


def test_a_width_is_asked_only_where_the_architecture_has_one() -> None:
    told = only(space_of("search: {modelName: [Unet, Linknet], decoderChannels: [256, 64]}"))
    assert told.problem == "the width of Linknet's decoder follows from its encoder"
    check_space(
        space_of(
            "search: {modelName: [Unet, Linknet], decoderChannels: {choices: [256, 64], when: {modelName: [Unet]}}}"
        )
    )
