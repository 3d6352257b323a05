"""The best, the median and the worst of the validation images under an exported model, for people to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tune_smp.choices.metrics import METRICS
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.inference.ensemble import EnsemblePredictor
from tune_smp.inference.model_folder import open_model
from tune_smp.inference.outputs import to_prediction
from tune_smp.inference.predictor import Predictor
from tune_smp.inference.validation_parts import Part, count, evenly, part_of, probabilities
from tune_smp.results.report.pictures import ExamplePicture
from tune_smp.training.metrics import Metrics, PixelCounts
from tune_smp.training.precision import choose_device, use_fast_kernels

LARGEST = 1024  # px per side of what is predicted and shown of an image
MOST_PIXELS = 2**24  # predicted in all: 16 images of 1024 px, about a minute for a ResNet34 Unet on two CPU cores


@dataclass(frozen=True)
class _Judge:
    """Predicts parts of images with one model and scores them by one metric."""

    predictor: Predictor | EnsemblePredictor

    @property
    def preprocessing(self) -> Preprocessing:
        """The model's own."""
        return self.predictor.preprocessing

    def metrics(self, part: Part) -> Metrics:
        """Of the part alone, by its own counts."""
        counts = PixelCounts(self.preprocessing.segmentation_mode, self.preprocessing.class_map.classes)
        count(counts, probabilities(self.predictor, part), part)
        return counts.metrics(self.preprocessing.class_thresholds)

    def prediction(self, part: Part) -> NDArray[np.uint8]:
        """(1 or K, h, w): class numbers, or 0 and 1."""
        return to_prediction(probabilities(self.predictor, part), self.preprocessing)


def validation_examples(
    model: Path,
    store: ImageStore,
    regions: Sequence[Region],
    *,
    metric_name: str,
    device: str = "auto",
    most: int = 64,
) -> tuple[ExamplePicture, ...]:
    """The best, the median and the worst validation image, or those of the three that there are.

    Each image is scored by ``metric_name`` from its own counts of pixels. At most ``most`` images and ``MOST_PIXELS``
    are predicted, evenly spaced over all; of an image larger than ``LARGEST`` the part with the most foreground. The
    pictures' captions and remarks say both. Images where nothing was to be found and nothing was found show nothing and
    are left out. Raises DataError where there is no whole model, or none for these images, ResourceError without the
    GPU asked for.
    """
    exported = open_model(model)
    target = choose_device(device)
    use_fast_kernels(target)
    judge = _Judge(exported.predictor(device=target))
    parts = [part_of(store, region, largest=LARGEST) for region in regions if region.subset == "validation"]
    looked_at = evenly(parts, most=most, pixels=MOST_PIXELS)
    key = METRICS[metric_name].key
    scored = sorted(_scores(judge, looked_at, key), key=lambda pair: -pair[0])
    among = (
        f"of {len(scored)}" if len(looked_at) == len(parts) else f"of {len(scored)}, evenly spaced over {len(parts)}"
    )
    return tuple(
        _picture(judge, part, metric_name=metric_name, value=value, caption=f"{place} {among}")
        for place, (value, part) in _chosen(scored)
    )


def _scores(judge: _Judge, parts: Sequence[Part], key: str) -> Iterator[tuple[float, Part]]:
    for part in parts:
        metrics = judge.metrics(part)
        if any(value is not None for value in metrics.class_iou):
            yield getattr(metrics, key), part


def _chosen(scored: Sequence[tuple[float, Part]]) -> list[tuple[str, tuple[float, Part]]]:
    """Which are shown, of parts from the best to the worst."""
    places = {"best": 0, "worst": len(scored) - 1, "median": len(scored) // 2}
    first = {place: name for name, place in reversed(places.items())} if len(scored) > 1 else {0: "only"}
    return [(name, scored[place]) for place, name in sorted(first.items())] if scored else []


def _picture(judge: _Judge, part: Part, *, metric_name: str, value: float, caption: str) -> ExamplePicture:
    store, region = part.store, part.region
    image, how = _visible(part)
    height, width = store.sizes[region.pair]
    whole = (region.y0, region.x0, region.y1, region.x1) == (0, 0, height, width)
    rows, columns = f"rows {region.y0} to {region.y1 - 1}", f"columns {region.x0} to {region.x1 - 1}"
    where = "" if whole else f"{rows}, {columns} of {height} × {width} px"
    return ExamplePicture(
        name=store.pairs[region.pair].name,
        caption=caption,
        metric_name=metric_name,
        metric_value=value,
        image=image,
        label=np.array(part.mask),
        prediction=judge.prediction(part),
        remark="; ".join(remark for remark in (where, how) if remark),
    )


def _visible(part: Part) -> tuple[NDArray[np.uint8], str]:
    """(h, w) or (h, w, 3) to look at, and what is to be known of it: each channel stretched over its usual range."""
    pixels = part.read()
    statistics = part.store.statistics(part.region.pair)
    if len(pixels) == 3 and pixels.dtype == np.uint8:
        return np.moveaxis(pixels, 0, -1), ""  # most likely colours, as they are
    low, high = (np.array(values, np.float32)[:, None, None] for values in (statistics.low, statistics.high))
    stretched = (pixels.astype(np.float32) - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    levels = np.clip(stretched, 0, 1) * 255
    if len(pixels) == 3:
        return np.moveaxis(levels, 0, -1).astype(np.uint8), "channels shown as red, green and blue"
    how = f"mean of {len(pixels)} channels" if len(pixels) > 1 else ""
    return levels.mean(axis=0).astype(np.uint8), how
