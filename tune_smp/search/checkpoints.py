"""The checkpoints that Ray leaves behind: find the newest whole one, keep it, remove the others."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_smp.errors import DataError
from tune_smp.search.trainable import CHECKPOINT_NAME
from tune_smp.training import checkpoint

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A checkpoint file and the state in it."""

    path: Path
    state: Mapping[str, Any]


def newest_whole(trials: Path, final: Path) -> SavedRun | None:
    """The newest checkpoint that can be read: of those below Ray's folder ``trials``, else ``final``.

    ``final`` is what an earlier session kept, so anything below ``trials`` is newer. A checkpoint that a kill cut short
    is passed over: the one before it is still there.
    """
    for path in [*_by_age(trials), final]:
        if path.exists():
            try:
                return SavedRun(path, checkpoint.load(path))
            except DataError as error:
                logger.warning("passed over a checkpoint that cannot be read: %s", error)
    return None


def keep_newest(saved: SavedRun, final: Path, *, trials: Path) -> None:
    """Make ``saved`` the run's ``final`` checkpoint, then remove Ray's."""
    if saved.path != final:
        checkpoint.save(saved.state, final)
    for folder in trials.glob("**/checkpoint_*"):
        shutil.rmtree(folder, ignore_errors=True)


def _by_age(trials: Path) -> list[Path]:
    found = trials.glob(f"**/checkpoint_*/{CHECKPOINT_NAME}")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)
