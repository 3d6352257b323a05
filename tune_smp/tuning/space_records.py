"""A search space as records of plain text: for ``tune-smp show spaces NAME``, settings.json and the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tune_smp.tuning.space import Conditions, Option, Range, Scalar, SearchSpace


def describe(space: SearchSpace) -> list[Mapping[str, Any]]:
    """Describe what a space asks for, a record for every flag, as ``tune-smp show spaces NAME`` shows it."""
    fixed = [_record(flag, "fixed", _text(value), {}) for flag, value in space.fixed.items()]
    return fixed + [_record(row.flag, "searched", _domain_text(row.domain), row.when) for row in space.parameters]


def as_json(space: SearchSpace) -> dict[str, Any]:
    """Return the space for settings.json: its text, from which a search is resumed, and its records, for the report."""
    flags = [dict(row) for row in describe(space)]
    return {"name": space.name, "text": space.text, "description": space.description, "flags": flags}


def _record(flag: str, kind: str, values: str, when: Conditions) -> Mapping[str, Any]:
    return {"flag": flag, "kind": kind, "values": values, "when": _conditions_text(when)}


def _text(value: Scalar) -> str:
    """As it stands in a file."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _domain_text(domain: tuple[Option, ...] | Range) -> str:
    if isinstance(domain, Range):
        scale = " (log)" if domain.log else f" in steps of {domain.step:g}" if domain.step else ""
        return f"{domain.low:g} to {domain.high:g}{scale}"
    # Encoders have commas of their own.
    return "; ".join(
        f"{_text(o.value)} (when {_conditions_text(o.when)})" if o.when else _text(o.value) for o in domain
    )


def _conditions_text(when: Mapping[str, tuple[Scalar, ...]]) -> str:
    return " and ".join(f"{flag} is {' or '.join(map(_text, values))}" for flag, values in when.items())
