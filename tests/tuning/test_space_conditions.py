"""Conditions in search spaces: what they can hide from a check, and must not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.flags import SWIN, VIT, under
from tune_smp.errors import Problem, SettingsError
from tune_smp.tuning.space import Domain, Range, Scalar, SearchSpace
from tune_smp.tuning.space_checks import check_space
from tune_smp.tuning.space_file import parse_space


def space_of(text: str, mode: str = "binary", **flags: Any) -> SearchSpace:
    """The space under a command line, as ``tune-smp search`` reads it."""
    return under(parse_space(text, name="mine.yaml"), mode, **flags)


def only(space: SearchSpace) -> Problem:
    with pytest.raises(SettingsError) as caught:
        check_space(space)
    (problem,) = caught.value.problems
    return problem


def test_a_parameter_that_is_never_asked_for() -> None:
    text = "search:\n  optimizerName: [Adam, AdamW]\n  momentum: {low: 0.8, high: 0.9, when: {optimizerName: [SGD]}}\n"
    told = only(space_of(text))
    assert told.problem == "momentum is never asked for: no trial has optimizerName SGD"
    assert told.where == "mine.yaml, line 3"
    assert "list it under optimizerName" in told.fix
    check_space(space_of(text, optimizerName="Adam"))
    check_space(space_of(text, optimizerName="SGD"))


def test_a_value_that_is_never_offered() -> None:
    losses = "[DiceLoss,\n    {value: MCCLoss, when: {schedule: [cosine]}}]"
    told = only(space_of(f"search:\n  schedule: [step, linear]\n  lossName: {losses}\n"))
    assert told.problem == "lossName MCCLoss is never asked for: no trial has schedule cosine"
    assert told.where == "mine.yaml, line 4"


def test_conditions_that_never_hold_together() -> None:
    told = only(
        space_of(
            "search:\n  schedule: [cosine, step]\n  optimizerName: [Adam, {value: SGD, when: {schedule: [step]}}]\n"
            "  momentum: {choices: [0.9], when: {optimizerName: [SGD], schedule: [cosine]}}\n"
        )
    )
    assert told.problem == "no trial can have momentum 0.9: its conditions never hold together"
    assert told.where == "mine.yaml, line 4"


def test_what_hangs_on_something_left_out_on_purpose_is_left_out_with_it() -> None:
    text = """search:
  batchSize: [4, 8]
  lossName: [DiceLoss, {value: TverskyLoss, when: {segmentationMode: [binary]}}]
  tverskyAlpha: {low: 0.2, high: 0.8, when: {lossName: [TverskyLoss]}}
"""
    check_space(space_of(text, "binary"))
    check_space(space_of(text, "multiclass"))


def test_conditions_on_numbers() -> None:
    text = (
        "search:\n  batchSize: {low: 4, high: 8}\n  lossName: {choices: [MCCLoss, DiceLoss], when: {batchSize: [%s]}}\n"
    )
    check_space(space_of(text % "4, 5"))
    assert "no trial has batchSize 9" in only(space_of(text % "9")).problem
    assert "no trial has batchSize 4" in only(space_of(text % "'4'")).problem, "a text is no number"


def test_a_condition_does_not_hide_a_clash_with_a_third_flag() -> None:
    told = only(
        space_of(
            "search:\n  modelName: [Unet, FPN]\n  optimizerName: [SGD, Adam]\n"
            "  momentum: {low: 0.8, high: 0.9, when: {modelName: [FPN]}}\n"
        )
    )
    assert told.problem == "Adam has no momentum"


def test_a_default_that_takes_over_is_judged_too() -> None:
    told = only(
        space_of(
            "search:\n  schedule: [step, linear]\n  lossName: [{value: TverskyLoss, when: {schedule: [step]}}]\n"
            "  tverskyAlpha: {low: 0.2, high: 0.8}\n"
        )
    )
    assert told.problem == "--tverskyAlpha means something to TverskyLoss only"
    assert "--lossName JaccardLoss (the default)" in told.where


def test_a_clash_behind_rare_conditions_is_found() -> None:
    told = only(
        space_of(
            "search:\n  modelName: [Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet, PAN, UPerNet, Segformer]\n"
            "  schedule: [cosine, polynomial, linear, step, constant]\n  augmentation: [medium, none, light, strong]\n"
            "  normalization: [percentile, zscore, minmax, none]\n  optimizerName: [SGD, RMSprop, Adam]\n"
            "  momentum:\n    choices: [0.9]\n    when:\n      modelName: [Segformer]\n      schedule: [constant]\n"
            "      augmentation: [strong]\n      normalization: [none]\n"
        )
    )
    assert told.problem == "Adam has no momentum"


WITHOUT_OPTIMIZER = """search:
  schedule: [step, linear]
  optimizerName: {choices: [SGD], when: {schedule: [step]}}
"""


def test_the_default_of_a_flag_left_out_satisfies_conditions() -> None:
    decay = "  weightDecay: {choices: [0.1], when: {optimizerName: [Adam]}}\n"
    check_space(space_of(WITHOUT_OPTIMIZER + decay))


def test_a_clash_behind_the_default_of_a_flag_left_out() -> None:
    rest = """  normalization: [percentile, zscore]
  lossName: [TverskyLoss, DiceLoss]
  tverskyAlpha: {choices: [0.3], when: {optimizerName: [Adam], normalization: [zscore]}}
"""
    told = only(space_of(WITHOUT_OPTIMIZER + rest))
    assert told.problem == "--tverskyAlpha means something to TverskyLoss only"
    assert told.where == "mine.yaml, line 5, 6: --tverskyAlpha 0.3, --lossName DiceLoss"


def _some(chance: random.Random, domain: Domain) -> Scalar:
    if not isinstance(domain, Range):
        return chance.choice(list(domain))
    return chance.choice([domain.low, domain.high])


VALUES: dict[str, list[str]] = {
    "modelName": ["Unet", "PAN", "DPT"],
    "encoderBaseVariantWeights": ["'ResNet,resnet18,random'", f"'{SWIN}'", f"'{VIT}'", "'VGG,vgg11,random'"],
    "tileSize": ["64", "224", "256"],
    "optimizerName": ["Adam", "SGD", "LBFGS"],
    "momentum": ["0.9", "0.5"],
    "weightDecay": ["0.1", "0.2"],
    "lossName": ["DiceLoss", "TverskyLoss", "SoftBCEWithLogitsLoss"],
    "tverskyAlpha": ["0.3", "0.6"],
    "schedule": ["step", "linear"],
}


USUAL = {
    "momentum": ("optimizerName", "SGD"),
    "weightDecay": ("optimizerName", "Adam, SGD"),
    "tverskyAlpha": ("lossName", "TverskyLoss"),
}


def _by_chance(chance: random.Random) -> str:
    """A file with a few flags, each with conditions on two before it at most; every third such space is legal."""
    chosen = chance.sample(list(VALUES), chance.randint(2, len(VALUES) - 1))
    flags = [flag for flag in VALUES if flag in chosen]
    lines = []
    for number, flag in enumerate(flags):
        options = chance.sample(VALUES[flag], chance.randint(1, len(VALUES[flag])))
        conditions = dict([USUAL[flag]] if flag in USUAL else [])
        for other in chance.sample(flags[:number], min(number, chance.choice([0, 0, 1, 2]))):
            conditions[other] = ", ".join(chance.sample(VALUES[other], chance.randint(1, len(VALUES[other]))))
        when = ", ".join(f"{other}: [{values}]" for other, values in conditions.items())
        if flag not in USUAL and chance.random() < 0.5:
            options[-1] = f"{{value: {options[-1]}, when: {{{when}}}}}"
            lines.append(f"  {flag}: [{', '.join(options)}]")
        else:
            lines.append(f"  {flag}: {{choices: [{', '.join(options)}], when: {{{when}}}}}")
    return "search:\n" + "\n".join(lines)


def test_a_space_passes_where_its_points_are_legal_and_is_refused_where_they_are_not() -> None:
    chance = random.Random(7)
    passed = refused_rightly = 0
    for _ in range(100):
        space = space_of(_by_chance(chance))
        points = [space.walk(lambda _, domain: _some(chance, domain)) for _ in range(25)]
        try:
            check_space(space)
        except SettingsError as error:
            for problem in error.problems:
                flag, _, never = problem.problem.partition(" ")
                if never.startswith("is never asked for"):
                    assert not [point for point in points if flag in point], space.text
                    refused_rightly += 1
        else:
            passed += 1
            for point in points:
                space.settings(point)
    assert passed > 15
    assert refused_rightly > 15
