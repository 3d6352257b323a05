"""Where the token of our own Ray lies when the home folder cannot hold it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import ray

from tune_smp.search.cluster import local_ray
from tune_smp.search.own_token import TOKEN_PATH, token_in_reach


@pytest.fixture
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder that nobody can make, not even root: a file is in its way."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv(TOKEN_PATH, raising=False)
    return tmp_path


def test_a_home_that_takes_a_token_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv(TOKEN_PATH, raising=False)
    with token_in_reach(tmp_path):
        assert TOKEN_PATH not in os.environ
    assert (tmp_path / "home" / ".ray").is_dir()
    assert not (tmp_path / "auth_token").exists()


def test_a_token_that_is_named_is_left_alone(no_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = str(no_home / "named")
    monkeypatch.setenv(TOKEN_PATH, named)
    with token_in_reach(no_home):
        assert os.environ[TOKEN_PATH] == named
    assert os.environ[TOKEN_PATH] == named


def test_a_token_for_want_of_a_home_is_new_and_private(no_home: Path) -> None:
    tokens = set()
    for name in ("first", "second"):
        folder = no_home / name
        folder.mkdir()
        with token_in_reach(folder):
            assert os.environ[TOKEN_PATH] == str(folder / "auth_token")
            tokens.add((folder / "auth_token").read_text("utf-8"))
        assert (folder / "auth_token").stat().st_mode & 0o777 == 0o600
        assert TOKEN_PATH not in os.environ
    assert len(tokens) == 2
    assert {len(token) for token in tokens} == {64}


def test_ray_starts_without_a_home_and_asks_for_the_token(no_home: Path) -> None:
    with local_ray(device="cpu") as resources:
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
        assert os.environ["RAY_AUTH_MODE"] == "token"
        kept, _, source = resources.token.partition(" ")
        assert source == "(RAY_AUTH_TOKEN_PATH)"
        assert Path(kept).stat().st_mode & 0o777 == 0o600
    assert not Path(kept).exists()
