"""What all tests share: where the repository is and where the real collections may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# As the program itself does: torch on shared cores must not spin. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real collections beside the repository; absent in a lone clone."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real collections (../shared/data) are not beside this clone")
    return folder
