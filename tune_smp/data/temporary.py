"""The folder for files that are not kept."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tune_smp.errors import Problem, ResourceError

WAY_OUT = "in a container: docker run --tmpfs /tmp; elsewhere name a folder that this user can write, by TMPDIR"


def temporary_folder() -> Path:
    """The system's folder for temporary files.

    Raises:
        ResourceError: none can be written, as in a container whose root is read-only.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise ResourceError(
            Problem("there is no folder for temporary files that can be written", "TMPDIR, /tmp, /var/tmp", WAY_OUT)
        ) from error
