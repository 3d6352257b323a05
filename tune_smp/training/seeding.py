"""Random numbers that depend on the seed and the epoch alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch


def seed_of(seed: int, epoch: int) -> int:
    """A seed for one epoch; epoch 0 is the building of the model. Those of neighbouring seeds are unrelated."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


@contextlib.contextmanager
def seeded(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """torch's random numbers (weights, dropout) of this epoch, and afterwards the caller's own again."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(seed, epoch))
        yield
