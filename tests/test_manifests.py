"""README.md tells of every flag what the program tells of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_smp.errors import DataError
from tune_smp.manifests import readme_flag_table, readme_predict_flag_table, readme_search_flag_table, with_tables
from tune_smp.settings.fields import flags_of
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings

EMPTY = (
    "# x\n<!-- flags:begin -->old<!-- flags:end -->\ny\n<!-- search-flags:begin --><!-- search-flags:end -->\n"
    "<!-- predict-flags:begin --><!-- predict-flags:end -->\nz\n"
)


def test_readme_is_up_to_date(repository: Path) -> None:
    text = (repository / "README.md").read_text("utf-8")
    assert text == with_tables(text), "run: python -m tune_smp.manifests"


def test_every_flag_has_a_row() -> None:
    rows = readme_flag_table().splitlines()
    for flag in flags_of(RunSettings):
        name = f"**`{flag.option}`**" if flag.about.wipp else f"`{flag.option}`"
        (row,) = [row for row in rows if row.startswith(f"| {name} |")]
        assert flag.about.description in row
        assert ("*required*" in row) == flag.required
    assert sum(row.startswith("| **`--") for row in rows) == 17
    for flag in flags_of(SearchSettings):
        assert (f"| `{flag.option}` |" in readme_search_flag_table()) == (flag.field not in RunSettings.model_fields)
    for flag in flags_of(PredictSettings):
        assert f"| `{flag.option}` |" in readme_predict_flag_table()


def test_every_row_has_four_cells() -> None:
    rows = [row for row in readme_flag_table().splitlines() if row]
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}


def test_only_what_is_between_the_markers_changes() -> None:
    text = with_tables(EMPTY)
    assert text.startswith("# x\n<!-- flags:begin -->\n\n| Data |")
    assert "old" not in text.partition("<!-- flags:end -->")[0].split("|")[0]
    assert text.endswith("<!-- predict-flags:end -->\nz\n")
    assert "<!-- flags:end -->\ny\n<!-- search-flags:begin -->" in text
    assert "<!-- search-flags:end -->\n<!-- predict-flags:begin -->" in text
    assert with_tables(text) == text


@pytest.mark.parametrize("marker", ["<!-- flags:begin -->", "<!-- predict-flags:end -->"])
def test_a_missing_marker_is_named(marker: str) -> None:
    with pytest.raises(DataError, match=marker):
        with_tables(EMPTY.replace(marker, ""))
