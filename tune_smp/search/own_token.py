"""A token for a Ray of our own where there is no home folder to keep one in."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import ray

VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@contextlib.contextmanager
def token_beside_ray(folder: Path) -> Iterator[None]:
    """Keep a token in ``folder`` for as long as the block lasts, unless there is one, or a home that takes one.

    Ray puts its token into ~/.ray and does not start where it cannot: containers may run as a user without a home, or
    with one that cannot be written.
    """
    if any(os.environ.get(name) for name in VARIABLES) or _home_takes_a_token():
        yield
        return
    file = folder / "auth_token"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(file)  # inherited by all of Ray's processes
    _look_for_the_token_anew()
    try:
        yield
    finally:
        del os.environ["RAY_AUTH_TOKEN_PATH"]
        _look_for_the_token_anew()


def _home_takes_a_token() -> bool:
    """Whether a token is in the home folder, or can be put there; makes the folder for it, as Ray does."""
    try:
        folder = Path.home() / ".ray"
        if (folder / "auth_token").is_file():
            return True
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _look_for_the_token_anew() -> None:
    """Ray remembers the first token that it found."""
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
