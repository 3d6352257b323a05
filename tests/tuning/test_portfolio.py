"""Configurations that are tried right after the default: which files are read, and what becomes of them in a space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.flags import REQUIRED
from tune_smp.errors import SettingsError
from tune_smp.results.folder import RunFolder
from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.portfolio import portfolio_values, read_portfolio
from tune_smp.tuning.space import Scalar, SearchSpace, values_by_flag
from tune_smp.tuning.space_file import named_spaces, parse_space, read_space
from tune_smp.workflows.search_space import space_under
from tune_smp.workflows.search_study import open_study

SPACE = """
search:
  modelName: [Unet, FPN]
  learningRate: {low: 1e-4, high: 1e-2, log: true}
  lossName: [JaccardLoss, DiceLoss]
  decoderChannels: {choices: [256, 64], when: {modelName: [Unet]}}
"""


def space_of(text: str = SPACE, **flags: Any) -> SearchSpace:
    return parse_space(text, name="mine.yaml").with_flags({**REQUIRED, **flags})


def points(space: SearchSpace, *configurations: dict[str, Scalar]) -> list[dict[str, Scalar]]:
    return [values_by_flag(values) for values in portfolio_values(space, configurations)]


@pytest.mark.parametrize("name", sorted(named_spaces()))
def test_every_space_of_ours_has_a_portfolio_that_lies_in_it(name: str) -> None:
    space = read_space(name).with_flags(REQUIRED)
    configurations = read_portfolio("auto", space)
    assert len(points(space, *map(dict, configurations))) == len(configurations) >= 2


def test_what_a_configuration_leaves_out_is_the_defaults() -> None:
    assert points(space_of(), {"lossName": "DiceLoss", "learningRate": 3e-3}) == [
        {"modelName": "Unet", "learningRate": 3e-3, "lossName": "DiceLoss", "decoderChannels": 256}
    ]
    (fpn,) = points(space_of(), {"modelName": "FPN", "decoderChannels": 64})
    assert "decoderChannels" not in fpn


def test_what_lies_outside_is_left_out_and_what_is_twice_there_comes_once() -> None:
    space = space_of()
    assert points(space, {"modelName": "PAN"}, {"learningRate": 1.0}, {"lossName": "FocalLoss"}) == []
    assert len(points(space, {"modelName": "FPN"}, {"modelName": "FPN", "learningRate": 1e-3})) == 1


def test_what_the_command_line_gives_does_not_matter() -> None:
    assert points(space_of(lossName="FocalLoss"), {"modelName": "FPN", "lossName": "DiceLoss"}) == [
        {"modelName": "FPN", "learningRate": 1e-3}
    ]


def test_which_file_is_read(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("configurations:\n  - {lossName: DiceLoss, learningRate: 3e-3}\n", encoding="utf-8")
    assert read_portfolio(str(own), space_of()) == [{"lossName": "DiceLoss", "learningRate": 3e-3}]
    assert read_portfolio("auto", space_of()) == [], "a space of the user's own has none"
    assert read_portfolio("none", read_space("quick")) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "the portfolio cannot be read: .*No such file"),
        ("configurations: [", "the portfolio cannot be read"),
        ("- {lossName: DiceLoss}", "a portfolio is a list of configurations"),
        ("configurations: {lossName: DiceLoss}", "a portfolio is a list of configurations"),
        ("configurations: [{}]", "a portfolio is a list of configurations"),
        ("configurations: [{losName: DiceLoss}]", "there is no flag 'losName'"),
        ("configurations: [{learningRate: fast}]", "--learningRate must be a number > 0, got the text 'fast'"),
        ("configurations: [{modelName: [Unet, FPN]}]", "--modelName has no choice"),
        ("configurations: [{batchSize: 0}]", "--batchSize must be a whole number >= 1, got 0"),
    ],
)
def test_files_that_are_none(text: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=reason):
        read_portfolio(str(path), space_of())


def test_a_search_begins_with_the_default_and_goes_on_with_the_portfolio(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    own = tmp_path / "own.yaml"
    own.write_text("configurations:\n  - {modelName: FPN}\n  - {lossName: DiceLoss}\n", encoding="utf-8")
    flags = {**REQUIRED, "outputDir": str(tmp_path), "searchSpace": str(tmp_path / "space.yaml")}
    settings = SearchSettings.from_flags({**flags, "portfolio": str(own)})
    space = space_under(read_space(settings.search_space), settings)
    study = open_study(settings, space, RunFolder(tmp_path), concurrency=2)
    asked = [study.ask().flags for _ in range(4)]
    assert [(flags["modelName"], flags["lossName"]) for flags in asked[:3]] == [
        ("Unet", "JaccardLoss"),
        ("FPN", "JaccardLoss"),
        ("Unet", "DiceLoss"),
    ]
