"""ict.yaml: the same plugin for Image-to-Cloud-Tool registries."""

from __future__ import annotations

from typing import Any

from tune_smp.manifests import identity
from tune_smp.manifests.parameters import Parameter, inputs, outputs
from tune_smp.manifests.wipp import wipp_type
from tune_smp.manifests.yaml_text import yaml_text

SPECIFICATION = "1.0.0"


def ict_yaml() -> str:
    """The text of ict.yaml."""
    return yaml_text(ict())


def ict() -> dict[str, Any]:
    """The manifest, in JSON's own types."""
    return {
        "specVersion": SPECIFICATION,
        "name": identity.NAME,
        "version": identity.VERSION,
        "container": identity.CONTAINER,
        "entrypoint": " ".join(identity.BASE_COMMAND),
        "title": identity.TITLE,
        "description": identity.DESCRIPTION,
        "author": [identity.AUTHOR],
        "contact": identity.CONTACT,
        "repository": identity.REPOSITORY,
        "documentation": identity.DOCUMENTATION,
        "citation": None,  # takes a DOI only
        "inputs": [_slot(parameter) for parameter in inputs()],
        "outputs": [_slot(parameter) for parameter in outputs()],
        "ui": [_field(parameter, "inputs") for parameter in inputs()]
        + [_field(parameter, "outputs") for parameter in outputs()],
        "hardware": {
            "cpu": {"min": f"{identity.LEAST_CORES * 1000}m"},
            "memory": {"min": f"{identity.LEAST_MEMORY_MIB}Mi"},
            "gpu": {"enabled": True, "required": identity.NEEDS_GPU},
        },
    }


def _slot(parameter: Parameter) -> dict[str, Any]:
    """An input or output. No ``defaultValue``: the schema gives it a type that no validator knows."""
    kinds = {"text": "string", "integer": "number", "number": "number", "boolean": "boolean", "path": "path"}
    return {
        "name": parameter.name,
        "type": kinds[parameter.flag.kind],
        "description": parameter.description,
        "required": parameter.flag.required,
        "format": [wipp_type(parameter)],
    }


def _field(parameter: Parameter, side: str) -> dict[str, Any]:
    """One field of the form. A select has no default: one that is left blank means the default of the program."""
    entry: dict[str, Any] = {
        "key": f"{side}.{parameter.name}",
        "title": parameter.title,
        "description": parameter.description,
    }
    if parameter.choices:
        return {**entry, "type": "select", "fields": list(parameter.choices), "optional": not parameter.flag.required}
    kinds = {"text": "text", "integer": "number", "number": "number", "boolean": "checkbox", "path": "path"}
    entry["type"] = kinds[parameter.flag.kind]
    if entry["type"] == "number":
        entry["integer"] = parameter.flag.kind == "integer"
    if parameter.default is not None:
        entry["default"] = parameter.default
    return entry
