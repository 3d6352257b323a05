"""Flags and what is said about them."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from tune_smp.settings.commands import DemoSettings
from tune_smp.settings.data import CheckSettings
from tune_smp.settings.fields import GROUPS, Flag, flag_name, flags_of
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.run import RunSettings

ALL = [
    pytest.param(flag, id=f"{settings.__name__}-{flag.name}")
    for settings in (RunSettings, CheckSettings, PredictSettings, DemoSettings)
    for flag in flags_of(settings)
]

WIPP_FLAGS = {
    "pretrainedModel",
    "modelName",
    "encoderBaseVariantWeights",
    "optimizerName",
    "batchSize",
    "imagesDir",
    "labelsDir",
    "imagesPattern",
    "labelsPattern",
    "trainFraction",
    "segmentationMode",
    "lossName",
    "metricName",
    "maxEpochs",
    "patience",
    "minDelta",
    "outputDir",
}


@pytest.mark.parametrize(
    ("field", "flag"),
    [
        ("batch_size", "batchSize"),
        ("encoder_base_variant_weights", "encoderBaseVariantWeights"),
        ("seed", "seed"),
        ("export_onnx", "exportOnnx"),
    ],
)
def test_names(field: str, flag: str) -> None:
    assert flag_name(field) == flag


@pytest.mark.parametrize("flag", ALL)
def test_every_flag_is_documented(flag: Flag) -> None:
    assert flag.about.group in GROUPS
    assert flag.description.endswith(".")
    assert flag.description == flag.description.strip()
    assert flag.required or flag.default != "", "help can say what happens without it"
    assert not flag.range or flag.kind in ("integer", "number")
    assert flag.kind == "path" or not flag.about.folder


def test_the_17_flags_of_the_plugin() -> None:
    assert {flag.name for flag in flags_of(RunSettings) if flag.about.wipp} == WIPP_FLAGS


def test_what_the_interface_requires_is_required() -> None:
    required = {flag.name for flag in flags_of(RunSettings) if flag.required}
    assert required == {"imagesDir", "labelsDir", "imagesPattern", "labelsPattern", "segmentationMode", "outputDir"}


@pytest.mark.parametrize("settings", [RunSettings, PredictSettings])
def test_flags_come_group_by_group(settings: type[BaseModel]) -> None:
    groups = [flag.about.group for flag in flags_of(settings)]
    assert groups == sorted(groups, key=GROUPS.index)


def test_a_flag_says_its_range_unit_and_default() -> None:
    flags = {flag.name: flag for flag in flags_of(RunSettings)}
    assert flags["trainFraction"].range == "> 0 and < 1"
    assert flags["tileSize"].about.unit == "px"
    assert flags["batchSize"].default == "the largest that fits, measured"
    assert flags["dashboard"].default == "true"
    assert flags["device"].choices == ("auto", "cpu", "gpu")
    assert flags["patience"].expectation == "a whole number >= 1"
