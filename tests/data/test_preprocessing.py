"""preprocessing.json: what is written is read back, and what cannot be read is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tune_smp.data.labels import ClassMap
from tune_smp.data.normalization import Normalization
from tune_smp.data.preprocessing import FILE_NAME, FORMAT_VERSION, Preprocessing, read_preprocessing
from tune_smp.data.view_gains import ViewGains, ViewScore
from tune_smp.errors import DataError

RECORD = Preprocessing(
    class_map=ClassMap("multiclass", (0, 3, 7), ignore_value=11, names=("0", "3", "7")),
    normalization=Normalization("zscore", "collection", (0.5, 0.25), (-1.0, 0.0)),
    channels=2,
    tile_size=224,
    divisor=32,
    fixed_tile_size=224,
    architecture="DPT",
    encoder="tu-vit_base_patch16_224",
    encoder_weights="imagenet",
    tune_smp_version="0.1.0",
    channel_variable="c",
    channel_values=(0, "dapi"),
    metric={"name": "IoU", "value": 0.83, "epoch": 7},
)


def write(folder: Path, document: Any) -> Path:
    (folder / FILE_NAME).write_text(json.dumps(document))
    return folder


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    for record in (RECORD, replace(RECORD, fixed_tile_size=None, channel_variable=None, encoder_weights=None)):
        assert read_preprocessing(write(tmp_path, record.to_json())) == record


def test_keys_that_are_unknown_are_left_alone(tmp_path: Path) -> None:
    assert read_preprocessing(write(tmp_path, {**RECORD.to_json(), "later": 1})) == RECORD


def test_a_newer_format_tells_both_numbers(tmp_path: Path) -> None:
    # A newer format may hold anything else: the version is looked at first.
    with pytest.raises(DataError, match=rf"format {FORMAT_VERSION + 6}.* up to {FORMAT_VERSION}\n.*{FILE_NAME}"):
        read_preprocessing(write(tmp_path, {"format_version": FORMAT_VERSION + 6}))


BINARY = replace(
    RECORD, class_map=ClassMap("binary", (0, 255), names=("foreground",)), thresholds=(0.375,), fixed_tile_size=None
)


def test_models_without_thresholds_have_the_usual_one(tmp_path: Path) -> None:
    document = BINARY.to_json()
    assert read_preprocessing(write(tmp_path, document)).class_thresholds == (0.375,)
    del document["thresholds"]
    assert read_preprocessing(write(tmp_path, document)).class_thresholds == (0.5,)


@pytest.mark.parametrize("thresholds", [[0.5, 0.5], ["0.5"], [0], [1.5], [True], 0.5, {"a": 0.5}, None])
def test_thresholds_that_cannot_be(tmp_path: Path, thresholds: Any) -> None:
    document = {**BINARY.to_json(), "thresholds": thresholds}
    with pytest.raises(DataError, match=r"thresholds must be a number between 0 and 1 for each class \(1\), received"):
        read_preprocessing(write(tmp_path, document))


SCORES = {"none": ViewScore(0.8, 0.5), "flips": ViewScore(0.81, 2.0), "all": ViewScore(0.8105, 4.0)}
GAINS = ViewGains.of(SCORES, metric="IoU", images=3, device="cpu")  # type: ignore[arg-type]


def test_what_views_gain_is_read_back_where_it_was_measured(tmp_path: Path) -> None:
    document = replace(RECORD, views=GAINS).to_json()
    found = read_preprocessing(write(tmp_path, document)).views
    assert found == GAINS
    assert (found.recommended, found.factor("flips")) == ("flips", 4.0)
    del document["views"]
    assert read_preprocessing(write(tmp_path, document)).views is None


@pytest.mark.parametrize(
    "change",
    [
        {"presets": {}},
        {"presets": 3},
        {"recommended": "sixteen"},
        {"recommended": []},
        {"images": "many"},
        {"presets": {**GAINS.to_json()["presets"], "flips": {"metric": None, "seconds_per_megapixel": 1.0}}},
        {"presets": {**GAINS.to_json()["presets"], "none": {"metric": 0.8, "seconds_per_megapixel": 0}}},
    ],
)
def test_views_that_cannot_be(tmp_path: Path, change: dict[str, Any]) -> None:
    views = {**GAINS.to_json(), **change}
    with pytest.raises(DataError, match=rf"views cannot be read: (.|\n)*{FILE_NAME}"):
        read_preprocessing(write(tmp_path, {**RECORD.to_json(), "views": views}))


OPTIONAL = ("format_version", "thresholds", "views")


@pytest.mark.parametrize("key", [key for key in RECORD.to_json() if key not in OPTIONAL])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    document = RECORD.to_json()
    del document[key]
    with pytest.raises(DataError, match=rf"lacks {key}\n"):
        read_preprocessing(write(tmp_path, document))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", "1"),
        ("channels", "two"),
        ("channels", 0),
        ("channels", True),
        ("tile_size", -32),
        ("tile_size", 1.5),
        ("fixed_tile_size", 0),
        ("encoder", None),
        ("segmentation_mode", "binary"),
        ("class_map", {}),
        ("class_map", {"mode": "multiclass", "values": [], "ignore_value": None, "names": []}),
        ("class_map", {"mode": "multiclass", "values": 3, "ignore_value": None, "names": []}),
        ("class_map", {"mode": "multiclass", "values": ["a"], "ignore_value": None, "names": ["a"]}),
        ("normalization", {"method": "magic", "scope": "image"}),
        ("normalization", {"method": "zscore", "scope": "collection", "scale": [1.0], "offset": [0.0]}),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_the_file_named(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(DataError, match=key[:7]) as told:
        read_preprocessing(write(tmp_path, {**RECORD.to_json(), key: value}))
    assert FILE_NAME in str(told.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b"null"])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(DataError, match=FILE_NAME):
        read_preprocessing(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"has no {FILE_NAME}\n.*{tmp_path.name}"):
        read_preprocessing(tmp_path)
