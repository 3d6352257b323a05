"""The tables of docs/flags.md and docs/wipp.md, in Markdown, between their markers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tune_smp.errors import DataError, Problem
from tune_smp.manifests.parameters import Parameter, inputs, outputs
from tune_smp.manifests.wipp import wipp_type
from tune_smp.settings.base import Settings
from tune_smp.settings.fields import Flag, flags_of
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings


def flag_table() -> str:
    """The flags of ``train``, a table per group; the 17 of the WIPP plugin are bold."""
    return _tables(RunSettings)


def search_flag_table() -> str:
    """The flags that ``search`` has beyond those of ``train``."""
    of_train = {flag.name for flag in flags_of(RunSettings)}
    return _table("Search", [flag for flag in flags_of(SearchSettings) if flag.name not in of_train])


def predict_flag_table() -> str:
    """The flags of ``predict``, a table per group."""
    return _tables(PredictSettings)


def plugin_table() -> str:
    """Inputs and outputs of the plugin, by the titles that its form shows."""
    rows = [_plugin_row(row, "input") for row in inputs()] + [_plugin_row(row, "output") for row in outputs()]
    return "\n".join(["| in the form | flag | type | default | meaning |", "|---|---|---|---|---|", *rows]) + "\n"


def with_tables(text: str, tables: Mapping[str, str], *, file: Path) -> str:
    """The text of a file with these tables between the markers of their names.

    Raises:
        DataError: where a marker is missing.
    """
    for name, table in tables.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, opening, rest = text.partition(begin)
        _, closing, after = rest.partition(end)
        if not opening or not closing:
            problem = f"no {begin} ... {end} to write between"
            raise DataError(Problem(problem, where=str(file), fix="put both markers back"))
        text = f"{before}{begin}\n\n{table}\n{end}{after}"
    return text


def _tables(settings: type[Settings]) -> str:
    flags = flags_of(settings)
    groups = dict.fromkeys(flag.about.group for flag in flags)
    return "\n".join(_table(group, [flag for flag in flags if flag.about.group == group]) for group in groups)


def _table(group: str, flags: list[Flag]) -> str:
    head = [f"| {group} | value | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *map(_flag_row, flags)]) + "\n"


def _flag_row(flag: Flag) -> str:
    name = f"**`{flag.option}`**" if flag.about.wipp else f"`{flag.option}`"
    return _row(name, _value(flag), _default(flag), flag.description)


def _plugin_row(parameter: Parameter, side: str) -> str:
    kind = wipp_type(parameter) if side == "input" else f"{wipp_type(parameter)}, output"
    meaning = parameter.flag.description
    return _row(parameter.title, f"`{parameter.name}`", kind, _default(parameter.flag), meaning)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(flag: Flag) -> str:
    return "*required*" if flag.required else flag.default.replace("*", "\\*")


def _value(flag: Flag) -> str:
    if flag.choices:
        return ", ".join(flag.choices)
    noun = {"text": "text", "integer": "integer", "number": "number", "boolean": "true or false", "path": "folder"}
    return " ".join(part for part in (noun[flag.kind], flag.range, flag.about.unit) if part)
