"""Search spaces by name and by path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_smp.errors import SettingsError
from tune_smp.tuning.space_file import named_spaces, read_space


def test_spaces_are_read_by_name_and_by_path(tmp_path: Path) -> None:
    assert read_space("quick").name == "quick"
    copy = tmp_path / "my space.yaml"
    copy.write_text("\ufeff" + read_space("quick").text, encoding="utf-8")
    space = read_space(str(copy))
    assert space.name == str(copy)
    assert [row.flag for row in space.parameters] == [row.flag for row in read_space("quick").parameters]


def test_a_name_rules_over_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").write_text("search: {batchSize: [1, 2]}\n", encoding="utf-8")
    assert "modelName" in read_space("quick").searched
    assert read_space("./quick").searched == ("batchSize",)


@pytest.mark.parametrize("name", ["balansed", "/nowhere/balanced.yaml", "~nobody-here/x.yaml", "", "a\0b", "x" * 300])
def test_a_space_that_is_not_there(name: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_space(name)
    (told,) = caught.value.problems
    assert told.problem == f"there is no search space {name!r}"
    assert told.fix.endswith("one of: balanced, fine_tune, quick, thorough; or the path of a file")
    assert told.fix.startswith("did you mean 'balanced'? ") == (name == "balansed")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(b"search: \xff\xfe\n")
    with pytest.raises(SettingsError) as caught:
        read_space(str(path))
    (told,) = caught.value.problems
    assert told.problem.startswith("the search space cannot be read: ")
    assert told.where == f"--searchSpace {path}"
    assert "UTF-8" in told.fix


def test_problems_of_a_file_name_its_path(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("search:\n  batchsize: [1, 2]\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        read_space(str(path))
    assert caught.value.problems[0].where == f"{path}, line 2"


def test_shipped_spaces_have_descriptions_and_names() -> None:
    spaces = named_spaces()
    assert {"balanced", "fine_tune", "quick", "thorough"} <= set(spaces)
    for name in spaces:
        assert len(read_space(name).description) > 20
