"""The losses, of segmentation-models-pytorch and pairs of them, and what each can be trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

MODES = ("binary", "multilabel", "multiclass")

_ALL = frozenset(MODES)


@dataclass(frozen=True, slots=True)
class Loss:
    """One loss.

    ``modes``: the segmentation modes it is defined for. ``expects``: what it is computed
    from: a model gives logits, which are made probabilities for those that take them. ``parameters``: the
    settings it reads beyond the common ones.
    """

    name: str
    summary: str
    modes: frozenset[str] = _ALL
    expects: Literal["logits", "probabilities"] = "logits"
    parameters: tuple[str, ...] = ()


_ROWS = (
    Loss("JaccardLoss", "1 - IoU; good where the foreground is small", expects="probabilities"),
    Loss("DiceLoss", "1 - Dice coefficient; as Jaccard, softer", expects="probabilities"),
    Loss(
        "TverskyLoss",
        "Dice with separate weights for false positives (alpha) and false negatives (beta)",
        expects="probabilities",
        parameters=("tversky_alpha", "tversky_beta"),
    ),
    Loss("FocalLoss", "cross-entropy that looks at hard pixels (gamma)", parameters=("focal_gamma",)),
    Loss("LovaszLoss", "convex surrogate of the IoU; good for fine tuning"),
    Loss("SoftBCEWithLogitsLoss", "binary cross-entropy; in multiclass mode on one-hot masks"),
    Loss("SoftCrossEntropyLoss", "cross-entropy between exclusive classes", modes=frozenset({"multiclass"})),
    Loss("MCCLoss", "1 - Matthews correlation; balanced over all four counts", expects="probabilities"),
    Loss(
        "DiceCELoss",
        "diceWeight of Dice, the rest cross-entropy (binary where classes may overlap)",
        parameters=("dice_weight",),
    ),
    Loss("DiceFocalLoss", "diceWeight of Dice, the rest focal loss (gamma)", parameters=("dice_weight", "focal_gamma")),
)

LOSSES: Mapping[str, Loss] = MappingProxyType({row.name: row for row in _ROWS})
