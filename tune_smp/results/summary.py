"""summary.json and settings.json: what came out of a run and what went in, for programs."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, dataclass
from typing import Any

from tune_smp import __version__
from tune_smp.results.folder import RunFolder, write_json

# The libraries that decide the numbers of a run.
DECISIVE = ("torch", "segmentation-models-pytorch", "timm", "ray", "numpy", "bfio", "filepattern", "tifffile")


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run ended.

    ``state`` is completed, early_stopped, diverged, failed or interrupted; ``best_metric`` is the validation metric of
    ``best_epoch``, whose weights are in ``model``, and ``class_iou`` the IoU of each class then; ``trials`` counts
    trials by state; ``reason`` says what ended a run that failed.
    """

    command: str
    state: str
    metric: str
    best_metric: float | None
    best_epoch: int | None
    epochs: int
    model: str | None
    seconds: float
    class_iou: dict[str, float | None]
    trials: dict[str, int]
    reason: str | None = None

    def write(self, folder: RunFolder) -> None:
        """Write summary.json."""
        write_json(folder.summary, asdict(self))


def versions() -> dict[str, str]:
    """tune-smp, Python and the libraries that decide the numbers of a run."""
    return {
        "tune-smp": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in DECISIVE},
    }


def write_settings(folder: RunFolder, command: str, settings: dict[str, Any]) -> None:
    """Write settings.json: what was chosen, and with which versions it ran."""
    write_json(folder.settings, {"command": command, "settings": settings, "versions": versions()})
