"""How much better one model is than another on the same images, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from tune_smp.choices.metrics import Metric
from tune_smp.data.labels import Mode
from tune_smp.training.metrics import metrics_from_counts

SAMPLES = 1000
"""Bootstrap samples: the ends of an interval of 95 % then stand on 25 samples each."""

ImageCounts = Sequence[Sequence[Sequence[int]]]
"""Pixels (tp, fp, fn, tn) of each class, image by image: (images, K, 4)."""


@dataclass(frozen=True, slots=True)
class PairedGain:
    """The difference of a metric: its ``mean`` over the rounds, and the interval from ``low`` to ``high`` that holds it
    in 95 % of the bootstrap samples; None where a single image and round allow none."""

    mean: float
    low: float | None
    high: float | None


def paired_gain(ours: Sequence[ImageCounts], theirs: Sequence[ImageCounts], metric: Metric, mode: Mode) -> PairedGain:
    """The gain of ours over theirs, both counted in the same rounds on the same images.

    Bootstrap in two stages (Davison and Hinkley 1997, 3.8): rounds are drawn, with replacement, then images of each;
    counts are added up over the images drawn, as a metric is over a validation set. Deterministic.

    Raises ValueError where rounds or images are not the same.
    """
    rounds = _pairs(ours, theirs)
    mean = fmean(_difference(a.sum(axis=0), b.sum(axis=0), metric, mode) for a, b in rounds)
    if len(rounds) == 1 and len(rounds[0][0]) == 1:
        return PairedGain(mean, None, None)
    low, high = np.percentile(gain_samples(ours, theirs, metric, mode), [2.5, 97.5]).tolist()
    return PairedGain(mean, low, high)


def gain_samples(
    ours: Sequence[ImageCounts], theirs: Sequence[ImageCounts], metric: Metric, mode: Mode
) -> NDArray[np.float64]:
    """The gain in each of the bootstrap samples (``SAMPLES``,), see `paired_gain`."""
    rounds, random = _pairs(ours, theirs), np.random.default_rng(0)
    samples = [
        fmean(
            _resampled(*rounds[place], random=random, metric=metric, mode=mode)
            for place in random.integers(len(rounds), size=len(rounds))
        )
        for _ in range(SAMPLES)
    ]
    return np.array(samples)


def _pairs(
    ours: Sequence[ImageCounts], theirs: Sequence[ImageCounts]
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    rounds = [(np.array(a), np.array(b)) for a, b in zip(ours, theirs, strict=True)]
    if any(len(a) != len(b) or len(a) == 0 for a, b in rounds):
        raise ValueError("each round needs the same images, at least one")
    return rounds


def _resampled(
    ours: NDArray[np.int64], theirs: NDArray[np.int64], *, random: np.random.Generator, metric: Metric, mode: Mode
) -> float:
    """The difference over images drawn with replacement."""
    times = np.bincount(random.integers(len(ours), size=len(ours)), minlength=len(ours))
    return _difference(np.tensordot(times, ours, axes=1), np.tensordot(times, theirs, axes=1), metric, mode)


def _difference(ours: NDArray[np.int64], theirs: NDArray[np.int64], metric: Metric, mode: Mode) -> float:
    """Counts (K, 4) of both → the difference of the metric."""
    values = (getattr(metrics_from_counts(counts.tolist(), mode), metric.key) for counts in (ours, theirs))
    first, second = values
    return float(first) - float(second)
