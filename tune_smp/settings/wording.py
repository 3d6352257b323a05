"""How values, names and broken rules are put into messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from tune_smp.errors import Problem, nearest
from tune_smp.settings.fields import Flag
from tune_smp.texts import shown

LONG = 15
"""From more names than this, a message shows the nearest few and says where all are listed."""

FEW = 5


def choose_from(name: str, names: Sequence[str], everything: str) -> str:
    """``did you mean 'X'? one of: ...``; a long list is cut to the nearest few, and ``everything`` names the full
    one."""
    if len(names) <= LONG:
        return f"{nearest(name, names)}one of: {', '.join(names)}"
    near = difflib.get_close_matches(name, names, n=FEW, cutoff=0.5)
    few = f"near it: {', '.join(near)}; " if near else ""
    return f"{nearest(name, names)}{few}all {len(names)}: {everything}"


def as_written(flag: Flag, value: object, *, given: bool) -> str:
    """The flag with its value, as on a command line."""
    return f"{flag.option} {shown(value)}" if given else f"{flag.option} {shown(value)} (the default)"


def wrong_value(flag: Flag, value: object) -> Problem:
    """A value that breaks the flag's own rule: its type, its range or its list of names."""
    if flag.choices:
        name = shown(value)
        everything = f"tune-smp show {flag.about.table}"
        return Problem(f"{flag.option} has no choice {name!r}", fix=choose_from(name, flag.choices, everything))
    optional = "" if flag.required else f", or leave {flag.option} out for: {flag.default}"
    return Problem(
        f"{flag.option} must be {flag.expectation}, got {shown(value)}", fix=f"pass {flag.expectation}{optional}"
    )


def missing_value(flag: Flag) -> Problem:
    """A flag that has to be passed and was not."""
    names = f" One of: {', '.join(flag.choices)}." if flag.choices else ""
    return Problem(f"{flag.option} is required", fix=f"pass {flag.option}: {flag.description}{names}")


def unknown_flag(name: str, flags: Sequence[Flag], command: str) -> Problem:
    """A flag that this command does not have; ``name`` comes without dashes."""
    options = [flag.option for flag in flags if not flag.about.word]
    return Problem(
        f"--{shown(name)} is not a flag of tune-smp {command}",
        fix=choose_from(f"--{name}", options, f"tune-smp {command} --help"),
    )
