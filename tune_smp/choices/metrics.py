"""The metrics; higher is better for every one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DEFAULT_THRESHOLD = 0.5
"""A pixel is of a class, in binary and multilabel mode, where that is likelier than this."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: the name that users write, the key of reports and columns, the formula in words.

    ``has_best_threshold``: there is a threshold of probability at which it is highest, and which is of use. Recall is
    highest where everything is predicted, precision where next to nothing is.
    """

    name: str
    key: str
    summary: str
    has_best_threshold: bool = True

    @property
    def column(self) -> str:
        """Its column in history.csv."""
        return f"val_{self.key}"


_ROWS = (
    Metric("IoU", "iou", "intersection over union: tp / (tp + fp + fn)"),
    Metric("Fscore", "fscore", "F1, the Dice coefficient: 2 tp / (2 tp + fp + fn)"),
    Metric(
        "Accuracy", "accuracy", "share of right pixels: (tp + tn) / all; flatters where background is most of the image"
    ),
    Metric("Recall", "recall", "share of the foreground that is found: tp / (tp + fn)", has_best_threshold=False),
    Metric(
        "Precision",
        "precision",
        "share of what is found that is foreground: tp / (tp + fp)",
        has_best_threshold=False,
    ),
)

METRICS: Mapping[str, Metric] = MappingProxyType({row.name: row for row in _ROWS})
