"""Checkpoints: a run's state as one file that appears whole or not at all, and is never executed when read."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tune_smp.errors import Problem, ResourceError, file_error
from tune_smp.training.run_state import RunState
from tune_smp.writing import whole_file

KIND = "tune-smp checkpoint"
FORMAT = 1
"""Goes up when an older program could misread the file."""


def save(state: Mapping[str, object], path: Path) -> None:
    """Write numbers, text, tensors and containers of these to ``path``.

    Raises ResourceError where it cannot be written (disk full); what was at ``path`` before is then still there.
    """
    try:
        with whole_file(path) as temporary:
            torch.save({"kind": KIND, "format": FORMAT, "state": dict(state)}, temporary)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's zip writer, where the disk fills on the way
        fix = "free some space, or choose another folder"
        raise ResourceError(Problem(f"the checkpoint cannot be written: {error}", str(path), fix)) from error


def load(path: Path) -> RunState:
    """The state that ``save`` wrote, on the CPU.

    Raises DataError, having executed nothing, for a file that is missing, cut short, no checkpoint of tune-smp, of a
    newer format, or a pickle that holds more than numbers, text and tensors.
    """
    return state_in(read(path), path)


def read(path: Path) -> Any:
    """Read a file that torch wrote: numbers, text, tensors and containers of these, on the CPU.

    Raises DataError, having executed nothing, for a file that is missing, cut short, or holds anything else.
    """
    try:
        with warnings.catch_warnings():
            # torch warns of the pickles that it refuses a moment later.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise file_error(path, "there is no such checkpoint", "pass the folder that a run wrote") from error
    except pickle.UnpicklingError as error:
        reason = "the file holds more than weights, so it was not opened further and nothing in it was executed"
        fix = "pass a checkpoint.pth of tune-smp or of the original WIPP plugin, or an exported model/ (safetensors)"
        raise file_error(path, reason, fix) from error
    except Exception as error:  # the file can be anything, and so can what torch's reader makes of it
        reason = f"the file is damaged or no checkpoint ({type(error).__name__})"
        raise file_error(path, reason, "copy it again, or use an earlier checkpoint") from error


def state_in(content: Any, path: Path) -> RunState:
    """The state in what ``read`` found at ``path``. Raises DataError where it is none, or of a newer format."""
    if not isinstance(content, dict) or content.get("kind") != KIND or not isinstance(content.get("state"), dict):
        raise file_error(path, "the file is no checkpoint of tune-smp", "pass the folder that a run of tune-smp wrote")
    if content.get("format") != FORMAT:
        versions = f"format {content.get('format')!r}, this program reads format {FORMAT}"
        raise file_error(path, f"another version of tune-smp wrote the checkpoint ({versions})", "use that version")
    state: RunState = content["state"]
    return state
