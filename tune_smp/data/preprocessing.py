"""``preprocessing.json``: what is done to an image before an exported model sees it, and what the model's classes mean.

Written by the export, read by prediction and by whoever starts from an exported model. It holds what the weights and
smp's ``config.json`` do not: the label values, the normalisation, the channels, and the tile size of training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, get_args

from tune_smp.choices.metrics import DEFAULT_THRESHOLD
from tune_smp.data.labels import ClassMap, Mode
from tune_smp.data.normalization import Normalization
from tune_smp.data.view_gains import ViewGains
from tune_smp.errors import DataError, Problem, listing

FILE_NAME = "preprocessing.json"
FORMAT_VERSION = 1  # raised when a reader of an older version would misunderstand the file

_NEWER = "use the version of tune-smp that wrote the model, or a newer one"
_BROKEN = "copy the whole model/ folder again from the run that wrote it"

# Key → the JSON types that it may have, but for class_map and normalization, whose own readers check them.
_KEYS: Mapping[str, tuple[type, ...]] = {
    "segmentation_mode": (str,),
    "channels": (int,),
    "class_map": (dict,),
    "normalization": (dict,),
    "channel_variable": (str, type(None)),
    "channel_values": (list,),
    "tile_size": (int,),
    "divisor": (int,),
    "fixed_tile_size": (int, type(None)),
    "architecture": (str,),
    "encoder": (str,),
    "encoder_weights": (str, type(None)),
    "metric": (dict,),
    "tune_smp_version": (str,),
}
_AS_THEY_ARE = _KEYS.keys() - {"segmentation_mode", "class_map", "normalization", "channel_values"}
_POSITIVE = ("channels", "tile_size", "divisor", "fixed_tile_size")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The record in ``preprocessing.json``; sizes in pixels.

    ``divisor``: tile sizes must be multiples of it. ``fixed_tile_size``: the only size that the encoder takes, if any.
    ``channel_variable`` and ``channel_values``: the files that were stacked into channels, in this order, if any were.
    ``thresholds``: the probability above which a pixel is of each class, in binary and multilabel mode; empty in
    multiclass mode, and in models of earlier versions, where it is 0.5. ``views``: what test-time augmentation was
    measured to gain; None where it was not.
    """

    class_map: ClassMap
    normalization: Normalization
    channels: int
    tile_size: int
    divisor: int
    fixed_tile_size: int | None
    architecture: str
    encoder: str
    encoder_weights: str | None
    tune_smp_version: str
    channel_variable: str | None = None
    channel_values: tuple[int | float | str, ...] = ()
    metric: Mapping[str, Any] = field(default_factory=dict)
    thresholds: tuple[float, ...] = ()
    views: ViewGains | None = None

    @property
    def segmentation_mode(self) -> Mode:
        """binary, multiclass or multilabel."""
        return self.class_map.mode

    @property
    def class_thresholds(self) -> tuple[float, ...]:
        """The threshold of each class."""
        return self.thresholds or (DEFAULT_THRESHOLD,) * self.class_map.classes

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, ``format_version`` first."""
        return {
            "format_version": FORMAT_VERSION,
            "segmentation_mode": self.segmentation_mode,
            **{entry.name: getattr(self, entry.name) for entry in fields(self)},
            "class_map": self.class_map.to_json(),
            "normalization": self.normalization.to_json(),
            "channel_values": list(self.channel_values),
            "thresholds": list(self.thresholds),
            "views": self.views.to_json() if self.views is not None else None,
        }

    @classmethod
    def from_json(cls, document: object, *, where: str = FILE_NAME) -> Self:
        """The inverse of ``to_json``; unknown keys are left alone. Raises DataError that names ``where``."""
        keys = _checked(document, where)
        return cls(
            class_map=_class_map(keys["class_map"], keys["segmentation_mode"], where),
            normalization=_normalization(keys["normalization"], keys["channels"], where),
            channel_values=tuple(keys["channel_values"]),
            thresholds=_thresholds(keys, where),
            views=_views(keys.get("views"), where),
            **{key: keys[key] for key in _AS_THEY_ARE},
        )


def read_preprocessing(model_dir: Path) -> Preprocessing:
    """``preprocessing.json`` of a ``model/`` folder.

    Raises DataError where it is missing, unreadable, incomplete or of a newer format.
    """
    path = model_dir / FILE_NAME
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(Problem(f"the model has no {FILE_NAME}", str(path), _BROKEN)) from error
    except (OSError, ValueError) as error:  # ValueError: neither UTF-8 nor JSON
        raise DataError(Problem(f"{FILE_NAME} cannot be read: {error}", str(path), _BROKEN)) from error
    return Preprocessing.from_json(document, where=str(path))


def _checked(document: object, where: str) -> Mapping[str, Any]:
    """The document as a mapping that has every key, each with a value of its type."""
    if not isinstance(document, dict):
        raise DataError(Problem(f"{FILE_NAME} must hold a JSON object, not {type(document).__name__}", where, _BROKEN))
    version = document.get("format_version")
    if not isinstance(version, int):
        raise DataError(Problem(f"format_version must be a number, received {version!r}", where, _BROKEN))
    if version > FORMAT_VERSION:
        newer = f"the model has format {version}, this tune-smp reads formats up to {FORMAT_VERSION}"
        raise DataError(Problem(newer, where, _NEWER))
    missing = [key for key in _KEYS if key not in document]
    if missing:
        raise DataError(Problem(f"{FILE_NAME} lacks {listing(missing, limit=20)}", where, _BROKEN))
    wrong = [key for key, types in _KEYS.items() if not _is(document[key], types)]
    wrong += [key for key in _POSITIVE if isinstance(size := document[key], int) and size < 1]
    if wrong:
        received = ", ".join(f"{key} = {document[key]!r}" for key in wrong)
        raise DataError(Problem(f"{FILE_NAME} has values that cannot be: {received}", where, _BROKEN))
    return document


def _class_map(document: Mapping[str, Any], mode: str, where: str) -> ClassMap:
    try:
        class_map = ClassMap.from_json(document)
    except (KeyError, TypeError) as error:  # a key is missing, or what should be a list is none
        raise DataError(Problem(f"class_map cannot be read: {error!r}", where, _BROKEN)) from error
    numbers = all(_is(value, (int, float)) for value in class_map.values)
    fits = len(class_map.values) == 2 if class_map.mode == "binary" else len(class_map.values) >= 1
    if not (numbers and fits and class_map.mode in get_args(Mode)):
        raise DataError(Problem(f"class_map describes no classes: {dict(document)!r}", where, _BROKEN))
    if class_map.mode != mode:
        raise DataError(Problem(f"segmentation_mode says {mode!r}, class_map {class_map.mode!r}", where, _BROKEN))
    return class_map


def _normalization(document: Mapping[str, Any], channels: int, where: str) -> Normalization:
    try:
        normalization = Normalization.from_json(document)
    except DataError as error:
        raise DataError(replace(problem, where=where) for problem in error.problems) from error
    if len(normalization.scale) not in (0, channels):
        said = f"normalization has constants for {len(normalization.scale)} channels, the model has {channels}"
        raise DataError(Problem(said, where, _BROKEN))
    return normalization


def _thresholds(document: Mapping[str, Any], where: str) -> tuple[float, ...]:
    """The thresholds, where there are any: models of earlier versions have none."""
    thresholds, classes = document.get("thresholds", []), len(document["class_map"]["values"])
    wanted = (0, 1 if document["segmentation_mode"] == "binary" else classes)
    numbers = isinstance(thresholds, list) and all(_is(value, (int, float)) and 0 < value < 1 for value in thresholds)
    if not numbers or len(thresholds) not in wanted:
        said = f"thresholds must be a number between 0 and 1 for each class ({wanted[1]}), received {thresholds!r}"
        raise DataError(Problem(said, where, _BROKEN))
    return tuple(thresholds)


def _views(document: Any, where: str) -> ViewGains | None:
    """What test-time augmentation gains, where it was measured: models of earlier versions do not know."""
    if document is None:
        return None
    try:
        return ViewGains.from_json(document)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(Problem(f"views cannot be read: {error!r}", where, _BROKEN)) from error


def _is(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)  # True is an int to isinstance
