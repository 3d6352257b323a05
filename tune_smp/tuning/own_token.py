"""A token for a Ray of our own, where this user has no home folder to keep one in."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from tune_smp.tuning.ray_private import forget_token

TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"  # noqa: S105  the name of a variable


@contextlib.contextmanager
def token_in_reach(folder: Path) -> Iterator[None]:
    """Let Ray find a token while the block lasts: in ~/.ray, as ever, or in ``folder`` where that cannot be written.

    Ray writes its token to ~/.ray/auth_token and does not start where it cannot: in a container with an arbitrary user,
    without HOME, or with a read-only root.
    """
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", TOKEN_PATH)) or _home_keeps_it():
        yield
        return
    path = folder / "auth_token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32), "utf-8")
    os.environ[TOKEN_PATH] = str(path)
    forget_token()
    try:
        yield
    finally:
        del os.environ[TOKEN_PATH]
        forget_token()


def _home_keeps_it() -> bool:
    """Whether there is a token in the home folder, or space for one. Part of Ray knows the home by HOME alone."""
    try:
        folder = Path(os.environ["HOME"]) / ".ray"
        folder.mkdir(mode=0o700, exist_ok=True)
        token = folder / "auth_token"
        return os.access(token, os.R_OK) if token.exists() else os.access(folder, os.W_OK | os.X_OK)
    except (KeyError, OSError):
        return False
