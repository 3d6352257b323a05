"""plugin.json: the plugin as WIPP registers it, shows its form and calls it."""

from __future__ import annotations

import json
from typing import Any

from tune_smp.manifests import identity
from tune_smp.manifests.parameters import Parameter, inputs, outputs, sections


def plugin_json() -> str:
    """The text of plugin.json."""
    return json.dumps(plugin(), indent=2, ensure_ascii=False) + "\n"


def plugin() -> dict[str, Any]:
    """The manifest, in JSON's own types."""
    return {
        "name": identity.NAME,
        "version": identity.VERSION,
        "title": identity.TITLE,
        "description": identity.DESCRIPTION,
        "author": identity.AUTHOR,
        "institution": identity.INSTITUTION,
        "repository": identity.REPOSITORY,
        "website": identity.WEBSITE,
        "citation": identity.CITATION,
        "containerId": identity.CONTAINER,
        "baseCommand": list(identity.BASE_COMMAND),
        "inputs": [_slot(parameter) for parameter in inputs()],
        "outputs": [_slot(parameter) for parameter in outputs()],
        "ui": [*map(_field, inputs()), _fieldsets()],
        "resourceRequirements": {
            "ramMin": identity.LEAST_MEMORY_MIB,
            "coresMin": identity.LEAST_CORES,
            "gpu": identity.NEEDS_GPU,
        },
    }


def wipp_type(parameter: Parameter) -> str:
    """The type of WIPP that the parameter has."""
    if parameter.choices:
        return "enum"
    if parameter.flag.about.folder:
        return "collection" if parameter.is_collection else "genericData"
    return "string" if parameter.flag.kind == "text" else parameter.flag.kind


def _slot(parameter: Parameter) -> dict[str, Any]:
    options = {"options": {"values": list(parameter.choices)}} if parameter.choices else {}
    return {
        "name": parameter.name,
        "type": wipp_type(parameter),
        "description": parameter.flag.description,
        "required": parameter.flag.required,
        **options,
    }


def _field(parameter: Parameter) -> dict[str, Any]:
    """One field of the form: what stands before it, in it, and as its first value."""
    entry = {
        "key": f"inputs.{parameter.name}",
        "title": parameter.title,
        "description": parameter.description,
    }
    return entry if parameter.default is None else {**entry, "default": parameter.default}


def _fieldsets() -> dict[str, Any]:
    fieldsets = [{"title": title, "fields": [row.name for row in rows]} for title, rows in sections().items()]
    return {"key": "fieldsets", "fieldsets": fieldsets}
