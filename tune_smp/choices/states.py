"""States of trials, and of what a command leaves behind: what each means to whoever asks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

OptunaState = Literal["COMPLETE", "PRUNED", "FAIL", "WAITING", "RUNNING"]


@dataclass(frozen=True, slots=True)
class State:
    """One state.

    ``words``: how a line of text says it. ``headline``: how the report of a single run says it. ``in_optuna``: Optuna's
    state of such a trial. ``has_ended``: the trial will not be resumed. ``ended_well``: nothing
    went wrong, and its best epoch is worth exporting. ``is_final``: a run in this state leaves nothing to resume.
    ``saves_epochs``: the epochs it did not run count as saved.
    """

    name: str
    words: str
    headline: str
    in_optuna: OptunaState
    has_ended: bool = True
    ended_well: bool = False
    is_final: bool = False
    saves_epochs: bool = False

    @property
    def went_wrong(self) -> bool:
        """Whether the trial ended without anything worth exporting."""
        return self.has_ended and not self.ended_well


_TRIAL_STATES = (
    State(
        *("completed", "completed", "finished after all its epochs", "COMPLETE"),
        ended_well=True,
        is_final=True,
    ),
    State(
        *("early_stopped", "stopped early", "finished early: the validation loss fell no more", "COMPLETE"),
        ended_well=True,
        is_final=True,
        saves_epochs=True,
    ),
    State("pruned", "pruned", "pruned", "PRUNED", ended_well=True, saves_epochs=True),
    State("diverged", "diverged", "diverged: the loss was no longer a finite number", "FAIL"),
    State("failed", "failed", "failed", "FAIL"),
    State("interrupted", "interrupted", "interrupted, can be resumed", "WAITING", has_ended=False),
    State("running", "running", "running", "RUNNING", has_ended=False),
)
TRIAL_STATES: Mapping[str, State] = {state.name: state for state in _TRIAL_STATES}
"""In the order in which counts of them are written."""

SEARCH_STATES: Mapping[str, str] = {
    "completed": "finished",
    "out_of_time": "stopped when its time was spent",
    "interrupted": "interrupted, can be resumed",
    "failed": "no trial succeeded",
}
"""How a search of several trials can stand, and how the report's headline says it."""


_UNKNOWN = State("", "", "", "RUNNING", has_ended=False)


def trial_state(name: str | None) -> State:
    """The state of this name; of a name that is none, a state of which nothing is known."""
    return TRIAL_STATES.get(name or "", _UNKNOWN)


def may_be_best(state: str, best_metric: float | None) -> bool:
    """Whether a trial can be the best: nothing went wrong with it so far, and its metric is a finite number."""
    known = state in TRIAL_STATES and not TRIAL_STATES[state].went_wrong
    return known and best_metric is not None and math.isfinite(best_metric)
