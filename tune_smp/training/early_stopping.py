"""When to stop: a run compared with itself, on the validation loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# 0.3 - 0.2 is a hair less than 0.1: a fall of exactly min_delta counts, whatever the floating-point rounding.
ROUNDING = 1e-9


@dataclass
class EarlyStopping:
    """Counts epochs since the validation loss last fell by at least ``min_delta`` below the best one that counted.

    Falls smaller than ``min_delta`` add up: the loss is compared with the last one that counted, not with the one
    before. With ``min_delta`` 0 every fall counts, standing still does not. A loss that is not finite never counts.
    """

    patience: float  # infinite: never
    min_delta: float
    best_loss: float = math.inf
    epochs_without_improvement: int = 0

    @property
    def is_over(self) -> bool:
        """Whether ``patience`` epochs in a row brought no improvement."""
        return self.epochs_without_improvement >= self.patience

    def update(self, loss: float) -> bool:
        """Take one epoch's validation loss; whether that was enough."""
        if self._improves(loss):
            self.best_loss = loss
            self.epochs_without_improvement = 0
        else:
            self.epochs_without_improvement += 1
        return self.is_over

    def _improves(self, loss: float) -> bool:
        fall = self.best_loss - loss
        enough = fall >= self.min_delta or math.isclose(fall, self.min_delta, rel_tol=ROUNDING)
        return math.isfinite(loss) and fall > 0 and enough

    def state_dict(self) -> dict[str, float | int]:
        """Return what happened so far; patience and min_delta are settings."""
        state = asdict(self)
        return {name: state[name] for name in ("best_loss", "epochs_without_improvement")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from an earlier ``state_dict``."""
        self.best_loss = float(state["best_loss"])
        self.epochs_without_improvement = int(state["epochs_without_improvement"])
