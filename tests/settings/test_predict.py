"""Settings of a prediction, of a check and of the demonstration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.command_line import settings_from
from tune_smp.settings.commands import DemoSettings
from tune_smp.settings.data import CheckSettings, DataSettings
from tune_smp.settings.predict import PredictSettings, asked_views
from tune_smp.settings.run import RunSettings

FLAGS = {"model": "/out", "imagesDir": "/images", "outputDir": "/masks"}


def test_the_defaults() -> None:
    predict = PredictSettings.from_flags(FLAGS)
    assert predict.images_pattern == ".*"
    assert (predict.tile_size, predict.overlap, predict.batch_size) == (None, None, None)
    assert (predict.output, predict.format, predict.device) == ("labels", "ome.tif", "auto")
    assert PredictSettings.from_json(json.loads(json.dumps(predict.to_json()))) == predict


def test_everything_wrong_at_once() -> None:
    wrong = {"imagesDir": "/i", "tileSize": 8, "overlap": "-1", "output": "masks", "format": "tif", "modelName": "Unet"}
    with pytest.raises(SettingsError) as caught:
        PredictSettings.from_flags(wrong)
    told = str(caught.value)
    assert len(caught.value.problems) == 7
    for words in ("--model is required", "--outputDir is required", "--tileSize must be", "--overlap must be"):
        assert words in told
    assert "--modelName is not a flag of tune-smp predict" in told
    assert "did you mean 'ome.tif'?" in told


@pytest.mark.parametrize(("tile", "overlap"), [(64, 64), (64, 100)])
def test_overlap_leaves_a_step(tile: int, overlap: int) -> None:
    with pytest.raises(SettingsError, match="--overlap must be smaller than the tile") as caught:
        PredictSettings.from_flags({**FLAGS, "tileSize": tile, "overlap": overlap})
    assert "--overlap 16" in str(caught.value)
    assert PredictSettings.from_flags({**FLAGS, "tileSize": 64, "overlap": 63}).overlap == 63


def test_probabilities_have_no_threshold() -> None:
    with pytest.raises(SettingsError, match=r"probabilities are asked for\n.*--threshold 0.3, --output probabilities"):
        PredictSettings.from_flags({**FLAGS, "threshold": "0.3", "output": "probabilities"})
    assert PredictSettings.from_flags({**FLAGS, "threshold": "0.3"}).threshold == 0.3


def test_check_takes_the_data_flags_of_train_only() -> None:
    check, train = set(CheckSettings.model_fields), set(RunSettings.model_fields)
    assert check == set(DataSettings.model_fields)
    assert check < train
    assert not {"output_dir", "model_name", "batch_size"} & check


def test_the_demo_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert DemoSettings().output_dir == tmp_path / "tune-smp-demo"
    assert DemoSettings.from_flags({"outputDir": "x"}).output_dir == tmp_path / "x"


def test_messages_name_their_own_command(refused: Callable[..., tuple[Problem, ...]]) -> None:
    (unknown,) = refused({"outputdir": "x"}, DemoSettings)
    assert unknown.problem == "--outputdir is not a flag of tune-smp demo"
    assert unknown.fix == "did you mean '--outputDir'? one of: --debug, --outputDir"


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        ([], "none"),
        (["--testTimeAugmentation"], "all"),
        (["--testTimeAugmentation", "--overwrite"], "all"),
        (["--testTimeAugmentation", "true"], "all"),
        (["--testTimeAugmentation=Yes"], "all"),
        (["--testTimeAugmentation", "1"], "all"),
        (["--testTimeAugmentation=false"], "none"),
        (["--testTimeAugmentation", "off"], "none"),
        (["--testTimeAugmentation", "none"], "none"),
        (["--testTimeAugmentation=flips"], "flips"),
        (["--testTimeAugmentation", "all"], "all"),
        (["--testTimeAugmentation", "auto"], "auto"),
    ],
)
def test_augmentation_is_a_switch_or_a_preset(words: list[str], preset: str) -> None:
    chosen = settings_from(PredictSettings, [*(f"--{name}={value}" for name, value in FLAGS.items()), *words])
    assert chosen.test_time_augmentation == preset
    assert PredictSettings.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


@pytest.mark.parametrize(("value", "preset"), [(True, "all"), (False, "none"), ("flips", "flips"), ("yes", "all")])
def test_augmentation_from_python(value: bool | str, preset: str) -> None:
    assert asked_views(value) == preset
    assert PredictSettings.from_flags({**FLAGS, "testTimeAugmentation": value}).test_time_augmentation == preset


@pytest.mark.parametrize("value", ["flip", "8", "All"])
def test_another_augmentation_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"has no choice '.*'\n.*one of: none, flips, all, auto") as caught:
        PredictSettings.from_flags({**FLAGS, "testTimeAugmentation": value})
    with pytest.raises(SettingsError) as by_hand:
        asked_views(value)
    assert str(by_hand.value) == str(caught.value)
