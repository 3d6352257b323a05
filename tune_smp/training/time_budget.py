"""The time of a run that may last so long: when an epoch's training ends, how far the run is, and when it is over."""

from __future__ import annotations

from collections.abc import Callable

TRAINING_TO_VALIDATION = 4.0
"""An epoch trains at least so much longer than its validation takes: four fifths of the time go into training."""
WITH_EPOCHS_TO_SPARE = 9.0
"""Up to so much longer, nine tenths of the time, as long as that leaves `ENOUGH_EPOCHS`."""
ENOUGH_EPOCHS: float = 10


class TimeBudget:
    """Divides the seconds of a run into epochs, which end with their validation.

    ``epochs`` is how many there are at most; where validation is slow, they last longer, and there are fewer. What the
    next validation takes is taken from the last one. Seconds are those of ``clock``, from the first epoch's start; time
    between two sessions does not count.
    """

    def __init__(self, seconds: float, *, epochs: int, clock: Callable[[], float]) -> None:
        self.seconds = seconds
        self._shortest = seconds / epochs
        self._clock = clock
        self._before = 0.0  # s of earlier sessions
        self._began: float | None = None  # the clock's time at the start of this session
        self._epoch_ends = 0.0  # s
        self._trained_until = 0.0  # s
        self.validation = 0.0  # s, the last one

    @property
    def spent(self) -> float:
        """Seconds spent so far."""
        return self._before if self._began is None else self._before + self._clock() - self._began

    def begin_epoch(self) -> None:
        """Divide what is left: a rest too short for another epoch belongs to this one."""
        if self._began is None:
            self._began = self._clock()
        spent = self.spent
        spacious = min((1.0 + WITH_EPOCHS_TO_SPARE) * self.validation, self.seconds / ENOUGH_EPOCHS)
        length = max(self._shortest, (1.0 + TRAINING_TO_VALIDATION) * self.validation, spacious)
        self._epoch_ends = spent + length if spent + 1.5 * length < self.seconds else self.seconds

    def has_trained_enough(self) -> bool:
        """Whether this epoch's training ends here, to leave time for its validation; asked after every step."""
        self._trained_until = self.spent
        return self._trained_until >= self._epoch_ends - self.validation

    def validated(self) -> None:
        """Measure what the epoch's validation took."""
        self.validation = self.spent - self._trained_until

    def has_time_for(self, seconds: float) -> bool:
        """Whether so much is left."""
        return self.spent + seconds <= self.seconds

    @property
    def progress(self) -> float:
        """Share, in [0, 1], of all the time for training."""
        return min(self.spent / max(self.seconds - self.validation, 1e-9), 1.0)

    @property
    def is_over(self) -> bool:
        """Whether no time is left for another epoch."""
        return self.spent + self.validation >= self.seconds

    def state_dict(self) -> dict[str, float]:
        """Seconds spent, and those of the last validation."""
        return {"spent": self.spent, "validation": self.validation}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Resume after an earlier ``state_dict``."""
        self._before, self.validation = state["spent"], state["validation"]
        self._began = None
