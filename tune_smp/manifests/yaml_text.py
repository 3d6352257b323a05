"""Plain values as YAML, in the order they come in.

Text stands in double quotes as in JSON, so that no reader, of YAML 1.1 or 1.2, takes a version or a yes for anything
else.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString


class _NamingNull(RoundTripRepresenter):
    """Writes null where ruamel would leave nothing. A class of its own: representers belong to the class."""


_NamingNull.add_representer(
    type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
)


def yaml_text(value: Mapping[str, Any]) -> str:
    """The text; keys must be plain words, values those of JSON."""
    yaml, text = YAML(), io.StringIO()
    yaml.Representer = _NamingNull
    yaml.width = sys.maxsize
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(_quoted(value), text)
    return text.getvalue()


def _quoted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _quoted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) else value
