"""The measured worth of test-time augmentation: what each preset of views gains with a model, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

from tune_smp.choices.views import PRESETS, Preset

WITHIN = 0.001
"""The recommended preset is the cheapest whose metric is at most so much below the best: a gain must pay."""
WORTH_A_NOTE = 0.002
"""A gain above this is worth a word to whoever predicts without it."""


@dataclass(frozen=True, slots=True)
class ViewScore:
    """The metric that a preset reached, and its seconds per megapixel."""

    metric: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ViewGains:
    """Every preset on the same validation images: ``metric`` is the name of what was measured, ``device`` where."""

    metric: str
    images: int
    device: str
    presets: Mapping[Preset, ViewScore]
    recommended: Preset

    @classmethod
    def of(cls, presets: Mapping[Preset, ViewScore], *, metric: str, images: int, device: str) -> Self:
        """The gains with the preset that they recommend."""
        best = max(score.metric for score in presets.values())
        cheapest = next(name for name in PRESETS if presets[name].metric >= best - WITHIN)
        return cls(metric, images, device, presets, cheapest)

    def gain(self, preset: Preset) -> float:
        """How much more the metric is than without augmentation."""
        return self.presets[preset].metric - self.presets["none"].metric

    def factor(self, preset: Preset) -> float:
        """How many times as long it takes as without augmentation."""
        return self.presets[preset].seconds / self.presets["none"].seconds

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        presets = {
            name: {"metric": score.metric, "seconds_per_megapixel": score.seconds}
            for name, score in self.presets.items()
        }
        recommended = {"recommended": self.recommended}
        return {"metric": self.metric, "images": self.images, "device": self.device, "presets": presets, **recommended}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``. Raises KeyError, TypeError or ValueError where the document is none."""
        scores = {name: document["presets"][name] for name in PRESETS}
        if document["recommended"] not in scores:
            raise ValueError(f"there is no preset {document['recommended']!r}")
        if not all(row["seconds_per_megapixel"] > 0 for row in scores.values()):
            raise ValueError("a preset takes no time")
        return cls(
            str(document["metric"]),
            int(document["images"]),
            str(document["device"]),
            {
                name: ViewScore(float(row["metric"]), float(row["seconds_per_megapixel"]))
                for name, row in scores.items()
            },
            cast(Preset, document["recommended"]),
        )
