"""All tables as plain records, for showing and for other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.augmentations import AUGMENTATIONS
from tune_smp.choices.encoders import ENCODERS, partner_architectures, partner_encoders
from tune_smp.choices.losses import LOSSES
from tune_smp.choices.metrics import METRICS
from tune_smp.choices.normalizations import NORMALIZATIONS
from tune_smp.choices.optimizers import OPTIMIZERS
from tune_smp.choices.schedules import SCHEDULES

Record = dict[str, Any]


def _record(row: Any) -> Record:
    """The fields of a row in JSON's own types; functions are left out."""
    fields = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    return {name: _plain(value) for name, value in fields.items() if not callable(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    return list(value) if isinstance(value, tuple) else value


def _architectures() -> list[Record]:
    families = sorted({encoder.family for encoder in ENCODERS.values()}, key=str.casefold)
    records = []
    for row in ARCHITECTURES.values():
        partners = {ENCODERS[name].family for name in partner_encoders(row)}
        records.append(_record(row) | {"not_with": [family for family in families if family not in partners]})
    return records


def _encoders() -> list[Record]:
    records = []
    for row in ENCODERS.values():
        partners = partner_architectures(row)
        not_with = [name for name in ARCHITECTURES if name not in partners]
        records.append(_record(row) | {"weights": [*row.weights, "random"], "not_with": not_with})
    return records


def _rows(table: Mapping[str, Any]) -> Callable[[], list[Record]]:
    return lambda: _records(table.values())


def _records(rows: Iterable[Any]) -> list[Record]:
    return [_record(row) for row in rows]


CATALOGUE: Mapping[str, Callable[[], list[Record]]] = MappingProxyType(
    {
        "architectures": _architectures,
        "encoders": _encoders,
        "losses": _rows(LOSSES),
        "metrics": _rows(METRICS),
        "optimizers": _rows(OPTIMIZERS),
        "schedules": _rows(SCHEDULES),
        "augmentations": _rows(AUGMENTATIONS),
        "normalizations": _rows(NORMALIZATIONS),
    }
)
"""What ``tune-smp show`` can show, by subject: functions, since some records take a while to make."""
