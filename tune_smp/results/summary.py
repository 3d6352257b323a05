"""summary.json and settings.json: what came out of a run and what went in, for programs."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from tune_smp import __version__
from tune_smp.choices.metrics import DEFAULT_THRESHOLD
from tune_smp.results.folder import RunFolder, read_json, write_json
from tune_smp.training.run_state import Used

logger = logging.getLogger(__name__)

# The libraries that decide the numbers of a run.
DECISIVE = ("torch", "segmentation-models-pytorch", "timm", "ray", "optuna", "numpy", "bfio", "filepattern", "tifffile")


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run or a search ended.

    ``command`` is train or search. ``state``: of a train completed, early_stopped, diverged, failed or interrupted; of
    a search completed, out_of_time, interrupted or failed (no trial gave a model). ``best_metric`` is the validation
    metric of ``best_epoch`` of ``best_trial``, whose weights are in ``model``, and ``class_iou`` the IoU of each class
    then, both above the ``thresholds`` of probability that suit each class best (none in multiclass mode);
    ``metric_at_half`` is the metric of that epoch above 0.5; ``evaluated_metric`` was measured on the exported model;
    ``ensemble``, where one was asked for, is what ensemble.json holds, and whether it ``won`` and was exported;
    ``default_metric`` is that of trial 0 of a search, the plain default. ``trials`` counts trials by state; ``epochs``
    were run, ``epochs_saved`` were not, by ending trials early. ``importances`` are shares of the searched flags in the
    differences between trials; ``reproduce`` is the command that trains the best trial again; ``final`` of a search has
    the means of the trials that were run again on fresh seeds; ``refit`` the model that was trained on all images;
    ``reason`` says why there is no model.
    """

    command: str
    state: str
    metric: str
    best_metric: float | None = None
    best_epoch: int | None = None
    best_trial: int | None = None
    default_metric: float | None = None
    trials: dict[str, int] = field(default_factory=dict)
    epochs: int = 0
    epochs_saved: int = 0
    evaluated_metric: float | None = None
    model: str | None = None
    class_iou: dict[str, float | None] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    metric_at_half: float | None = None
    ensemble: dict[str, Any] | None = None
    importances: dict[str, float] = field(default_factory=dict)
    reproduce: str | None = None
    final: dict[str, Any] | None = None
    refit: dict[str, Any] | None = None
    seconds: float = 0.0
    reason: str | None = None

    @property
    def threshold_words(self) -> str:
        """``above 0.42; 0.8740 above 0.5``, or nothing where every class has the usual threshold."""
        if not self.thresholds or self.metric_at_half is None or set(self.thresholds.values()) == {DEFAULT_THRESHOLD}:
            return ""
        chosen = ", ".join(f"{threshold:.2f}" for threshold in self.thresholds.values())
        return f"above {chosen}; {self.metric_at_half:.4f} above {DEFAULT_THRESHOLD}"

    def write(self, folder: RunFolder) -> None:
        """Write summary.json."""
        write_json(folder.summary, asdict(self))


@contextlib.contextmanager
def noting_interruption(folder: RunFolder, summary: Callable[[], Summary]) -> Iterator[None]:
    """Leave a summary behind, the ``summary`` of an interruption, where the block is left at once by a second Ctrl-C.

    One that is there is kept: that of an earlier session, which was interrupted too.
    """
    try:
        yield
    except KeyboardInterrupt:
        if not folder.summary.exists():
            summary().write(folder)
        raise


def versions() -> dict[str, str]:
    """tune-smp, Python and the libraries that decide the numbers of a run."""
    return {
        "tune-smp": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in DECISIVE},
    }


def write_used(folder: RunFolder, used: Used) -> None:
    """Add to settings.json what ran: values that settings leave open, or that the machine decides."""
    record = read_json(folder.settings)
    if record.get("used") != used:
        logger.info("what runs: %s", ", ".join(f"{name} {value}" for name, value in used.items()))
        write_json(folder.settings, {**record, "used": dict(used)})


def write_settings(folder: RunFolder, command: str, settings: dict[str, Any], **more: Any) -> None:
    """Write settings.json: what was chosen, and with which versions it ran."""
    write_json(folder.settings, {"command": command, "settings": settings, "versions": versions(), **more})
