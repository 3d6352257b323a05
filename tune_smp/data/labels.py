"""The meaning of label values in each segmentation mode.

binary: everything above 0 is foreground, so 0/1, 0/255, instance numbers and float masks all work; 0 and what is below
are background. multiclass: the sorted distinct values of the whole collection become classes 0…K-1. multilabel: one
channel or one file per class, each as in binary. ``ignore_value`` becomes IGNORE in masks in all three.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.label_values import PIECE, LabelValues, packed
from tune_smp.errors import DataError, Problem, listing

Mode = Literal["binary", "multilabel", "multiclass"]

IGNORE = 255  # in masks: left out of loss and metrics
MOST_CLASSES = 255  # class numbers are uint8 and 255 is IGNORE
INSTANCE_HINT = "labels that number each object need --segmentationMode binary"


@dataclass(frozen=True)
class ClassMap:
    """Label values ↔ classes.

    ``values`` are the labels' own: binary (background, foreground), multiclass one per class, multilabel the foreground
    value of each channel. ``names`` has one name per model output. Foreground is what lies above ``threshold``.
    ``colors`` are 0xRRGGBB of painted labels with their class numbers (or IGNORE).
    """

    mode: Mode
    values: tuple[int | float, ...]
    ignore_value: int | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)
    threshold: float = 0
    colors: tuple[tuple[int, int], ...] = ()

    @property
    def classes(self) -> int:
        """Number of model outputs: 1 for binary, K otherwise."""
        return 1 if self.mode == "binary" else len(self.values)

    def encode(self, label: NDArray[Any]) -> NDArray[np.uint8]:
        """Label (C, H, W) → mask (1 or K, H, W): class numbers or 0/1, and IGNORE.

        Raises:
            ValueError: a multiclass value that no class has, or another number of channels than classes.
        """
        channels = self.classes if self.mode == "multilabel" else 1
        if self.colors:
            label = packed(label)[None]
        elif channels == 1 and len(label) == 3 and (label == label[:1]).all():  # a grey image that was saved as RGB
            label = label[:1]
        if label.shape[0] != channels:
            raise ValueError(f"a {self.mode} label needs {channels} channels, this has {label.shape[0]}")
        mask = np.empty(label.shape, np.uint8)
        step = max(1, PIECE // max(1, label[:, :1].size))
        for y in range(0, label.shape[1], step):
            mask[:, y : y + step] = self._encode_rows(label[:, y : y + step])
        return mask

    def decode(self, prediction: NDArray[np.uint8]) -> NDArray[Any]:
        """Prediction (1 or K, H, W), class numbers or 0/1 → the labels' own values, in the smallest fitting dtype."""
        own = np.array(self.values)
        own = own.astype(np.float32) if own.dtype.kind == "f" else own.astype(_smallest_integer(own))
        if self.mode != "multilabel":
            return own[prediction]
        foreground = own.reshape(-1, 1, 1)
        return np.where(prediction > 0, foreground, np.zeros_like(foreground))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        record: dict[str, Any] = {
            "mode": self.mode,
            "values": list(self.values),
            "ignore_value": self.ignore_value,
            "names": list(self.names),
        }
        if self.threshold:
            record["threshold"] = self.threshold
        if self.colors:
            record["colors"] = [[f"#{color:06x}", number] for color, number in self.colors]
        return record

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``."""
        return cls(
            document["mode"],
            tuple(document["values"]),
            document["ignore_value"],
            tuple(document["names"]),
            threshold=document.get("threshold", 0),
            colors=tuple((int(color[1:], 16), number) for color, number in document.get("colors", ())),
        )

    def _encode_rows(self, label: NDArray[Any]) -> NDArray[Any]:
        if self.mode == "multiclass" or self.colors:
            return self._class_numbers(label)
        mask = (label > self.threshold).astype(np.uint8)
        if self.ignore_value is not None:
            mask[label == self.ignore_value] = IGNORE
        return mask

    def _class_numbers(self, label: NDArray[Any]) -> NDArray[Any]:
        if label.dtype.kind in "iu" and label.dtype.itemsize <= 2:
            # A table of all values there can be: 300 million pixels per second, whatever the number of classes.
            unsigned = np.dtype(f"u{label.dtype.itemsize}")
            every_value = np.arange(2 ** (8 * unsigned.itemsize), dtype=unsigned).view(label.dtype)
            numbers: NDArray[np.int16] = self._find(every_value)[label.view(unsigned)]
        else:
            numbers = self._find(label)
        if (numbers < 0).any():
            raise ValueError(f"the value {label[numbers < 0][0]} belongs to no class")
        return numbers

    def _find(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """The class number of each value, IGNORE for the ignored one, -1 for unknown ones."""
        known: dict[Any, int] = dict(self.colors) or dict(zip(self.values, range(self.classes), strict=True))
        if self.ignore_value is not None:
            known[self.ignore_value] = IGNORE
        keys = np.array(sorted(known))
        numbers = np.array([known[key] for key in sorted(known)], np.int16)
        nearest = np.searchsorted(keys, values).clip(max=len(keys) - 1)
        return np.where(keys[nearest] == values, numbers[nearest], np.int16(-1))


def learn_class_map(
    mode: Mode, labels: Sequence[LabelValues], *, ignore_value: int | None = None, class_names: Sequence[str] = ()
) -> ClassMap:
    """The class map that fits every label of a collection; what is odd about them is in ``ClassMap.notes``.

    ``class_names`` are the values of the pattern variable that enumerates classes, for multilabel.

    Raises:
        DataError: the labels do not fit the mode; all problems at once.
    """
    values = sorted({value for label in labels for value in label.values if not math.isnan(value)} - {ignore_value})
    problems = [*_not_a_number(labels), *_wrong_channels(mode, labels)]
    if mode == "multiclass":
        problems.extend(_no_classes(labels, values))
    if mode == "binary":
        problems.extend(_no_background(labels, values))
    if problems:
        raise DataError(problems)
    notes = [*_ignore_note(labels, ignore_value)]
    if mode == "multiclass":
        if 0 not in values:
            notes.append(f"no label holds 0: the smallest value, {values[0]:g}, stands for the background")
        numbers = tuple(int(value) for value in values)
        return ClassMap(mode, numbers, ignore_value, tuple(map(str, numbers)), tuple(notes))
    foreground = _foreground_value(values)
    notes.extend(_foreground_notes(labels, values))
    if mode == "binary":
        return ClassMap(mode, (0, foreground), ignore_value, ("foreground",), tuple(notes))
    channels = labels[0].channels
    names = tuple(class_names) if len(class_names) == channels else tuple(map(str, range(channels)))
    return ClassMap(mode, (foreground,) * channels, ignore_value, names, tuple(notes))


def _smallest_integer(values: NDArray[Any]) -> np.dtype[Any]:
    kinds = (np.uint8, np.uint16, np.uint32, np.int8, np.int16, np.int32, np.int64)
    return next(
        np.dtype(kind) for kind in kinds if np.iinfo(kind).min <= values.min() and values.max() <= np.iinfo(kind).max
    )


def _is_integral(value: float) -> bool:
    return math.isfinite(value) and value == int(value)


def _not_a_number(labels: Sequence[LabelValues]) -> Iterable[Problem]:
    names = [label.name for label in labels if not all(map(math.isfinite, label.values))]
    if names:
        yield Problem(f"{len(names)} labels hold NaN or infinite values", listing(names))


def _wrong_channels(mode: Mode, labels: Sequence[LabelValues]) -> Iterable[Problem]:
    by_channels: dict[int, list[str]] = defaultdict(list)
    for label in labels:
        by_channels[label.channels].append(label.name)
    if mode != "multilabel":
        for channels in sorted(by_channels.keys() - {1}):
            problem = f"{mode} labels need one channel, {len(by_channels[channels])} have {channels}"
            fix = "save the labels as single-channel images of class values, or use multilabel"
            yield Problem(problem, listing(by_channels[channels]), fix)
    elif len(by_channels) > 1:
        where = "; ".join(f"{channels}: {listing(names, 3)}" for channels, names in sorted(by_channels.items()))
        yield Problem("multilabel labels need the same number of channels, one per class", where)


def _no_classes(labels: Sequence[LabelValues], values: Sequence[int | float]) -> Iterable[Problem]:
    fractional = [label.name for label in labels if not all(map(_is_integral, label.values))]
    if fractional:
        examples = listing([f"{value:g}" for value in values if not _is_integral(value)], 3)
        yield Problem(f"multiclass labels need whole numbers, {len(fractional)} hold {examples}", listing(fractional))
    elif len(values) > MOST_CLASSES or any(label.truncated for label in labels):
        most = sorted(labels, key=lambda label: -len(label.values))
        where = listing([f"{label.name} ({len(label.values)} values)" for label in most], 3)
        yield Problem(f"{len(values)} distinct label values, at most {MOST_CLASSES} classes", where, INSTANCE_HINT)
    elif len(values) < 2:
        found = f"only the value {values[0]}" if values else "nothing but ignored pixels"
        fix = "check --labelsPattern and --ignoreValue"
        yield Problem(f"multiclass needs at least two classes, the labels hold {found}", "", fix)


def _ignore_note(labels: Sequence[LabelValues], ignore_value: int | None) -> Iterable[str]:
    if ignore_value is not None and not any(ignore_value in label.values or label.truncated for label in labels):
        yield f"--ignoreValue {ignore_value} occurs in no label"


def _no_background(labels: Sequence[LabelValues], values: Sequence[int | float]) -> Iterable[Problem]:
    if values and values[0] > 0:
        yield Problem(
            f"no label has a background: every pixel is above 0, the smallest value is {values[0]:g}",
            listing([label.name for label in labels], 3),
            "labels whose background has another number need --segmentationMode multiclass; check --labelsPattern",
        )


def _foreground_value(values: Sequence[int | float]) -> int | float:
    """Return the value of foreground in the labels, if there is one, for predictions to use again; else 1."""
    positive = [value for value in values if value > 0]
    if len(positive) != 1:
        return 1
    return int(positive[0]) if _is_integral(positive[0]) else positive[0]


def _foreground_notes(labels: Sequence[LabelValues], values: Sequence[int | float]) -> Iterable[str]:
    positive = [value for value in values if value > 0]
    if len(positive) > 1:
        more = "more than " if any(label.truncated for label in labels) else ""
        kind = "instance numbers?" if all(map(_is_integral, values)) else "a probability map?"
        yield f"labels hold {more}{len(values)} distinct values ({kind}): everything above 0 is foreground"
    elif positive and positive[0] != 1:
        yield f"the foreground has the value {positive[0]:g} in the labels, and in predictions"
    if values and values[0] < 0:
        yield (
            f"labels hold negative values, down to {values[0]:g}: they count as background; where {values[0]:g} means "
            f"not labelled, --ignoreValue {values[0]:g} leaves it out"
        )
    if values and values[0] > 0:
        yield "no label has a background: every pixel is above 0"
