"""Settings of a run that are valid, and what they turn into."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.augmentations import AUGMENTATIONS
from tune_smp.choices.encoders import ENCODERS, RANDOM, partner_architectures
from tune_smp.choices.losses import LOSSES
from tune_smp.choices.metrics import METRICS
from tune_smp.choices.normalizations import NORMALIZATIONS
from tune_smp.choices.optimizers import OPTIMIZERS
from tune_smp.choices.schedules import SCHEDULES
from tune_smp.errors import SettingsError
from tune_smp.settings.fields import flags_of
from tune_smp.settings.run import DEFAULT_TILE_SIZE, RunSettings


def test_the_defaults(required: dict[str, Any]) -> None:
    run = RunSettings.from_flags(required)
    assert run.architecture is ARCHITECTURES["Unet"]
    assert run.encoder is ENCODERS["resnet34"]
    assert run.encoder_weights == "imagenet"
    assert (run.optimizer, run.loss, run.metric) == (OPTIMIZERS["Adam"], LOSSES["JaccardLoss"], METRICS["IoU"])
    assert (run.batch_size, run.train_fraction, run.max_epochs, run.patience, run.min_delta) == (
        None,
        0.7,
        100,
        10,
        1e-4,
    )
    assert (run.resolved_learning_rate, run.resolved_weight_decay, run.resolved_momentum) == (1e-3, 0, 0)
    assert run.resolved_tile_size == DEFAULT_TILE_SIZE
    assert run.model_fields_set == {
        "images_dir",
        "labels_dir",
        "images_pattern",
        "labels_pattern",
        "segmentation_mode",
        "output_dir",
    }


def test_given_numbers_win_over_the_optimizers_own(required: dict[str, Any]) -> None:
    run = RunSettings.from_flags(
        {**required, "optimizerName": "SGD", "momentum": 0, "learningRate": 0.5, "tileSize": 64}
    )
    assert (run.resolved_learning_rate, run.resolved_weight_decay, run.resolved_momentum) == (0.5, 1e-4, 0)
    assert run.resolved_tile_size == 64


def test_a_fixed_size_encoder_dictates_the_tile(required: dict[str, Any]) -> None:
    run = RunSettings.from_flags(
        {**required, "modelName": "DPT", "encoderBaseVariantWeights": "ViT,tu-vit_tiny_patch16_224,random"}
    )
    assert run.resolved_tile_size == 224
    assert run.encoder_weights is None


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=lambda row: row.name)
def test_every_encoder_with_every_word_for_its_weights(encoder: Any, required: dict[str, Any]) -> None:
    for weights in (*encoder.weights, RANDOM):
        for name in (encoder.name, encoder.smp_name):
            choice = f"{encoder.family},{name},{weights}"
            run = RunSettings.from_flags(
                {**required, "modelName": partner_architectures(encoder)[0], "encoderBaseVariantWeights": choice}
            )
            assert run.encoder is encoder
            assert run.encoder_weights == (None if weights == RANDOM else weights)


def test_text_from_the_command_line_and_empty_strings_from_wipp(required: dict[str, Any]) -> None:
    flags = {
        "minDelta": "1e-4",
        "batchSize": "16",
        "overwrite": "YES",
        "dashboard": "0",
        "pretrainedModel": "",
        "groupBy": "",
        "ignoreValue": "-1",
    }
    run = RunSettings.from_flags({**required, **flags})
    assert (run.min_delta, run.batch_size, run.overwrite, run.dashboard, run.ignore_value) == (
        1e-4,
        16,
        True,
        False,
        -1,
    )
    assert run.pretrained_model is None
    assert "pretrained_model" not in run.model_fields_set
    assert {"min_delta", "overwrite", "ignore_value"} <= run.model_fields_set


@pytest.mark.parametrize("value", ["8", "8.0", "8.00", 8, 8.0])
def test_whole_numbers_as_forms_write_them(value: Any, required: dict[str, Any]) -> None:
    assert RunSettings.from_flags({**required, "batchSize": value}).batch_size == 8


@pytest.mark.parametrize("value", ["8.5", "8,0", "eight", 8.5])
def test_what_is_no_whole_number(value: Any, required: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        RunSettings.from_flags({**required, "batchSize": value})
    (only,) = caught.value.problems
    assert only.problem.startswith("--batchSize must be a whole number >= 1, got ")


@pytest.mark.parametrize(("value", "meant"), [("True", True), ("TRUE", True), ("False", False), ("FALSE", False)])
def test_truth_as_forms_write_it(value: str, meant: bool, required: dict[str, Any]) -> None:
    assert RunSettings.from_flags({**required, "overwrite": value}).overwrite is meant


def test_blanks_around_the_words_of_an_encoder(required: dict[str, Any]) -> None:
    assert (
        RunSettings.from_flags({**required, "encoderBaseVariantWeights": "ResNet, resnet18 , ssl"}).encoder_weights
        == "ssl"
    )


def test_paths_become_absolute(required: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    odd = os.fsdecode(b"not utf-8 \xff; $(x) '<b>'\n")
    run = RunSettings.from_flags(
        {**required, "imagesDir": "a/b", "labelsDir": odd, "outputDir": "~/out", "cacheDir": "~file"}
    )
    assert run.images_dir == tmp_path / "a" / "b"
    assert run.labels_dir == tmp_path / odd
    assert run.output_dir == Path("/home/me/out")
    assert run.cache_dir == tmp_path / "~file"
    assert RunSettings.from_json(json.loads(json.dumps(run.to_json()))) == run


def test_settings_are_frozen(required: dict[str, Any]) -> None:
    run = RunSettings.from_flags(required)
    with pytest.raises(pydantic.ValidationError):
        run.seed = 3


def test_changes_count_as_given_and_are_checked(required: dict[str, Any]) -> None:
    run = RunSettings.from_flags(required)
    changed = run.with_changes(seed=3, model_name="FPN")
    assert (changed.seed, changed.model_name, changed.images_dir) == (3, "FPN", run.images_dir)
    assert changed.model_fields_set == run.model_fields_set | {"seed", "model_name"}
    with pytest.raises(SettingsError, match="--seed must be a whole number"):
        run.with_changes(seed=-3)


def names_in(table: Any) -> st.SearchStrategy[str]:
    return st.sampled_from(list(table))


@st.composite
def valid_flags(draw: st.DrawFn) -> dict[str, Any]:
    """A random valid point, by flag name, each value typed or as text."""
    encoder = ENCODERS[draw(names_in(ENCODERS))]
    weights = draw(st.sampled_from([*encoder.weights, RANDOM]))
    architecture = ARCHITECTURES[draw(st.sampled_from(partner_architectures(encoder)))]
    loss = LOSSES[draw(names_in(LOSSES))]
    optimizer = OPTIMIZERS[draw(names_in(OPTIMIZERS))]
    size = draw(st.sampled_from([None, 128, 160, 256, 512])) if encoder.tile_size is None else encoder.tile_size
    flags = {
        "imagesDir": draw(st.text(st.characters(exclude_characters="\0"), min_size=1)),
        "labelsDir": "labels",
        "imagesPattern": draw(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)),
        "labelsPattern": ".*",
        "outputDir": "out",
        "segmentationMode": draw(st.sampled_from(sorted(loss.modes))),
        "modelName": architecture.name,
        "encoderBaseVariantWeights": f"{encoder.family},{encoder.name},{weights}",
        "lossName": loss.name,
        "optimizerName": optimizer.name,
        "metricName": draw(names_in(METRICS)),
        "schedule": draw(names_in(SCHEDULES)),
        "augmentation": draw(names_in(AUGMENTATIONS)),
        "normalization": draw(names_in(NORMALIZATIONS)),
        "tileSize": size,
        "batchSize": draw(st.none() | st.integers(1, 10**6)),
        "trainFraction": draw(st.floats(0, 1, exclude_min=True, exclude_max=True)),
        "learningRate": draw(st.none() | st.floats(0, 10, exclude_min=True)),
        "minDelta": draw(st.floats(0, 1e300)),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "skipCorrupt": draw(st.booleans()),
    }
    flags |= {"momentum": draw(st.floats(0, 0.99))} if optimizer.has_momentum else {}
    flags |= {"weightDecay": draw(st.floats(0, 1))} if optimizer.has_weight_decay else {}
    flags |= {"focalGamma": draw(st.just(0.0) | st.floats(1, 5))} if "focal_gamma" in loss.parameters else {}
    flags |= {"diceWeight": draw(st.floats(0.01, 0.99))} if "dice_weight" in loss.parameters else {}
    return {name: str(value) if value is not None and draw(st.booleans()) else value for name, value in flags.items()}


@settings(max_examples=60, deadline=None)
@given(valid_flags())
def test_valid_points_survive_json_and_pickle(flags: dict[str, Any]) -> None:
    run = RunSettings.from_flags(flags)
    again = RunSettings.from_json(json.loads(json.dumps(run.to_json())))
    assert again == run
    assert again.model_fields_set == run.model_fields_set
    assert pickle.loads(pickle.dumps(run)) == run  # noqa: S301 - our own bytes
    assert run.resolved_tile_size % run.architecture.divisor == 0


def test_json_speaks_in_flag_names(required: dict[str, Any]) -> None:
    record = RunSettings.from_flags({**required, "focalGamma": 3, "lossName": "FocalLoss"}).to_json()
    assert list(record["values"]) == [flag.name for flag in flags_of(RunSettings)]
    assert record["values"]["imagesDir"] == "/data/images"
    assert set(record["given"]) == {*required, "focalGamma", "lossName"}


def test_what_was_not_given_stays_so_in_json(required: dict[str, Any]) -> None:
    # tverskyAlpha is written with its default; read back, it must not count as given without its loss.
    record = RunSettings.from_flags(required).to_json()
    assert record["values"]["tverskyAlpha"] == 0.5
    assert RunSettings.from_json(record).model_fields_set == RunSettings.from_flags(required).model_fields_set


def test_json_that_was_changed_by_hand_is_checked(required: dict[str, Any]) -> None:
    record = RunSettings.from_flags(required).to_json()
    record["values"] |= {"patience": 0, "fromTheFuture": 1}
    with pytest.raises(SettingsError) as caught:
        RunSettings.from_json(record)
    assert "--patience must be a whole number >= 1, got 0" in str(caught.value)
    assert "--fromTheFuture is not a flag of tune-smp train" in str(caught.value)
