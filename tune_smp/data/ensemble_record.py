"""``ensemble.json``: which models of a ``model/`` folder predict together, with what weights, and what that gained."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from tune_smp.errors import DataError, Problem

FILE_NAME = "ensemble.json"
FORMAT_VERSION = 1  # raised when a reader of an older version would misunderstand the file
MEMBERS = "members"
ITSELF = "."
"""The folder of the best trial, whose files lie in ``model/`` itself."""

_FOLDER = re.compile(rf"\.|{MEMBERS}/\d+")
_BROKEN = "copy the whole model/ folder again from the search that wrote it"


@dataclass(frozen=True, slots=True)
class EnsembleMember:
    """One model: its folder below ``model/``, its share of the mean, and the trial that trained it."""

    folder: str
    weight: float
    trial: int


@dataclass(frozen=True, slots=True)
class EnsembleRecord:
    """The record in ``ensemble.json``.

    ``metric``, by its ``metric_name``, is that of the mean of the members' probabilities above ``thresholds`` (one per
    class, none in multiclass mode), ``single`` that of the best trial alone, on the same ``images``; ``low``: nine of
    ten resamplings of the images have a gain of at least this. ``cost``: how many times as long prediction takes.
    """

    members: tuple[EnsembleMember, ...]
    thresholds: tuple[float, ...]
    metric_name: str
    metric: float
    single: float
    low: float
    images: int
    cost: float

    @property
    def gain(self) -> float:
        """How much more the metric is than that of the best trial alone."""
        return self.metric - self.single

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, ``format_version`` first."""
        members = [asdict(member) for member in self.members]
        return {"format_version": FORMAT_VERSION, **asdict(self), "members": members, "thresholds": [*self.thresholds]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``. Raises KeyError, TypeError or ValueError where the document is none."""
        members = tuple(_member(row) for row in document["members"])
        thresholds = tuple(float(value) for value in document["thresholds"])
        if not members or not math.isclose(sum(member.weight for member in members), 1.0, abs_tol=1e-6):
            raise ValueError("the weights of the members must add up to 1")
        if not all(0 < value < 1 for value in thresholds):
            raise ValueError("thresholds must be between 0 and 1")
        numbers = {name: float(document[name]) for name in ("metric", "single", "low", "cost")}
        return cls(members, thresholds, str(document["metric_name"]), images=int(document["images"]), **numbers)


def read_ensemble(model: Path) -> EnsembleRecord | None:
    """``ensemble.json`` of a ``model/`` folder; None where there is none, and the model is a single one.

    Raises DataError where it is unreadable, or of a newer format.
    """
    path = model / FILE_NAME
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["format_version"] > FORMAT_VERSION:
            newer = f"the ensemble has format {document['format_version']}, this tune-smp reads up to {FORMAT_VERSION}"
            raise DataError(Problem(newer, str(path), "use the version of tune-smp that wrote it, or a newer one"))
        return EnsembleRecord.from_json(document)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:  # ValueError: neither UTF-8 nor JSON, too
        raise DataError(Problem(f"{FILE_NAME} cannot be read: {error!r}", str(path), _BROKEN)) from error


def _member(row: Mapping[str, Any]) -> EnsembleMember:
    if not _FOLDER.fullmatch(row["folder"]):
        raise ValueError(f"{row['folder']!r} is no folder of a member")
    if not row["weight"] > 0:
        raise ValueError("a weight must be above 0")
    return EnsembleMember(row["folder"], float(row["weight"]), int(row["trial"]))
