"""What other files say about the flags, generated from the settings: the tables of README.md.

``python -m tune_smp.manifests`` writes them between their markers; a test holds README.md to them.
"""

from __future__ import annotations

from pathlib import Path

from tune_smp.errors import DataError, Problem
from tune_smp.settings.base import Settings
from tune_smp.settings.fields import Flag, flags_of
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings

README = Path(__file__).resolve().parent.parent / "README.md"


def readme_flag_table() -> str:
    """The flags of ``train`` in Markdown, a table per group; the 17 of the WIPP plugin are bold."""
    return _tables(RunSettings)


def readme_search_flag_table() -> str:
    """The flags that ``search`` has beyond those of ``train``, in Markdown."""
    of_train = {flag.name for flag in flags_of(RunSettings)}
    return _table("Search", [flag for flag in flags_of(SearchSettings) if flag.name not in of_train])


def readme_predict_flag_table() -> str:
    """The flags of ``predict`` in Markdown, a table per group."""
    return _tables(PredictSettings)


def with_tables(text: str) -> str:
    """The text of README.md with today's tables between its markers.

    Raises:
        DataError: where a marker is missing.
    """
    tables = {
        "flags": readme_flag_table(),
        "search-flags": readme_search_flag_table(),
        "predict-flags": readme_predict_flag_table(),
    }
    for name, table in tables.items():
        text = _between(text, f"<!-- {name}:begin -->", f"<!-- {name}:end -->", table)
    return text


def _between(text: str, begin: str, end: str, body: str) -> str:
    before, opening, rest = text.partition(begin)
    _, closing, after = rest.partition(end)
    if not opening or not closing:
        raise DataError(
            Problem(f"no {begin} ... {end} to write between", where=str(README), fix="put both markers back")
        )
    return f"{before}{begin}\n\n{body}\n{end}{after}"


def _tables(settings: type[Settings]) -> str:
    flags = flags_of(settings)
    groups = dict.fromkeys(flag.about.group for flag in flags)
    return "\n".join(_table(group, [flag for flag in flags if flag.about.group == group]) for group in groups)


def _table(group: str, flags: list[Flag]) -> str:
    head = [f"| {group} | value | default | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *map(_row, flags)]) + "\n"


def _row(flag: Flag) -> str:
    name = f"**`{flag.option}`**" if flag.about.wipp else f"`{flag.option}`"
    default = "*required*" if flag.required else flag.default.replace("*", "\\*")
    cells = (name, _value(flag), default, flag.about.description)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _value(flag: Flag) -> str:
    if flag.choices:
        return ", ".join(flag.choices)
    noun = {"text": "text", "integer": "integer", "number": "number", "boolean": "true or false", "path": "folder"}
    return " ".join(part for part in (noun[flag.kind], flag.range, flag.about.unit) if part)


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text("utf-8")), "utf-8")
