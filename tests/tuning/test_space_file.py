"""Search spaces as files: what is read, and every word that is said about what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_smp.errors import Problem, SettingsError
from tune_smp.tuning.space import Option, Range, SearchSpace
from tune_smp.tuning.space_file import SEARCHABLE, parse_space
from tune_smp.tuning.space_records import describe

NAME = "mine.yaml"


def refused(text: str) -> tuple[Problem, ...]:
    """The problems with a file of this text; fails where there are none."""
    with pytest.raises(SettingsError) as caught:
        parse_space(text, name=NAME)
    return caught.value.problems


def only(text: str) -> Problem:
    (problem,) = refused(text)
    return problem


def parsed(text: str) -> SearchSpace:
    return parse_space(text, name=NAME)


def test_a_whole_file() -> None:
    text = """# comment
description: small nets
fixed:
  maxEpochs: 8
  augmentation: none
search:
  modelName: [Unet, FPN]
  learningRate: {low: 1e-4, high: 3e-2, log: true}
  batchSize: {low: 4, high: 18, step: 4}
  optimizerName: [Adam, SGD]
  momentum:
    choices: [0.8, 0.9]
    when: {optimizerName: [SGD]}
  lossName:
    - DiceLoss
    - {value: SoftCrossEntropyLoss, when: {segmentationMode: [multiclass]}}
"""
    space = parsed(text)
    assert (space.name, space.text, space.description) == (NAME, text, "small nets")
    assert space.fixed == {"maxEpochs": 8, "augmentation": "none"}
    assert space.lines == {"maxEpochs": 4, "augmentation": 5}
    rows = {row.flag: row for row in space.parameters}
    assert rows["modelName"].domain == (Option("Unet", {}, 7), Option("FPN", {}, 7))
    assert rows["learningRate"].domain == Range(1e-4, 3e-2, integer=False, log=True)
    assert rows["batchSize"].domain == Range(4, 16, integer=True, step=4), "16 is the last multiple up to 18"
    assert rows["momentum"].when == {"optimizerName": ("SGD",)}
    assert rows["momentum"].domain == (Option(0.8, {}, 12), Option(0.9, {}, 12))
    condition = {"segmentationMode": ("multiclass",)}
    assert rows["lossName"].domain == (Option("DiceLoss", {}, 15), Option("SoftCrossEntropyLoss", condition, 16))
    assert rows["lossName"].line == 14


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.0e-4", "0.0001", "+1e-4"])
def test_numbers_without_quotes_are_numbers(number: str) -> None:
    (row,) = parsed(f"search:\n  learningRate: {{low: {number}, high: 1, log: true}}\n").parameters
    assert row.domain == Range(1e-4, 1.0, integer=False, log=True)
    assert isinstance(row.domain, Range)
    assert [type(bound) for bound in (row.domain.low, row.domain.high)] == [float, float]


def test_values_come_without_the_reader_s_own_classes() -> None:
    space = parsed("fixed: {minDelta: 1e-5, patience: 0x10, dashboard: false}\nsearch:\n  schedule: ['cosine', step]\n")
    assert {flag: type(value) for flag, value in space.fixed.items()} == {
        "minDelta": float,
        "patience": int,
        "dashboard": bool,
    }
    domain = space.parameters[0].domain
    assert not isinstance(domain, Range)
    assert [type(option.value) for option in domain] == [str, str]


def test_a_range_of_tile_sizes_is_the_list_of_its_multiples() -> None:
    (row,) = parsed("search:\n  tileSize: {low: 128, high: 300, step: 64}\n").parameters
    assert row.domain == tuple(Option(size, {}, 2) for size in (128, 192, 256))


def test_a_float_range_keeps_its_last_multiple() -> None:
    (row,) = parsed("search:\n  foregroundFraction: {low: 0.1, high: 0.7, step: 0.1}\n").parameters
    assert isinstance(row.domain, Range)
    assert row.domain.high == pytest.approx(0.7)
    assert row.domain.step == 0.1


def test_mappings_may_be_lent() -> None:
    space = parsed(
        "search:\n"
        "  lossName: [TverskyLoss, DiceLoss]\n"
        "  tverskyAlpha: &weight {low: 0.2, high: 0.8, when: {lossName: [TverskyLoss]}}\n"
        "  tverskyBeta: {<<: *weight, high: 0.9}\n"
    )
    alpha, beta = space.parameters[1:]
    assert beta.domain == Range(0.2, 0.9, integer=False)
    assert beta.when == alpha.when == {"lossName": ("TverskyLoss",)}
    lent = refused("search:\n  batchSize: &b {low: 1, high: 2, odd: 1}\n  patience:\n    <<: *b\n    log: 2\n")
    assert [problem.where for problem in lent] == [f"{NAME}, line {line}" for line in (2, 3, 4)]


MESSAGES = [
    ("a list", "- 1\n", 0, "a search space has the keys description, fixed, search", ""),
    ("nothing", "", 0, "a search space has the keys", ""),
    ("only fixed", "fixed: {maxEpochs: 3}\n", 0, "there is nothing to search", "at least one flag under search"),
    ("a section", "search: 3\n", 1, "search must hold flags with their values", ""),
    (
        "a key twice",
        "search:\n  batchSize: [4]\n  batchSize: [8]\n",
        3,
        "the key 'batchSize' stands there twice",
        "one of",
    ),
    ("a key", "search:\n  batchSize: [1]\nfixd: {}\n", 3, "there is no key 'fixd' here", "did you mean 'fixed'?"),
    ("a flag", "search:\n\n  learningrate: [1]\n", 3, "'learningrate' is no flag", "did you mean 'learningRate'?"),
    ("a number", "search:\n  3: [1]\n", 2, "'3' is no flag", "--help"),
    ("fixed flag", "fixed:\n  maxEpoch: 3\n", 2, "'maxEpoch' is no flag", "did you mean 'maxEpochs'?"),
    ("not fixable", "fixed: {imagesDir: x}\n", 1, "imagesDir cannot stand in a search space", "--imagesDir on the"),
    ("output", "fixed: {outputDir: x}\n", 1, "outputDir cannot stand in a search space", "--outputDir on the"),
    ("a fixed list", "fixed: {maxEpochs: [3]}\n", 1, "maxEpochs needs one plain value here, got a list", "search"),
    ("a fixed mapping", "fixed: {maxEpochs: {low: 1}}\n", 1, "one plain value here, got a mapping", "search"),
    ("fixed nothing", "fixed:\n  maxEpochs:\n", 2, "maxEpochs needs one plain value here, got nothing", "VALUE"),
    ("not searchable", "search:\n  metricName: [IoU]\n", 2, "metricName cannot be searched", "put it under fixed"),
    ("data", "search:\n  imagesDir: [a]\n", 2, "imagesDir cannot be searched", "--imagesDir on the command line"),
    ("mode", "search:\n  segmentationMode: [binary]\n", 2, "segmentationMode cannot be searched", "command line"),
    ("one value", "search:\n  batchSize: 4\n", 2, "batchSize: 4 leaves nothing to search", "under fixed"),
    ("no value", "search:\n  batchSize:\n", 2, "batchSize: nothing leaves nothing to search", "give a list"),
    ("empty list", "search:\n  batchSize: []\n", 2, "batchSize: the list is empty", "at least one value"),
    ("empty choices", "search:\n  batchSize: {choices: []}\n", 2, "batchSize: the list is empty", "one value"),
    ("choices", "search:\n  batchSize: {choices: 4}\n", 2, "batchSize: choices must be a list, got 4", "choices: ["),
    ("choice key", "search:\n  batchSize: {choices: [4], hi: 3}\n", 2, "there is no key 'hi' here", "choices, when"),
    ("twice", "search:\n  lossName: [MCCLoss, DiceLoss, MCCLoss]\n", 2, "MCCLoss stands there twice", "leave one"),
    ("twice, lines", "search:\n  batchSize:\n    - 4\n    - 8\n    - 4\n", 5, "4 stands there twice", "leave one"),
    ("a list in it", "search:\n  batchSize:\n    - 4\n    - [8]\n", 4, "a list is no value to choose", "plain"),
    ("null in it", "search:\n  batchSize: [4, ~]\n", 2, "nothing is no value to choose", "plain"),
    ("no text", "search:\n  lossName: [DiceLoss, '']\n", 2, "the text '' is no value to choose", "plain"),
    ("a date in it", "search:\n  batchSize: [4, 2026-01-01]\n", 2, "2026-01-01 is no value to choose", "plain"),
    ("an option", "search:\n  batchSize:\n    - {when: {}}\n", 3, "a choice with a condition needs its value", "value"),
    ("option key", "search:\n  batchSize: [{value: 4, wen: {}}]\n", 2, "there is no key 'wen' here", "'when'"),
    ("range key", "search:\n  batchSize: {low: 1, high: 2, stp: 3}\n", 2, "no key 'stp' here", "'step'"),
    ("no range", "search:\n  lossName: {low: 1, high: 2}\n", 2, "lossName has no range", "list"),
    ("no high", "search:\n  batchSize: {low: 1}\n", 2, "high must be a whole number, got nothing", "high: NUMBER"),
    (
        "quoted",
        "search:\n  minDelta: {low: '1e-4', high: 1}\n",
        2,
        "low must be a number, got the text '1e-4'",
        "low: 1e-4",
    ),
    ("fraction", "search:\n  batchSize: {low: 1.5, high: 4}\n", 2, "low must be a whole number, got 1.5", "low:"),
    ("truth", "search:\n  minDelta: {low: true, high: 4}\n", 2, "low must be a number, got True", "low:"),
    ("nan", "search:\n  minDelta: {low: 0.1, high: .nan}\n", 2, "high must be a number, got nan", "high:"),
    ("infinite", "search:\n  minDelta: {low: 0.1, high: .inf}\n", 2, "high must be a number, got inf", "high:"),
    ("huge", f"search:\n  batchSize: {{low: 1, high: {10**400}}}\n", 2, "high must be a whole number", "high:"),
    ("a list as low", "search:\n  minDelta: {low: [1], high: 4}\n", 2, "low must be a number, got a list", "low:"),
    ("low > high", "search:\n  batchSize: {low: 8, high: 4}\n", 2, "low must be below high, got 8 and 4", "fixed"),
    ("low = high", "search:\n  batchSize: {low: 8, high: 8}\n", 2, "low must be below high, got 8 and 8", "fixed"),
    ("log of 0", "search:\n  minDelta: {low: 0, high: 1, log: true}\n", 2, "log scale needs low above 0, got 0", "log"),
    (
        "log as text",
        "search:\n  minDelta: {low: 1, high: 2, log: on}\n",
        2,
        "log must be true or false, got the text",
        "",
    ),
    ("log, step", "search:\n  minDelta: {low: 1, high: 9, log: true, step: 1}\n", 2, "do not go together", "leave one"),
    ("step 0", "search:\n  batchSize: {low: 1, high: 9, step: 0}\n", 2, "step must be above 0, got 0", "step"),
    ("step -1", "search:\n  batchSize: {low: 1, high: 9, step: -1}\n", 2, "step must be above 0, got -1", "step"),
    ("step far", "search:\n  batchSize: {low: 1, high: 9, step: 9}\n", 2, "step 9 leads beyond high", "lower step"),
    ("no step", "search:\n  tileSize: {low: 128, high: 512}\n", 2, "tileSize: a range needs a step", "step: 32"),
    ("when", "search:\n  batchSize: {choices: [4], when: SGD}\n", 2, "when must be {FLAG: [values]}", "when: {"),
    ("when one", "search:\n  batchSize: {choices: [4], when: {lossName: MCCLoss}}\n", 2, "when must be {FLAG", "when"),
    ("when none", "search:\n  batchSize: {choices: [4], when: {lossName: []}}\n", 2, "empty list, which never", "one"),
    (
        "when flag",
        "search:\n  batchSize: {choices: [4], when: {lossNam: [a]}}\n",
        2,
        "'lossNam' is no flag",
        "'lossName'",
    ),
    (
        "when value",
        "search:\n  batchSize: {choices: [4], when: {lossName: [DiceLos]}}\n",
        2,
        "when: lossName has no choice 'DiceLos'",
        "did you mean 'DiceLoss'? one of: JaccardLoss",
    ),
    ("itself", "search:\n  batchSize: {choices: [4], when: {batchSize: [4]}}\n", 2, "batchSize hang on", "before"),
]


@pytest.mark.parametrize(
    ("text", "line", "problem", "fix"), [row[1:] for row in MESSAGES], ids=[row[0] for row in MESSAGES]
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, problem: str, fix: str) -> None:
    if text.startswith("fixed") and "search" not in text and problem != "there is nothing to search":
        text += "search: {lossName: [MCCLoss, DiceLoss]}\n"
    problems = refused(text)
    told = [row for row in problems if problem in row.problem]
    assert len(told) == 1, problems
    assert told[0].where == (f"{NAME}, line {line}" if line else NAME)
    assert fix in told[0].fix
    others = [row.problem for row in problems if row is not told[0]]
    assert set(others) <= {"there is nothing to search"}, "nothing else is wrong"


def test_a_flag_in_both_sections() -> None:
    told = only("fixed:\n  batchSize: 4\nsearch:\n  batchSize: [4, 8]\n")
    assert told.problem == "batchSize stands under fixed and under search"
    assert told.where == f"{NAME}, line 2"


CIRCLE = """search:
  lossName: [DiceLoss, MCCLoss]
  optimizerName: {choices: [SGD, Adam], when: {schedule: [step]}}
  schedule: {choices: [step, linear], when: {momentum: [0.5]}}
  momentum: {choices: [0.5], when: {optimizerName: [SGD]}}
  batchSize: {choices: [4], when: {momentum: [0.5]}}
"""


def test_a_circle_of_conditions_names_those_in_it() -> None:
    told = only(CIRCLE)
    assert told.problem == "the conditions of optimizerName, schedule, momentum hang on each other in a circle"
    assert told.where == f"{NAME}, line 3"
    assert "chosen before" in told.fix


def test_an_architecture_cannot_wait_for_its_encoder() -> None:
    told = only(
        "search:\n  modelName: {choices: [Unet, FPN], when: {tileSize: [64]}}\n"
        "  encoderBaseVariantWeights: ['ResNet,resnet18,random']\n  tileSize: [64, 96]\n"
    )
    assert "modelName" in told.problem
    assert "tileSize" in told.problem
    assert "modelName, encoderBaseVariantWeights, tileSize are chosen in this order" in told.fix


def test_a_condition_of_an_option_counts_in_a_circle() -> None:
    told = only(
        "search:\n  lossName: [DiceLoss, {value: MCCLoss, when: {schedule: [step]}}]\n"
        "  schedule: [step, {value: linear, when: {lossName: [MCCLoss]}}]\n"
    )
    assert "lossName, schedule hang on each other" in told.problem


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("search:\n  batchSize: [4, 8\n", "expected ',' or ']'", 3),
        ("\tsearch: 3\n", "cannot start any token", 1),
        ("search: 1\n---\nsearch: 2\n", "found another document", 2),
        ("a\0b", "special characters are not allowed", 0),
        (f"fixed: {{seed: {'1' * 5000}}}", "integer string conversion", 0),
        ("[" * 1000, "recursion", 0),
    ],
)
def test_what_is_not_yaml(text: str, words: str, line: int) -> None:
    told = only(text)
    assert told.problem.startswith("the search space is not valid YAML: ")
    assert words in told.problem
    assert told.where == (f"{NAME}, line {line}" if line else NAME)


def test_tags_of_python_run_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "made"
    told = refused(f"search:\n  batchSize: [!!python/object/apply:pathlib.Path.touch [{victim}]]\n")
    assert told
    assert not victim.exists()


def test_everything_is_told_at_once() -> None:
    problems = refused(
        """fixd: 1
fixed:
  patiens: 3
  batchSize: 4
search:
  batchSize: [4, 4, []]
  lossName: []
  learningRate: {low: '1e-4', high: x, log: true}
  minDelta: {low: 2, high: 1, log: true, step: 1}
  metricName: [IoU, Recall]
  modelNam: [Unet]
  schedule: {choices: [step], when: {lossNam: [a]}}
"""
    )
    words = [
        "no key 'fixd'",
        "'patiens' is no flag",
        "stands under fixed and under search",
        "4 stands there twice",
        "a list is no value",
        "the list is empty",
        "low must be a number",
        "high must be a number",
        "low must be below high",
        "do not go together",
        "metricName cannot be searched",
        "'modelNam' is no flag",
        "'lossNam' is no flag",
    ]
    told = [problem.problem for problem in problems]
    for word in words:
        assert sum(word in problem for problem in told) == 1, word
    assert len(told) == len(words)
    assert [problem.where for problem in problems if "fixd" in problem.problem] == [f"{NAME}, line 1"]


def test_descriptions() -> None:
    rows = describe(
        parsed(
            """
fixed: {maxEpochs: 8, dashboard: false}
search:
  encoderBaseVariantWeights: ["ResNet,resnet18,random", "ResNet,resnet34,imagenet"]
  optimizerName: [Adam, SGD, RMSprop]
  learningRate: {low: 1e-4, high: 3e-2, log: true}
  batchSize: {low: 4, high: 16, step: 4}
  momentum: {low: 0.8, high: 0.99, when: {optimizerName: [SGD, RMSprop], segmentationMode: [binary]}}
  lossName: [DiceLoss, {value: SoftCrossEntropyLoss, when: {segmentationMode: [multiclass]}}]
"""
        )
    )
    assert {tuple(row) for row in rows} == {("flag", "kind", "values", "when")}
    by_flag = {row["flag"]: row for row in rows}
    assert list(by_flag)[:3] == ["maxEpochs", "dashboard", "encoderBaseVariantWeights"]
    assert {row["kind"] for row in rows[:2]} == {"fixed"}
    assert {row["kind"] for row in rows[2:]} == {"searched"}
    assert by_flag["dashboard"]["values"] == "false"
    assert by_flag["encoderBaseVariantWeights"]["values"] == "ResNet,resnet18,random; ResNet,resnet34,imagenet"
    assert by_flag["learningRate"]["values"] == "0.0001 to 0.03 (log)"
    assert by_flag["batchSize"]["values"] == "4 to 16 in steps of 4"
    assert by_flag["momentum"]["when"] == "optimizerName is SGD or RMSprop and segmentationMode is binary"
    assert by_flag["lossName"]["values"] == "DiceLoss; SoftCrossEntropyLoss (when segmentationMode is multiclass)"
    assert by_flag["lossName"]["when"] == ""


def test_what_decides_over_the_comparison_of_trials_is_not_searched() -> None:
    assert not {"metricName", "seed", "segmentationMode", "trainFraction", "ignoreValue", "imagesDir"} & set(SEARCHABLE)
    assert {"modelName", "encoderBaseVariantWeights", "learningRate", "tileSize", "normalization"} <= set(SEARCHABLE)
