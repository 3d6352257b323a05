"""All tables as plain records, for showing and for other programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.augmentations import AUGMENTATIONS
from tune_smp.choices.columns import NO_BREAK
from tune_smp.choices.encoders import ENCODERS, RANDOM, Encoder, partner_architectures, partner_encoders
from tune_smp.choices.losses import LOSSES
from tune_smp.choices.metrics import METRICS
from tune_smp.choices.normalizations import NORMALIZATIONS
from tune_smp.choices.optimizers import OPTIMIZERS
from tune_smp.choices.samplers import SAMPLERS
from tune_smp.choices.schedulers import SCHEDULERS
from tune_smp.choices.schedules import SCHEDULES
from tune_smp.errors import Problem, SettingsError, nearest

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


def encoder_records(family: str | None = None) -> list[Record]:
    """Records of all encoders, or of one family; the case of its letters does not matter.

    Raises SettingsError where there is no such family.
    """
    families = list(dict.fromkeys(row.family for row in ENCODERS.values()))
    if family is not None and family.casefold() not in map(str.casefold, families):
        fix = f"{nearest(family, families)}one of: {', '.join(families)}"
        raise SettingsError(Problem(f"there is no family {family!r} of encoders", fix=fix))
    return [_encoder(row) for row in ENCODERS.values() if family is None or row.family.casefold() == family.casefold()]


def _encoder(row: Encoder) -> Record:
    partners = partner_architectures(row)
    return _record(row) | {
        "weights": [*row.weights, RANDOM],
        "output_strides": list(row.output_strides),
        "million_parameters": round(row.unet_parameters / 1e6, 1),
        "not_with": [name for name in ARCHITECTURES if name not in partners],
    }


ENCODERS_EXPLAINED = """\
= X     the name of today of an old encoder; it is taken too
M       million parameters of a Unet with it, 3 channels in, 1 out (of a DPT where only that takes it)
stride  px of the image per pixel of its last features; PAN and DeepLab ask for less than 32
px      the only tile size that it takes; where there is none, tune-smp show architectures
random  every encoder can start from random weights"""


ARCHITECTURES_EXPLAINED = """\
divides  height and width of a tile are multiples of these px, and at least the smallest
depth    --encoderDepth: how often its encoder halves the image; the last is its own
width    --decoderChannels: its own, and what all are multiples of; -: it follows from the encoder
not_with families of encoders that do not go with it"""


def architectures_at_a_glance(records: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The records of architectures, short enough for a terminal of 104 columns."""
    return [
        {
            "name": record["name"],
            "divides": record["divisor"],
            "smallest": record["min_tile_size"],
            "depth": "-".join(map(str, _ends(range(record["least_depth"], record["encoder_depth"] + 1)))),
            "width": f"{record['decoder_channels']}{NO_BREAK}/{record['channels_step']}"
            if record["decoder_channels"]
            else None,
            "summary": record["summary"],
            "not_with": record["not_with"],
        }
        for record in records
    ]


def encoders_at_a_glance(records: Sequence[Mapping[str, Any]]) -> list[Record]:
    """The records of encoders, short enough for a terminal of 104 columns; the first column is the beginning of
    ``--encoderBaseVariantWeights``."""
    return [
        {
            "family,variant": f"{record['family']},{record['name']}"
            + (f" ={NO_BREAK}{record['smp_name']}" if record["smp_name"] != record["name"] else ""),
            "M": record["million_parameters"],
            "stride": "-".join(str(stride) for stride in _ends(record["output_strides"])),
            "px": record["tile_size"],
            "weights": record["weights"],
            "not_with": record["not_with"],
        }
        for record in records
    ]


def _ends(numbers: Sequence[int]) -> Sequence[int]:
    return numbers if len(numbers) == 1 else (numbers[0], numbers[-1])


def _rows(table: Mapping[str, Any]) -> Callable[[], list[Record]]:
    return lambda: _records(table.values())


def _records(rows: Iterable[Any]) -> list[Record]:
    return [_record(row) for row in rows]


CATALOGUE: Mapping[str, Callable[[], list[Record]]] = MappingProxyType(
    {
        "architectures": _architectures,
        "encoders": encoder_records,
        "losses": _rows(LOSSES),
        "metrics": _rows(METRICS),
        "optimizers": _rows(OPTIMIZERS),
        "schedules": _rows(SCHEDULES),
        "augmentations": _rows(AUGMENTATIONS),
        "normalizations": _rows(NORMALIZATIONS),
        "schedulers": _rows(SCHEDULERS),
        "samplers": _rows(SAMPLERS),
    }
)
"""What ``tune-smp show`` can show, by subject: functions, since some records take a while to make."""
AT_A_GLANCE: Mapping[str, tuple[Callable[[Sequence[Mapping[str, Any]]], list[Record]], str]] = MappingProxyType(
    {
        "architectures": (architectures_at_a_glance, ARCHITECTURES_EXPLAINED),
        "encoders": (encoders_at_a_glance, ENCODERS_EXPLAINED),
    }
)
"""Subjects with more facts than a terminal has columns: their records cut short, and what the columns mean."""
