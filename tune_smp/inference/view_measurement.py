"""What test-time augmentation gains with an exported model and what it costs, measured on the validation images."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tune_smp.choices.metrics import METRICS
from tune_smp.choices.views import PRESETS
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.data.view_gains import ViewGains, ViewScore
from tune_smp.inference.ensemble import EnsemblePredictor
from tune_smp.inference.model_folder import open_model
from tune_smp.inference.predictor import Predictor
from tune_smp.inference.validation_parts import Part, count, part_of, probabilities
from tune_smp.training.metrics import PixelCounts
from tune_smp.training.precision import choose_device, use_fast_kernels

logger = logging.getLogger(__name__)

LARGEST = 512  # px per side of what is predicted of an image: several images fit the time on a CPU too
_RUNS = sum(map(len, PRESETS.values()))  # predictions that all presets together take


def measure_views(
    model: Path,
    store: ImageStore,
    regions: Sequence[Region],
    *,
    metric_name: str,
    device: str = "auto",
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> ViewGains | None:
    """Predict validation images with every preset, the same for each, as many as fit the time.

    Of an image larger than ``LARGEST`` the part with the most foreground is taken. None without validation images, and
    where one of them alone would take more than the time. Raises DataError where there is no whole model for these
    images, ResourceError without the GPU asked for.
    """
    parts = [part_of(store, region, largest=LARGEST) for region in regions if region.subset == "validation"]
    if not parts:
        return None
    exported, target = open_model(model), choose_device(device)
    use_fast_kernels(target)
    plain = exported.predictor(device=target)
    tallies = {name: _Tally(plain.with_views(views), clock) for name, views in PRESETS.items()}
    in_any_order = [parts[place] for place in np.random.default_rng(0).permutation(len(parts))]

    tallies["none"].time(in_any_order[0])  # what is compiled and allocated on first use
    if tallies["none"].time(in_any_order[0]) * _RUNS > seconds:
        logger.info("test-time augmentation is not measured: one image would take more than %g s", seconds)
        return None
    images, until = 0, clock() + seconds
    for part in in_any_order:
        for tally in tallies.values():
            tally.add(part)
        images += 1
        if clock() >= until:
            break
    scores = {name: tally.score(METRICS[metric_name].key) for name, tally in tallies.items()}
    return ViewGains.of(scores, metric=metric_name, images=images, device=target.type)


class _Tally:
    """The pixels that one preset predicted, and the time that it took."""

    def __init__(self, predictor: Predictor | EnsemblePredictor, clock: Callable[[], float]) -> None:
        preprocessing = predictor.preprocessing
        self._predictor = predictor
        self._clock = clock
        self._thresholds = preprocessing.class_thresholds
        self._counts = PixelCounts(preprocessing.segmentation_mode, preprocessing.class_map.classes)
        self._seconds = 0.0
        self._pixels = 0

    def add(self, part: Part) -> None:
        """Predict a part, and count it."""
        started = self._clock()
        predicted = probabilities(self._predictor, part)
        self._seconds += self._clock() - started
        self._pixels += part.pixels
        count(self._counts, predicted, part)

    def time(self, part: Part) -> float:
        """The seconds that a part takes, which do not count."""
        started = self._clock()
        probabilities(self._predictor, part)
        return self._clock() - started

    def score(self, key: str) -> ViewScore:
        """The metric by its key, and the seconds per megapixel."""
        metric = getattr(self._counts.metrics(self._thresholds), key)
        return ViewScore(float(metric), self._seconds / self._pixels * 1e6)
