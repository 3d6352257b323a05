"""Plain values as YAML, in the order they come in.

Text stands in double quotes as in JSON, so that no reader, of YAML 1.1 or 1.2, takes a version or a yes for anything
else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def yaml_text(value: Mapping[str, Any]) -> str:
    """The text; keys must be plain words, values those of JSON."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Mapping[str, Any] | list[Any]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{key}:", item)
    else:
        for item in value:
            yield from _entry("-", item)


def _entry(head: str, value: Any) -> Iterator[str]:
    if not isinstance(value, Mapping | list) or not value:
        yield f"{head} {json.dumps(value, ensure_ascii=False)}"
    elif head == "-":
        first, *rest = _lines(value)
        yield f"- {first}"
        yield from (f"  {line}" for line in rest)
    else:
        yield head
        yield from (f"  {line}" for line in _lines(value))
