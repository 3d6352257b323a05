"""Values of a search space that are wrong by themselves, and all faults of a file in one go."""

from __future__ import annotations

import pytest

from tune_smp.errors import Problem, SettingsError
from tune_smp.tuning.space_file import parse_space


def refused(text: str) -> tuple[Problem, ...]:
    """The problems with a file of this text; fails where there are none."""
    with pytest.raises(SettingsError) as caught:
        parse_space(text, name="mine.yaml")
    return caught.value.problems


def only(text: str) -> Problem:
    (problem,) = refused(text)
    return problem


@pytest.mark.parametrize(
    ("line", "number", "problem"),
    [
        ("batchSize: [4, 0]", 3, "--batchSize must be a whole number >= 1, got 0"),
        ("batchSize: ['4', 8]", 3, "--batchSize must be a whole number >= 1, got the text '4'"),
        ("batchSize: [4, true]", 3, "--batchSize must be a whole number >= 1, got true"),
        ("batchSize: {low: 0, high: 4}", 3, "--batchSize must be a whole number >= 1, got 0"),
        ("learningRate: ['1e-4', 1e-3]", 3, "--learningRate must be a number > 0, got the text '1e-4'"),
        ("learningRate: {low: -1.0, high: 4}", 3, "--learningRate must be a number > 0, got -1.0"),
        ("minDelta: [.nan, 1e-3]", 3, "--minDelta must be a number >= 0, got nan"),
        ("patience: [-1, 5]", 3, "--patience must be a whole number >= 1, got -1"),
        ("momentum: {low: 0.5, high: 1}", 3, "--momentum must be a number >= 0 and < 1, got 1.0"),
        ("schedule: [cosin, linear]", 3, "--schedule has no choice 'cosin'"),
        ("modelName: [Unet, Pan]", 3, "--modelName has no choice 'Pan'"),
        ("encoderBaseVariantWeights: ['ResNet,resnet43,random']", 3, "names no encoder that exists: 'resnet43'"),
        ("encoderBaseVariantWeights: ['Test,tu-test_efficientnet,imagenet']", 3, "has no weights 'imagenet'"),
    ],
)
def test_values_that_are_wrong_by_themselves(line: str, number: int, problem: str) -> None:
    told = only(f"search:\n  lossName: [DiceLoss, MCCLoss]\n  {line}\n")
    assert problem in told.problem
    assert told.where == f"mine.yaml, line {number}"
    assert told.fix


def test_a_fixed_value_that_is_wrong() -> None:
    told = only("fixed:\n  maxEpochs: 0\nsearch: {batchSize: [4, 8]}\n")
    assert told.problem == "--maxEpochs must be a whole number >= 1, got 0"
    assert told.where == "mine.yaml, line 2"
    quoted = only("fixed:\n  minDelta: '1e-4'\nsearch: {batchSize: [4, 8]}\n")
    assert quoted.problem == "--minDelta must be a number >= 0, got the text '1e-4'"
    assert quoted.fix == "write it without quotes: 1e-4"


EVERYTHING_WRONG = """description: all kinds of faults
fixed:
  patience: -1
  maxEpoch: 3
  imagesDir: x
  patience: 5
search:
  batchSize: [0, 4]
  batchSize: [8]
  modelName: [Unett, FPN]
  learningRate: {low: 1e-3, high: 1e-4, log: 2}
  momentum: {low: -0.5, hi: 3}
  optimizerName:
    - Adam
    - {value: SGDD, when: {modelname: [FPN]}}
  lossName: [DiceLoss, [MCCLoss]]
  minDelta: [.nan, '1']
  weightDecay: {low: 0.0, high: 0.1, when: {optimizerName: [Adma]}}
  schedule: cosine
extra: 1
"""


def test_everything_that_is_wrong_is_reported_at_once_in_the_order_of_lines() -> None:
    problems = refused(EVERYTHING_WRONG)
    found = [(int(row.where.rpartition(" ")[2]), row.problem) for row in problems]
    expected = [
        (3, "--patience must be a whole number >= 1, got -1"),
        (4, "'maxEpoch' is no flag"),
        (5, "imagesDir cannot stand in a search space"),
        (6, "the key 'patience' stands there twice, first in line 3"),
        (8, "--batchSize must be a whole number >= 1, got 0"),
        (9, "the key 'batchSize' stands there twice, first in line 8"),
        (10, "--modelName has no choice 'Unett'"),
        (11, "learningRate: log must be true or false, got 2"),
        (12, "there is no key 'hi' here"),
        (12, "--momentum must be a number >= 0 and < 1, got -0.5"),
        (12, "momentum: high must be a number, got nothing"),
        (15, "--optimizerName has no choice 'SGDD'"),
        (15, "when: 'modelname' is no flag"),
        (16, "a list is no value to choose"),
        (17, "--minDelta must be a number >= 0, got nan"),
        (17, "--minDelta must be a number >= 0, got the text '1'"),
        (18, "when: optimizerName has no choice 'Adma'"),
        (19, "schedule: the text 'cosine' leaves nothing to search"),
        (20, "there is no key 'extra' here"),
    ]
    assert found == expected
    assert all(row.fix for row in problems)


def test_a_value_that_is_lent_is_reported_where_it_stands() -> None:
    text = "search:\n  batchSize: &b {low: 0, high: 4, low: 1}\n  patience: {<<: *b, high: 8}\n"
    assert [row.problem for row in refused(text)] == [
        "the key 'low' stands there twice, first in line 2",
        "--batchSize must be a whole number >= 1, got 0",
        "--patience must be a whole number >= 1, got 0",
    ]
