"""Whether label values can mean what the segmentation mode takes them for.

Values that come from interpolation or lossy compression lie scattered along edges, pixel by pixel, while classes and
objects are patches. In the labels of five collections, of microscopy and of streets, each value has 2.0 equal
neighbours per pixel or more (4 deep inside a patch); in labels that were enlarged with bilinear interpolation or saved
as JPEG, all values but those that were meant have less than 0.8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.label_looks import LabelLook
from tune_smp.data.label_values import LabelValues
from tune_smp.data.labels import INSTANCE_HINT, ClassMap, Mode
from tune_smp.errors import Problem, listing

SCATTERED = 1.2  # equal neighbours per pixel, at most
FEWEST_SCATTERED = 3  # values
FEWEST_GREYS = 64  # values of a photograph
MOST_IN_A_LABEL = 16  # values of an image that is a label in truth
VOID_VALUES = (255, 65535, 2**31 - 1, 2**32 - 1)  # the largest of a type, which many data sets use for "not labelled"
FAR = 4  # a void value is at least so many times the largest other value
FEWEST_OBJECTS = 5  # numbers per label, at the median
ONE_PATCH = 0.85  # of all numbers are one patch, at least; objects that touch an edge or another may be cut
MANY_OBJECTS = 20
ENLARGED = "resize labels with nearest neighbour, never with interpolation, and export them without lossy compression"


@dataclass(frozen=True)
class Sense:
    """The findings. ``threshold``: label values above it are foreground, of which ``foreground`` is the usual one."""

    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    threshold: float = 0
    foreground: int | float | None = None

    def applied_to(self, class_map: ClassMap) -> ClassMap:
        """The class map with the threshold, and with what was noticed."""
        notes = (*class_map.notes, *self.notes)
        if self.foreground is None:
            return replace(class_map, notes=notes)
        # What they say about a mask of many values is said here, and with the threshold.
        kept = tuple(note for note in notes if "everything above 0" not in note)
        foreground = self.foreground
        values = tuple(foreground if value > 0 else 0 for value in class_map.values)
        return replace(class_map, values=values, threshold=self.threshold, notes=kept)


@dataclass(frozen=True)
class _Values:
    """The values of a whole collection: their pixels, of those looked at, and equal neighbours per pixel."""

    values: NDArray[Any]
    pixels: NDArray[np.int64]
    neighbours: NDArray[np.float64]

    @property
    def solid(self) -> NDArray[Any]:
        """Values that lie in patches, the most frequent first."""
        chosen = self.neighbours > SCATTERED
        return self.values[chosen][np.argsort(-self.pixels[chosen], kind="stable")]

    @property
    def scattered(self) -> NDArray[Any]:
        return self.values[self.neighbours <= SCATTERED]

    def share(self, values: NDArray[Any]) -> float:
        """Of the pixels."""
        return float(self.pixels[np.isin(self.values, values)].sum() / max(1, self.pixels.sum()))


def make_sense(
    mode: Mode,
    labels: Sequence[LabelValues],
    looks: Sequence[LabelLook],
    *,
    ignore_value: int | None,
    look_at_images: Callable[[], Sequence[LabelLook]],
) -> Sense:
    """Judge the values of all labels by a closer look at some of them; at images only if labels look like such."""
    found = _joined(looks, ignore_value)
    photographs = list(_photographs(labels, found, look_at_images))
    if photographs:
        return Sense(tuple(photographs))
    if mode == "multiclass":
        problems = [*_interpolated(labels, found), *_void_alone(labels, looks, found)]
        notes = [] if problems else [*_numbered_objects(looks, ignore_value), *_void(found, ignore_value)]
        return Sense(tuple(problems), (*notes, *_whole_images(labels)))
    threshold, foreground, notes = _half(labels, found)
    if mode == "binary" and not threshold:
        notes = [*notes, *_void(found, ignore_value)]
    return Sense((), tuple(notes), threshold, foreground)


def _joined(looks: Sequence[LabelLook], ignore_value: int | None) -> _Values:
    if not looks:
        return _Values(np.empty(0), np.empty(0, np.int64), np.empty(0))
    every = np.concatenate([look.values for look in looks])
    values, places = np.unique(every, return_inverse=True)
    pixels, neighbours = (
        np.bincount(places, np.concatenate([getattr(look, name) for look in looks]), len(values))
        for name in ("pixels", "neighbours")
    )
    kept = values != ignore_value
    return _Values(values[kept], pixels[kept].astype(np.int64), neighbours[kept] / np.maximum(1, pixels[kept]))


def _photographs(
    labels: Sequence[LabelValues], found: _Values, look_at_images: Callable[[], Sequence[LabelLook]]
) -> Iterable[Problem]:
    """Many integers, of which none above 0 lies in patches, or images that hold no more than labels do.

    A map of probabilities holds floats.
    """
    if found.values.dtype.kind not in "iu" or len(found.scattered) < FEWEST_GREYS:
        return
    images = look_at_images() if (found.solid > 0).any() else ()
    if images and any(len(look.values) > MOST_IN_A_LABEL for look in images):
        return
    few = f", the images {max(len(look.values) for look in images)} or fewer" if images else ""
    yield Problem(
        f"the labels look like photographs: they hold {len(found.values)} distinct values, {len(found.scattered)} of "
        f"which lie scattered{few}",
        listing([label.name for label in labels], 3),
        "look whether --imagesDir and --labelsDir, or their patterns, are exchanged",
    )


def _is_mixture(found: _Values) -> bool:
    """Whether most values are no values of their own."""
    scattered = len(found.scattered)
    return scattered >= FEWEST_SCATTERED and scattered >= len(found.solid) > 0


def _interpolated(labels: Sequence[LabelValues], found: _Values) -> Iterable[Problem]:
    if not _is_mixture(found):
        return
    distinct = len({value for label in labels for value in label.values})
    solid = found.solid
    hold = f"{len(solid)} of them ({listing(_texts(solid))}) hold {found.share(solid):.1%} of the pixels"
    lossy = sorted({label.lossy for label in labels if label.lossy})
    cause = f"lossy compression ({', '.join(lossy)})" if lossy else "interpolation"
    yield Problem(
        f"multiclass labels hold {distinct} distinct values, but {hold}; the others lie scattered between them, "
        f"as {cause} makes them",
        listing([label.name for label in labels], 3),
        ENLARGED,
    )


def _half(labels: Sequence[LabelValues], found: _Values) -> tuple[float, int | float | None, list[str]]:
    """Where a mask of two values was interpolated or compressed, the border between them is at half the foreground."""
    lossy = [label.name for label in labels if label.lossy]
    notes = []
    if lossy:
        kinds = ", ".join(sorted({label.lossy for label in labels if label.lossy}))
        notes.append(
            f"{len(lossy)} labels are compressed with loss ({kinds}), which changes values: {listing(lossy, 3)}"
        )
    solid = sorted(float(value) for value in found.solid)
    positive = [value for value in solid if value > 0]
    far_enough = bool(positive) and (positive[0] >= 16 or found.values.dtype.kind == "f")
    if not (_is_mixture(found) and len(solid) <= 3 and solid[0] <= 0 and far_enough):
        return 0, None, notes
    threshold = positive[0] / 2
    notes.append(
        f"labels hold {len(found.values)} distinct values, but {listing(_texts(found.solid))} hold "
        f"{found.share(found.solid):.1%} of the pixels, the others lie scattered between them (interpolated or "
        f"compressed with loss): above {threshold:g} is foreground; better {ENLARGED}"
    )
    largest = positive[-1]
    return threshold, int(largest) if largest.is_integer() else largest, notes


def _void(found: _Values, ignore_value: int | None) -> Iterable[str]:
    """A value that many data sets give to pixels that nobody labelled."""
    if ignore_value is not None or len(found.values) < 3:
        return
    smallest, largest = found.values[0], found.values[-1]
    suspects = [smallest] if smallest < 0 <= found.values[1] else []
    if largest in VOID_VALUES and largest >= FAR * found.values[-2]:
        suspects.append(largest)
    for value in suspects:
        share = found.share(np.array([value]))
        yield (
            f"the value {value:g} ({share:.1%} of the label pixels) looks like a void, pixels that nobody labelled: "
            f"--ignoreValue {value:g} leaves it out"
        )


def _void_alone(labels: Sequence[LabelValues], looks: Sequence[LabelLook], found: _Values) -> Iterable[Problem]:
    """Background, and a void value that lies at the edges of every label."""
    if len(found.values) != 2 or len(looks) < 3:
        return
    void = next((value for value in found.values if value < 0 or value in VOID_VALUES), None)
    if void is None:
        return
    at = [(look.patches[look.values == void].sum(), look.at_edge[look.values == void].sum()) for look in looks]
    if all(0 < patches == edges <= 4 for patches, edges in at):
        other = next(value for value in found.values if value != void)
        yield Problem(
            f"the labels are background only: all hold {other:g}, and {void:g} at their edges, which looks like a void",
            listing([label.name for label in labels], 3),
            "check --labelsPattern; labels that mean foreground by it need --segmentationMode binary",
        )


def _numbered_objects(looks: Sequence[LabelLook], ignore_value: int | None) -> Iterable[str]:
    """Labels 0…n whose every number is one patch, n differing from label to label, as segmentation tools write them."""
    counts, single, total = [], 0, 0
    for look in looks:
        numbers = (look.values > 0) & (look.values != ignore_value) & (look.patches > 0)
        counts.append(int(numbers.sum()))
        single += int((look.patches[numbers] == 1).sum())
        total += counts[-1]
    if not total or np.median(counts) < FEWEST_OBJECTS or single < ONE_PATCH * total:
        return
    if min(counts) < max(counts) or min(counts) >= MANY_OBJECTS:
        numbered = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{max(counts)}"
        yield (
            f"labels seem to number objects: {numbered} values per label, {single / total:.0%} of them one patch each; "
            f"{INSTANCE_HINT}"
        )


def _whole_images(labels: Sequence[LabelValues]) -> Iterable[str]:
    if len(labels) > 1 and all(label.is_constant for label in labels):
        yield "every label is a single value: classes of whole images, which no segmentation learns from"


def _texts(values: NDArray[Any]) -> list[str]:
    return [f"{value:g}" for value in sorted(values.tolist())]
