"""Values of a search space that are wrong by themselves, whatever else stands in the file or on the command line."""

from __future__ import annotations

from collections.abc import Iterator

from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.run import RunFlags
from tune_smp.tuning.space import FLAGS, Scalar

# What a configuration cannot be without; no value of a space is judged by it.
_PLACEHOLDERS = {flag.name: flag.choices[0] if flag.choices else "any" for flag in FLAGS.values() if flag.required}


def wrong_values(flag: str, value: Scalar) -> Iterator[Problem]:
    """Find what is wrong with this value of this flag; nothing where a run could have it."""
    if isinstance(value, str) and FLAGS[flag].kind in ("integer", "number", "boolean"):
        # On a command line everything is text; in a file, text where a number is due is a slip.
        text = f"--{flag} must be {FLAGS[flag].expectation}, got the text {value!r}"
        yield Problem(text, fix=f"write it without quotes: {value}")
        return
    try:
        RunFlags.from_flags({**_PLACEHOLDERS, flag: value})
    except SettingsError as error:
        yield from error.problems
