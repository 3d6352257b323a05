"""Exported models on disk: found in two places, refused when half copied, mixed up or newer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tune_smp.data.preprocessing import FILE_NAME
from tune_smp.errors import DataError
from tune_smp.inference.model_folder import FILES, open_model

Make = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, export: Make, make_preprocessing: Make) -> Path:
    export(tmp_path / "run" / "model", make_preprocessing())
    return tmp_path / "run"


def test_the_output_folder_and_its_model_are_the_same(folder: Path, make_preprocessing: Make) -> None:
    for path in (folder, folder / "model"):
        exported = open_model(path)
        assert exported.path == folder / "model"
        assert exported.preprocessing == make_preprocessing()


def test_the_network_comes_with_its_weights(tmp_path: Path, export: Make, make_preprocessing: Make) -> None:
    written = export(tmp_path, make_preprocessing())
    loaded = open_model(tmp_path).load()
    image = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), written(image))


@pytest.mark.parametrize("name", FILES)
def test_a_half_copied_folder_names_what_is_missing(folder: Path, name: str) -> None:
    (folder / "model" / name).unlink()
    with pytest.raises(DataError, match=rf"lacks {name}\n.*--model"):
        open_model(folder)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such model folder\n.*nowhere"):
        open_model(tmp_path / "nowhere")


def test_files_of_two_models(folder: Path, make_preprocessing: Make) -> None:
    (folder / "model" / FILE_NAME).write_text(json.dumps(make_preprocessing("multiclass", channels=3).to_json()))
    with pytest.raises(DataError, match=r"1 channels and 1 classes, .* 3 and 3\n(.|\n)*files of two models"):
        open_model(folder)
