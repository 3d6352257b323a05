"""From the words of a command line to settings, and from settings to the text of ``--help``."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.base import Settings
from tune_smp.settings.fields import Flag, flags_of

AnySettings = TypeVar("AnySettings", bound=Settings)

TRUTHS = ("true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "y", "n")
"""What pydantic reads as true or false."""


def help_text(settings: type[Settings], summary: str) -> str:
    """Every flag of a command, by group, with its range, unit and default."""
    return _parser(settings, summary).format_help()


def settings_from(settings: type[AnySettings], arguments: Sequence[str]) -> AnySettings:
    """The settings that the words after the command say.

    Raises:
        SettingsError: with every wrong value, unknown flag and stray word at once; a flag without its value stands
        alone.
    """
    words = _joined(arguments, flags_of(settings))
    options = {flag.option for flag in flags_of(settings)}
    # Not for argparse: it takes --foo="a b" for a word.
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in options]
    given, stray = _read(_parser(settings), [word for word in words if word not in unknown])
    # With its dashes: without them it might be the name of a word.
    given |= {word.partition("=")[0]: word.partition("=")[2] for word in unknown}
    try:
        chosen = settings.from_flags(given)
    except SettingsError as error:
        raise SettingsError([*stray, *error.problems]) from None
    if stray:
        raise SettingsError(stray)
    return chosen


def words_for(settings: Settings, *, leave_out: Collection[str] = ()) -> list[str]:
    """The words that say these settings, but for flags to leave out: what was given, as ``--flag=value``."""
    record = settings.to_json()
    given = [name for name in record["given"] if name not in leave_out and record["values"][name] is not None]
    return [f"--{name}={_as_word(record['values'][name])}" for name in given]


def _as_word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parser(settings: type[Settings], summary: str = "") -> argparse.ArgumentParser:
    command, flags = settings.command, flags_of(settings)
    words = [flag.option if flag.required else f"[{flag.option}]" for flag in flags if flag.about.word]
    required = [f"{flag.option} {_metavar(flag)}" for flag in flags if flag.required and not flag.about.word]
    usage = " ".join([f"tune-smp {command}", *words, *required, "[flags]"])
    parser = argparse.ArgumentParser(
        prog=f"tune-smp {command}",
        usage=textwrap.fill(usage, 78, subsequent_indent=" " * 4),
        description=summary,
        allow_abbrev=False,
        add_help=False,
        exit_on_error=False,
        argument_default=argparse.SUPPRESS,
    )
    for group in dict.fromkeys(flag.about.group for flag in flags):
        section = parser.add_argument_group(group)
        for flag in (flag for flag in flags if flag.about.group == group):
            if flag.about.word:
                many = "..." in flag.about.word
                section.add_argument(flag.name, nargs="*" if many else "?", metavar=flag.option, help=_help(flag))
                continue
            optional_value: dict[str, Any] = {"nargs": "?", "const": flag.alone} if flag.alone else {}
            section.add_argument(
                flag.option, dest=flag.name, metavar=_metavar(flag), help=_help(flag), **optional_value
            )
    return parser


def _metavar(flag: Flag) -> str:
    if flag.about.folder:
        return "DIR"
    if flag.choices:
        return "NAME"
    return {"integer": "N", "number": "X", "boolean": "true|false", "path": "PATH", "text": "TEXT"}[flag.kind]


def _help(flag: Flag) -> str:
    parts = [flag.description]
    if flag.choices:
        parts.append(f"One of {', '.join(flag.choices)}.")
    limits = " ".join(part for part in (flag.range, flag.about.unit) if part)
    notes = [limits] if limits else []
    notes.append("required" if flag.required else f"default: {flag.default}")
    return " ".join([*parts, f"({'; '.join(notes)})"]).replace("%", "%%")


def _read(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> tuple[dict[str, Any], list[Problem]]:
    """Raw values by flag name, and a problem for every word that belongs to no flag."""
    # Options first: argparse gives words their places as soon as it meets one.
    ordered = sorted(arguments, key=lambda word: not word.startswith("--"))
    try:
        known, rest = parser.parse_known_args(ordered)
    except argparse.ArgumentError as error:
        fix = f"write {error.argument_name}=VALUE; {parser.prog} --help says what it takes"
        raise SettingsError(Problem(f"{error.argument_name} needs a value", fix=fix)) from None
    given = {name: value for name, value in vars(known).items() if value != []}
    problems = [Problem(f"{word!r} belongs to no flag", fix=f"{parser.prog} --help lists the flags") for word in rest]
    return given, problems


def _joined(arguments: Sequence[str], flags: Sequence[Flag]) -> list[str]:
    """``--flag value`` as ``--flag=value``, so that a value may begin with one dash, and is no word of the command."""
    switches = {flag.option: flag.alone for flag in flags if flag.alone}
    takes_words = any(flag.about.word for flag in flags)
    words: list[str] = []
    for word in arguments:
        last = words[-1] if words else ""
        is_value = last not in switches or not takes_words or word.lower() in TRUTHS
        if last.startswith("--") and "=" not in last and not word.startswith("--") and is_value:
            words[-1] += f"={word}"
        else:
            words.append(word)
    return [f"{word}={switches[word]}" if word in switches else word for word in words]
