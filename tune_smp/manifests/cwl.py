"""tune-smp.cwl: the same plugin as a tool of the Common Workflow Language, version 1.2."""

from __future__ import annotations

from typing import Any

from tune_smp.manifests import identity
from tune_smp.manifests.parameters import Parameter, inputs, outputs
from tune_smp.manifests.yaml_text import yaml_text

MOST_SYMBOLS = 30
"""Longer lists of names are left to the program, which says the nearest one: CWL takes no names with a slash either."""


def cwl() -> str:
    """The text of tune-smp.cwl."""
    return yaml_text(tool())


def tool() -> dict[str, Any]:
    """The tool, in JSON's own types.

    The output folder is an input as well, and staged to be written, as tools of WIPP's field do: a workflow names it.
    """
    written = outputs()
    return {
        "cwlVersion": "v1.2",
        "class": "CommandLineTool",
        "label": identity.TITLE,
        "doc": identity.DESCRIPTION,
        "baseCommand": list(identity.BASE_COMMAND),
        # As a hint, so that the tool also runs where tune-smp is installed, without a container.
        "hints": {
            "DockerRequirement": {"dockerPull": identity.CONTAINER},
            "ResourceRequirement": {"coresMin": identity.LEAST_CORES, "ramMin": identity.LEAST_MEMORY_MIB},
        },
        "requirements": {
            "InitialWorkDirRequirement": {
                "listing": [{"entry": f"$(inputs.{row.name})", "writable": True} for row in written]
            },
            "NetworkAccess": {"networkAccess": True},  # pretrained weights of encoders
        },
        "inputs": {row.name: _input(row) for row in (*inputs(), *written)},
        "outputs": {
            row.name: {
                "type": "Directory",
                "doc": row.description,
                "outputBinding": {"glob": f"$(inputs.{row.name}.basename)"},
            }
            for row in written
        },
    }


def _input(parameter: Parameter) -> dict[str, Any]:
    return {
        "type": _type(parameter),
        "doc": parameter.description,
        "inputBinding": {"prefix": parameter.flag.option},
    }


def _type(parameter: Parameter) -> Any:
    kinds = {"text": "string", "integer": "int", "number": "double", "boolean": "boolean", "path": "Directory"}
    if 0 < len(parameter.choices) <= MOST_SYMBOLS:
        symbols = {"type": "enum", "symbols": list(parameter.choices)}
        return symbols if parameter.flag.required else ["null", symbols]
    return kinds[parameter.flag.kind] + ("" if parameter.flag.required else "?")
