"""Where the token of a Ray of our own lies, with a home folder and without one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import ray

from tune_smp.tuning.cluster import local_ray
from tune_smp.tuning.own_token import TOKEN_PATH, token_in_reach


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("home", [None, "a file", "a file/below"])
def test_without_a_home_the_token_is_private_and_goes_with_ray(
    home: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", str(tmp_path / home))
    tokens = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with token_in_reach(tmp_path / name):
            path = Path(os.environ[TOKEN_PATH])
            assert path.parent == tmp_path / name
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            tokens.append(path.read_text("utf-8"))
        assert TOKEN_PATH not in os.environ
    assert len(set(tokens)) == 2
    assert all(len(token) == 64 for token in tokens)


def test_a_home_keeps_the_token_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with token_in_reach(tmp_path / "nowhere"):
        assert TOKEN_PATH not in os.environ
    assert stat.S_IMODE((tmp_path / ".ray").stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["RAY_AUTH_TOKEN", TOKEN_PATH])
def test_a_token_that_is_given_stays(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setenv(name, "given")
    with token_in_reach(tmp_path):
        assert os.environ[name] == "given"
    assert os.environ[name] == "given"
    assert list(tmp_path.iterdir()) == []


def test_ray_starts_without_a_home_and_asks_for_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))  # nobody can make it, not even root
    with local_ray(device="cpu") as resources:
        assert ray.get(ray.remote(lambda: 7).remote()) == 7
        assert os.environ["RAY_AUTH_MODE"] == "token"
        kept, _, source = resources.token.partition(" ")
        assert source == "(RAY_AUTH_TOKEN_PATH)"
        assert stat.S_IMODE(Path(kept).stat().st_mode) == 0o600
    assert not Path(kept).exists()
