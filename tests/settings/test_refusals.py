"""Settings of a run that are refused, and in which words: the rule, the value received, the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.losses import LOSSES, MODES
from tune_smp.choices.optimizers import OPTIMIZERS
from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.run import RunSettings

Refuse = Callable[..., tuple[Problem, ...]]


WRONG_VALUES = [
    ("batchSize", 0, "--batchSize must be a whole number >= 1, got 0"),
    ("batchSize", "4.5", "--batchSize must be a whole number >= 1, got 4.5"),
    ("batchSize", True, "--batchSize must be a whole number >= 1, got true"),
    ("batchSize", [4], "--batchSize must be a whole number >= 1, got [4]"),
    ("patience", "-1", "--patience must be a whole number >= 1, got -1"),
    ("maxEpochs", "0", "--maxEpochs must be a whole number >= 1, got 0"),
    ("minDelta", "nan", "--minDelta must be a number >= 0, got nan"),
    ("minDelta", float("inf"), "--minDelta must be a number >= 0, got inf"),
    ("minDelta", "-1e-4", "--minDelta must be a number >= 0, got -1e-4"),
    ("learningRate", "1e999", "--learningRate must be a number > 0, got 1e999"),
    ("learningRate", True, "--learningRate must be a number > 0, got true"),
    ("trainFraction", "1", "--trainFraction must be a number > 0 and < 1, got 1"),
    ("trainFraction", 0, "--trainFraction must be a number > 0 and < 1, got 0"),
    ("overwrite", "maybe", "--overwrite must be true or false, got maybe"),
    ("tileSize", 16, "--tileSize must be a whole number >= 32, got 16"),
    ("seed", 2**32, "--seed must be a whole number >= 0 and < 4294967296, got 4294967296"),
    ("dashboardPort", "70000", "--dashboardPort must be a whole number >= 1 and <= 65535, got 70000"),
    ("imagesDir", "a\0b", "--imagesDir must be a path, got 'a\\x00b'"),
    ("imagesDir", 3, "--imagesDir must be a path, got 3"),
    ("imagesPattern", 3, "--imagesPattern must be text that is not empty, got 3"),
]


@pytest.mark.parametrize(("flag", "value", "problem"), WRONG_VALUES)
def test_wrong_values(flag: str, value: Any, problem: str, refused: Refuse) -> None:
    (only,) = refused({flag: value})
    assert only.problem == problem
    assert only.fix.startswith("pass ")


@pytest.mark.parametrize(
    ("flag", "value", "fix"),
    [
        ("modelName", "unet", "did you mean 'Unet'? one of: Unet, UnetPlusPlus"),
        ("lossName", "JacardLoss", "did you mean 'JaccardLoss'? one of: JaccardLoss, DiceLoss"),
        ("metricName", "iou", "did you mean 'IoU'? one of: IoU, Fscore, Accuracy, Recall, Precision"),
        ("optimizerName", "adamw", "did you mean 'AdamW'? one of: Adadelta"),
        ("schedule", "cosin", "did you mean 'cosine'? one of: constant, cosine"),
        ("augmentation", "heavy", "one of: none, light, medium, strong"),
        ("normalization", "z-score", "did you mean 'zscore'? one of: percentile, zscore, minmax, none"),
        ("segmentationMode", "multi-class", "did you mean 'multiclass'? one of: binary, multilabel, multiclass"),
        ("device", "cuda", "one of: auto, cpu, gpu"),
        ("precision", "float64", "did you mean 'float16'? one of: auto, float32, bfloat16, float16"),
    ],
)
def test_misspelt_names(flag: str, value: str, fix: str, refused: Refuse) -> None:
    (only,) = refused({flag: value})
    assert only.problem == f"--{flag} has no choice {value!r}"
    if flag == "precision":
        fix = fix.partition("? ")[2]  # which of the float formats is nearest does not matter
        assert fix in only.fix
    else:
        assert only.fix.startswith(fix)


@pytest.mark.parametrize(
    ("choice", "problem", "fix"),
    [
        ("ResNet,resnet43,imagenet", "names no encoder that exists: 'resnet43'", "resnet34"),
        ("ResNet,resnet43,imagenet", "names no encoder that exists: 'resnet43'", "tune-smp show encoders"),
        ("ResNet,ResNet34,imagenet", "names no encoder that exists: 'ResNet34'", "did you mean 'resnet34'?"),
        ("resnet34", "must be three words with commas between them, got resnet34", "ResNet,resnet34,imagenet"),
        ("ResNet,resnet34,", "must be three words", "ResNet,resnet34,imagenet"),
        ("VGG,resnet34,imagenet", "resnet34 is of the family ResNet, got 'VGG'", '"ResNet,resnet34,imagenet"'),
        (
            "ResNeXt,resnext101_32x48d,imagenet",
            "resnext101_32x48d has no weights 'imagenet'",
            "one of: instagram, random",
        ),
        ("Test,tu-test_efficientnet,imagenet", "tu-test_efficientnet has no weights 'imagenet'", "one of: random"),
        ("ResNet,resnet34,None", "resnet34 has no weights 'None'", "one of: imagenet, random"),
    ],
)
def test_wrong_encoders(choice: str, problem: str, fix: str, refused: Refuse) -> None:
    (only,) = refused({"encoderBaseVariantWeights": choice})
    assert "--encoderBaseVariantWeights" in only.problem
    assert problem in only.problem
    assert fix in only.fix


def test_wrong_family_and_wrong_weights_are_told_together(refused: Refuse) -> None:
    family, weights = refused({"encoderBaseVariantWeights": "ResNet,resnext101_32x48d,imagenet"})
    assert family.fix == 'pass "ResNeXt,resnext101_32x48d,instagram"'
    assert weights.fix == "one of: instagram, random"


def test_a_pair_that_cannot_be_built_names_the_partners(refused: Refuse) -> None:
    (only,) = refused({"modelName": "PAN", "encoderBaseVariantWeights": "VGG,vgg16,imagenet"})
    assert "PAN and vgg16 do not go together" in only.problem
    assert only.where == "--modelName PAN, --encoderBaseVariantWeights VGG,vgg16,imagenet"
    assert "vgg16 goes with Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet, UPerNet, Segformer" in only.fix
    assert "PAN goes with encoders of ConvNeXt, DPN, EfficientNet" in only.fix


@pytest.mark.parametrize(
    ("flags", "problem", "fix"),
    [
        ({"tileSize": 100}, "Unet needs a tile size that divides by 32, got 100", "pass --tileSize 96 or 128"),
        ({"tileSize": 33}, "Unet needs a tile size that divides by 32, got 33", "pass --tileSize 32 or 64"),
        ({"tileSize": 36, "modelName": "PSPNet"}, "PSPNet needs a tile size that divides by 8, got 36", "32 or 40"),
        ({"tileSize": 130, "modelName": "DeepLabV3Plus"}, "that divides by 16, got 130", "128 or 144"),
        ({"tileSize": 64, "modelName": "PAN"}, "divides by 16 and at least 128 px, got 64", "pass --tileSize 128"),
        (
            {"tileSize": 256, "encoderBaseVariantWeights": "Swin,tu-swin_tiny_patch4_window7_224,random"},
            "tu-swin_tiny_patch4_window7_224 works on tiles of 224 px only, got 256",
            "pass --tileSize 224, or leave --tileSize out",
        ),
    ],
)
def test_tiles_that_do_not_fit(flags: dict[str, Any], problem: str, fix: str, refused: Refuse) -> None:
    (only,) = refused(flags)
    assert problem in only.problem
    assert fix in only.fix
    assert f"--tileSize {flags['tileSize']}" in only.where


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(list(ARCHITECTURES)), size=st.integers(32, 2000))
def test_a_suggested_tile_is_accepted(name: str, size: int) -> None:
    flags = {
        "imagesDir": "a",
        "labelsDir": "b",
        "imagesPattern": "c",
        "labelsPattern": "d",
        "outputDir": "e",
        "segmentationMode": "binary",
        "modelName": name,
        "encoderBaseVariantWeights": "Test,tu-test_efficientnet,random",
    }
    architecture = ARCHITECTURES[name]
    if size % architecture.divisor == 0 and size >= architecture.min_tile_size:
        assert RunSettings.from_flags({**flags, "tileSize": size}).tile_size == size
        return
    with pytest.raises(SettingsError) as caught:
        RunSettings.from_flags({**flags, "tileSize": size})
    (problem,) = caught.value.problems
    suggestions = problem.fix.removeprefix("pass --tileSize ").split(" or ")
    for suggestion in suggestions:
        assert RunSettings.from_flags({**flags, "tileSize": suggestion}).tile_size == int(suggestion)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=lambda row: row.name)
@pytest.mark.parametrize("mode", MODES)
def test_losses_and_modes(loss: Any, mode: str, required: dict[str, Any], refused: Refuse) -> None:
    flags = {**required, "lossName": loss.name, "segmentationMode": mode}
    if mode in loss.modes:
        assert RunSettings.from_flags(flags).loss is loss
    else:
        (only,) = refused(flags)
        assert only.problem == f"SoftCrossEntropyLoss exists for multiclass only, not for {mode}"
        assert "JaccardLoss, DiceLoss, TverskyLoss" in only.fix


@pytest.mark.parametrize("field", ["tverskyAlpha", "tverskyBeta", "focalGamma"])
def test_numbers_of_another_loss(field: str, refused: Refuse, required: dict[str, Any]) -> None:
    (only,) = refused({field: 1})
    owners = ["FocalLoss", "DiceFocalLoss"] if field == "focalGamma" else ["TverskyLoss"]
    assert only.problem == f"--{field} means something to {' and '.join(owners)} only"
    assert only.where == f"--{field} 1.0, --lossName JaccardLoss (the default)"
    for owner in owners:
        RunSettings.from_flags({**required, field: 1, "lossName": owner})


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=lambda row: row.name)
def test_numbers_of_optimizers(optimizer: Any, required: dict[str, Any]) -> None:
    for flag, has, words in (
        ("momentum", optimizer.has_momentum, "has no momentum"),
        ("weightDecay", optimizer.has_weight_decay, "has no weight decay"),
    ):
        flags = {**required, "optimizerName": optimizer.name, flag: "0.5"}
        if has:
            RunSettings.from_flags(flags)
        else:
            with pytest.raises(SettingsError, match=f"{optimizer.name} {words}"):
                RunSettings.from_flags(flags)


def test_a_head_is_replaced_on_a_model_only(refused: Refuse, required: dict[str, Any]) -> None:
    (only,) = refused({"replaceHead": "true"})
    assert "--pretrainedModel" in only.fix
    RunSettings.from_flags({**required, "replaceHead": True, "pretrainedModel": "/old"})


def test_float16_needs_a_gpu(refused: Refuse, required: dict[str, Any]) -> None:
    (only,) = refused({"device": "cpu", "precision": "float16"})
    assert only.where == "--precision float16, --device cpu"
    RunSettings.from_flags({**required, "device": "cpu", "precision": "bfloat16"})


@pytest.mark.parametrize(
    ("flag", "nearest"), [("bathSize", "--batchSize"), ("batch_size", "--batchSize"), ("imageDir", "--imagesDir")]
)
def test_unknown_flags(flag: str, nearest: str, refused: Refuse) -> None:
    (only,) = refused({flag: ""})
    assert only.problem == f"--{flag} is not a flag of tune-smp train"
    assert only.fix.startswith(f"did you mean '{nearest}'? ")
    assert "tune-smp train --help" in only.fix


def test_all_problems_at_once(refused: Refuse) -> None:
    wrong = {
        "imagesDir": "",
        "batchSize": 0,
        "patience": "-1",
        "minDelta": "nan",
        "trainFraction": "1",
        "maxEpochs": 0,
        "modelName": "PAN",
        "encoderBaseVariantWeights": "VGG,vgg16,imagenet",
        "lossName": "SoftCrossEntropyLoss",
        "momentum": 0.9,
        "tileSize": 100,
        "metricName": "mIoU",
        "lerningRate": 1,
    }
    problems = refused(wrong)
    told = "\n".join(map(str, problems))
    assert len(problems) == len(wrong) - 1  # PAN and vgg16 are one problem
    for flag in wrong:
        assert f"--{flag}" in told


def test_rules_keep_silent_about_what_is_wrong_by_itself(refused: Refuse) -> None:
    wrong = {
        "modelName": "Pan",
        "tileSize": "big",
        "lossName": "Loss",
        "optimizerName": "Adams",
        "segmentationMode": "x",
    }
    problems = refused({**wrong, "momentum": 0.1, "focalGamma": 1})
    assert len(problems) == len(wrong)


def test_python_callers_get_the_same_words() -> None:
    with pytest.raises(SettingsError) as caught:
        RunSettings(images_dir="a", patience=0, segmentation_mode="binary", colour="red")  # type: ignore[arg-type, call-arg]  # that is the point
    told = str(caught.value)
    for words in ("--patience must be", "--labelsDir is required", "--outputDir is required", "--colour is not a flag"):
        assert words in told


def test_a_gamma_without_finite_gradients(refused: Refuse) -> None:
    (only,) = refused({"lossName": "FocalLoss", "focalGamma": "0.5"})
    assert only.problem == "--focalGamma must be 0 or at least 1, got 0.5: between them gradients are infinite"


@pytest.mark.parametrize(
    ("flags", "problem", "fix"),
    [
        ({"modelName": "FPN", "encoderDepth": 4}, "FPN needs an encoder depth of 5, got 4", "with one of: Unet"),
        ({"modelName": "PSPNet", "encoderDepth": 5}, "PSPNet needs an encoder depth of 3, got 5", "leave --encoderD"),
        ({"modelName": "Linknet", "decoderChannels": 64}, "the width of Linknet's decoder follows", "leave --decoderC"),
        ({"modelName": "FPN", "decoderChannels": 100}, "FPN needs a multiple of 64", "--decoderChannels 64 or 128"),
        ({"decoderChannels": 20}, "Unet needs a multiple of 8", "--decoderChannels 16 or 24"),
        ({"modelName": "MAnet", "decoderAttention": "scse"}, "the decoder of MAnet has no", "Unet or UnetPlusPlus"),
        ({"decoderChannels": 8}, "--decoderChannels must be a whole number >= 16 and <= 1024, got 8", "pass "),
        ({"encoderDepth": 2}, "--encoderDepth must be a whole number >= 3 and <= 5, got 2", "pass "),
    ],
)
def test_depth_and_width_that_an_architecture_cannot_have(
    flags: dict[str, Any], problem: str, fix: str, refused: Refuse
) -> None:
    (only,) = refused(flags)
    assert only.problem.startswith(problem)
    assert fix in only.fix


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"timeBudget": "soon"}, "--timeBudget must be a length of time above 0, got 'soon'"),
        ({"timeBudget": "0m"}, "--timeBudget must be a length of time above 0, got '0m'"),
        (
            {"timeBudget": "10m", "stepsPerEpoch": 5},
            "with a time budget, an epoch has as many steps as its time allows",
        ),
    ],
)
def test_times_that_cannot_be(flags: dict[str, Any], problem: str, refused: Refuse) -> None:
    (only,) = refused(flags)
    assert only.problem == problem


def test_a_time_budget_is_divided_and_alone_ends_the_run(required: dict[str, Any]) -> None:
    timed = RunSettings.from_flags({**required, "timeBudget": "1h30m"})
    assert (timed.time_budget_s, timed.most_epochs, timed.resolved_patience) == (5400.0, 40, float("inf"))
    chosen = RunSettings.from_flags({**required, "timeBudget": "90", "maxEpochs": 8, "patience": 3})
    assert (chosen.time_budget_s, chosen.most_epochs, chosen.resolved_patience) == (90.0, 8, 3)
    plain = RunSettings.from_flags(required)
    assert (plain.time_budget_s, plain.most_epochs, plain.resolved_patience) == (None, 100, 10)
