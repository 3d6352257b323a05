"""--labelColors: text, JSON, or a JSON file, all meaning the same; everything wrong with it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_smp.errors import SettingsError
from tune_smp.settings.data import CheckSettings
from tune_smp.settings.label_colors import label_colors

FOLDERS = {"imagesDir": "i", "labelsDir": "l", "imagesPattern": ".*", "labelsPattern": ".*"}
MEANT = {"background": 0x000000, "cell": 0xFF0080}


def settings(colors: Any, mode: str = "multiclass") -> CheckSettings:
    return CheckSettings.from_flags({**FOLDERS, "segmentationMode": mode, "labelColors": colors})


@pytest.mark.parametrize(
    "text",
    [
        "background=#000000,cell=#ff0080",
        " background = 000000 , cell=#FF0080",
        '{"background": "#000000", "cell": "#FF0080"}',
    ],
)
def test_every_way_to_write_them_means_the_same(text: str, tmp_path: Path) -> None:
    assert label_colors(settings(text).label_colors) == MEANT
    if text.startswith("{"):
        file = tmp_path / "colors.json"
        file.write_text(text)
        from_file = settings(str(file))
        file.unlink()  # what it held is kept
        assert label_colors(CheckSettings.from_json(from_file.to_json()).label_colors) == MEANT


def test_none_are_no_colors() -> None:
    assert label_colors(settings(None).label_colors) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a=#000000,a=#ffffff", "every name may occur once in the label colours, a does not"),
        ("a=#00ff00,b=00FF00", "every colour may occur once in the label colours, 00ff00 does not"),
        ("a=#000000,b=red", "colours are #rrggbb, 1 are not"),
        ("a=#000000,ignore=#ffffff", "label colours need 2 to 255 classes, there are 1"),
        ("cell", "'cell' is no name=#rrggbb"),
        ("nowhere.json", "there is no such file"),
        ('{"a": 1, "b": 2}', "must map names to colours"),
        ("{", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(text)


def test_classes_that_overlap_cannot_be_colors() -> None:
    with pytest.raises(SettingsError, match="a pixel has one colour") as caught:
        settings("a=#000000,a=red", "multilabel")
    assert len(caught.value.problems) == 3
