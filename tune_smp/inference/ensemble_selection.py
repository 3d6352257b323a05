"""Which models predict better together than the best one alone, found and measured on the validation images.

Greedy selection with repetition: Caruana et al. 2004, "Ensemble selection from libraries of models".
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tune_smp.choices.metrics import METRICS, Metric
from tune_smp.data.labels import Mode
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.inference.model_folder import open_model
from tune_smp.inference.validation_parts import Part, evenly, part_of, probabilities
from tune_smp.training.metrics import PixelCounts
from tune_smp.training.paired_gain import ImageCounts, gain_samples
from tune_smp.training.precision import choose_device, use_fast_kernels

Floats = NDArray[np.float32]

LARGEST = 2048  # px per side of what is looked at of an image
MOST_VALUES = 2**24  # probabilities kept of each candidate: 64 MiB, which is 64 images of 512 px and one class
FEWEST_IMAGES = 5
"""With fewer, resampling them says nothing of what other images would have said."""
CERTAIN = 0.9
"""An ensemble wins that is ahead in more than so many of the resamplings."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The ensemble that was found: ``weights`` by the places of the candidates, of which the first is the best trial.

    The other fields are those of ``EnsembleRecord``.
    """

    weights: Mapping[int, float]
    thresholds: tuple[float, ...]
    metric: float
    single: float
    low: float
    images: int
    cost: float

    @property
    def wins(self) -> bool:
        """Whether it is better than the best trial alone by more than the noise of the images."""
        return len(self.weights) > 1 and self.images >= FEWEST_IMAGES and self.low > 0


def greedy_selection(members: Sequence[Floats], score: Callable[[Floats], float], *, most: int) -> tuple[int, ...]:
    """The numbers of at most ``most`` members, with repetition, whose mean has the highest score on the way.

    The first is the best member, each further one makes the best of the mean. Never worse than the best member alone.
    """
    total: Floats = np.zeros_like(members[0])
    chosen: tuple[int, ...] = ()
    best: tuple[int, ...] = ()
    highest = -np.inf
    for size in range(1, most + 1):
        scores = [score((total + member) / np.float32(size)) for member in members]
        winner = int(np.argmax(scores))
        chosen = (*chosen, winner)
        total += members[winner]
        if scores[winner] > highest:
            best, highest = chosen, scores[winner]
    return best


def gain_at_least(single: ImageCounts, other: ImageCounts, metric: Metric, mode: Mode) -> float:
    """The gain of the other that all but a tenth of the resamplings of the images have at least."""
    return float(np.quantile(gain_samples([other], [single], metric, mode), 1 - CERTAIN))


def select_ensemble(
    candidates: Sequence[Path],
    store: ImageStore,
    regions: Sequence[Region],
    *,
    metric_name: str,
    device: str,
    most: int,
) -> Selection:
    """Find the best ensemble of at most ``most`` of the exported models, the first of which is the best trial.

    Every candidate is predicted as ``predict`` does; of many or large images evenly spaced parts. Raises DataError
    where there is no whole model, ResourceError without the GPU asked for.
    """
    judge = _Judge.of(candidates[0], store, regions, METRICS[metric_name])
    target = choose_device(device)
    use_fast_kernels(target)
    predicted, seconds = zip(*(judge.predicted(path, target) for path in candidates), strict=True)
    chosen = greedy_selection(predicted, judge.score, most=most)
    mean = reduce(np.add, (predicted[place] for place in chosen)) / np.float32(len(chosen))
    single, thresholds = judge.best_thresholds(predicted[0]), judge.best_thresholds(mean)
    return Selection(
        weights={place: times / len(chosen) for place, times in sorted(Counter(chosen).items())},
        thresholds=thresholds,
        metric=judge.score_at(mean, thresholds),
        single=judge.score_at(predicted[0], single),
        low=gain_at_least(
            judge.by_image(predicted[0], single), judge.by_image(mean, thresholds), judge.metric, judge.mode
        ),
        images=len(judge.parts),
        cost=sum(seconds[place] for place in set(chosen)) / seconds[0],
    )


def measured_again(
    model: Path, store: ImageStore, regions: Sequence[Region], *, metric_name: str, device: str
) -> float:
    """The metric of the model in a folder, at its own thresholds, on the images that ``select_ensemble`` looks at."""
    judge = _Judge.of(model, store, regions, METRICS[metric_name])
    predicted, _ = judge.predicted(model, choose_device(device))
    return judge.score_at(predicted, open_model(model).preprocessing.class_thresholds)


@dataclass(frozen=True)
class _Judge:
    """Scores probabilities (K, P) of all pixels of the parts, one part after the other."""

    parts: tuple[Part, ...]
    masks: NDArray[np.uint8]  # (K or 1, P)
    metric: Metric
    mode: Mode
    classes: int

    @classmethod
    def of(cls, model: Path, store: ImageStore, regions: Sequence[Region], metric: Metric) -> _Judge:
        preprocessing = open_model(model).preprocessing
        classes = preprocessing.class_map.classes
        found = [part_of(store, region, largest=LARGEST) for region in regions if region.subset == "validation"]
        parts = evenly(found, most=len(found), pixels=MOST_VALUES // classes)
        masks = np.concatenate([part.mask.reshape(len(part.mask), -1) for part in parts], axis=1)
        return cls(tuple(parts), masks, metric, preprocessing.segmentation_mode, classes)

    def predicted(self, model: Path, device: torch.device) -> tuple[Floats, float]:
        """The probabilities (K, P) by a model, and the seconds that they took."""
        predictor = open_model(model).predictor(device=device)
        probabilities(predictor, self.parts[0])  # what is compiled and allocated on first use
        started = time.perf_counter()
        found = [probabilities(predictor, part) for part in self.parts]
        seconds = time.perf_counter() - started
        return np.concatenate([part.reshape(len(part), -1) for part in found], axis=1), seconds

    def score(self, predicted: Floats) -> float:
        """The metric where each class has its best threshold."""
        counts = self._counts(predicted, self.masks)
        return self._metric(counts.metrics(counts.best_thresholds(self.metric)))

    def best_thresholds(self, predicted: Floats) -> tuple[float, ...]:
        """The threshold of each class at which it scores highest."""
        return self._counts(predicted, self.masks).best_thresholds(self.metric)

    def score_at(self, predicted: Floats, thresholds: Sequence[float]) -> float:
        """The metric above these thresholds."""
        return self._metric(self._counts(predicted, self.masks).metrics(thresholds))

    def by_image(self, predicted: Floats, thresholds: Sequence[float]) -> ImageCounts:
        """The pixels of each part above these thresholds."""
        ends = np.cumsum([part.pixels for part in self.parts])[:-1]
        pieces = zip(np.split(predicted, ends, axis=1), np.split(self.masks, ends, axis=1), strict=True)
        return [self._counts(piece, masks).at(thresholds) for piece, masks in pieces]

    def _metric(self, metrics: Any) -> float:
        return float(getattr(metrics, self.metric.key))

    def _counts(self, predicted: Floats, masks: NDArray[np.uint8]) -> PixelCounts:
        counts = PixelCounts(self.mode, self.classes)
        counts.add_probabilities(
            *(torch.from_numpy(np.ascontiguousarray(array))[None, :, None] for array in (predicted, masks))
        )
        return counts
