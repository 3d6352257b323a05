"""The pattern language: filepattern's, over file names and the folders above them.

It differs from filepattern's own search in five things, so that no file is lost and no pattern hangs or crashes: a bare
``{c}`` means any number (filepattern: exactly one digit); a dot without a quantifier means a dot as long as that
matches any file (filepattern: any character); backslash escapes work; groups without a name capture nothing (there,
filepattern crashes); ``/`` stands between folders, as in ``{plate}/{well:c+}/field.tif``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tune_smp.data.pairing.folders import Request
from tune_smp.errors import Problem, SettingsError

LONGEST_PATTERN = 1000  # characters; filepattern's regular expressions overflow the stack on very long ones


@dataclass(frozen=True)
class NamePattern:
    """A file pattern as regular expressions over whole file names."""

    variables: tuple[str, ...]
    exact: str  # a dot without a quantifier is a dot
    loose: str  # and here any character
    widened: str  # `exact` with any number of digits or letters where the pattern counts them
    widened_text: str  # the pattern that `widened` stands for


def translate(request: Request) -> NamePattern:
    """Regular expressions for a file pattern; what stands in braces is translated by filepattern itself.

    Raises:
        SettingsError: the pattern cannot be read.
    """
    _require_readable(request)
    parts = re.split(
        r"(\{[^{}]*\})", unicodedata.normalize("NFC", request.pattern)
    )  # text, {variable}, text, {variable}, ..., text
    texts, tokens = parts[::2], [_explicit(token) for token in parts[1::2]]
    widened = [re.sub(r":(?:d+|c+)\}", lambda spec: f":{spec[0][1]}+}}", token) for token in tokens]
    groups = [_named_group(token, request) for token in tokens]
    wide_groups = [_named_group(token, request) for token in widened]
    exact_texts = [_with_exact_dots(text) for text in texts]
    pattern = NamePattern(
        variables=(),
        exact=_interleave(exact_texts, groups),
        loose=_interleave(texts, groups),
        widened=_interleave(exact_texts, wide_groups),
        widened_text=_interleave(texts, widened),
    )
    try:
        return replace(pattern, variables=tuple(re.compile(pattern.exact).groupindex))
    except (re.error, OverflowError, RecursionError) as error:
        raise SettingsError(_unreadable(request, str(error))) from error


def outside_braces(pattern: str) -> str:
    """The pattern with a letter in place of each variable."""
    return re.sub(r"\{[^{}]*\}", "x", pattern)


def levels(pattern: str) -> int:
    """How many folders the pattern names above the file; a slash in brackets, as in ``[^/]``, is none."""
    return re.sub(r"\[[^\]]*\]", "", outside_braces(pattern)).count("/")


def from_glob(pattern: str) -> str:
    """The file pattern that matches what a shell's pattern matches: ``img_*.tif`` → ``img_.*.tif``."""
    meanings = {"*": ".*", "**": ".*", "?": "[^/]"}
    return re.sub(r"\*+|\?|\[!", lambda found: meanings.get(found[0], "[^"), pattern)


def _require_readable(request: Request) -> None:
    if not request.pattern:
        raise SettingsError(_unreadable(request, "it is empty"))
    if len(request.pattern) > LONGEST_PATTERN:
        raise SettingsError(_unreadable(request, f"it has more than {LONGEST_PATTERN} characters"))
    outside = outside_braces(request.pattern)
    if outside.startswith("/") or "//" in outside or outside.endswith("/"):
        raise SettingsError(_unreadable(request, "folders stand before the file name, one slash after each"))
    if ".." in re.split("/", outside)[:-1] or "." in re.split("/", outside)[:-1]:
        raise SettingsError(_unreadable(request, "it cannot leave the folder that is searched"))
    if "{" in outside or "}" in outside:
        raise SettingsError(_unreadable(request, "a brace is not closed"))


def _explicit(token: str) -> str:
    """``{c}`` → ``{c:d+}``; the old style ``{rrr}`` → ``{r:ddd}`` and ``{r+}`` → ``{r:d+}``; others as they are."""
    name = token[1:-1]
    if old := re.fullmatch(r"([a-zA-Z])(\1+|\+)", name):
        return f"{{{old[1]}:{'d+' if old[2] == '+' else 'd' * len(name)}}}"
    return f"{{{name}:d+}}" if re.fullmatch(r"\w+", name) else token


def _named_group(token: str, request: Request) -> str:
    """``{r:dd}`` → ``(?P<r>[0-9][0-9])``."""
    import filepattern  # noqa: PLC0415  costs 0.2 s, and workers never search

    variables = filepattern.get_variables(token, suppress_warnings=True)
    expression: str = filepattern.get_regex(token, suppress_warnings=True)
    if len(variables) != 1 or not variables[0].isidentifier() or "{" in expression:
        raise SettingsError(_unreadable(request, f"{token} is not a variable"))
    return f"(?P<{variables[0]}>{expression[1:]}"


def _with_exact_dots(text: str) -> str:
    r"""``.tif`` → ``\.tif``, while ``.*``, ``\.`` and ``[.]`` stay as they are."""
    pieces = re.compile(r"\\.|\[[^\]]*\]|\.(?![*+?])", re.DOTALL)
    return pieces.sub(lambda piece: r"\." if piece[0] == "." else piece[0], text)


def _interleave(texts: Sequence[str], tokens: Sequence[str]) -> str:
    return "".join(text + token for text, token in zip(texts, (*tokens, ""), strict=True))


def _unreadable(request: Request, reason: str) -> Problem:
    where = f'--{request.noun}Pattern "{request.pattern}"'
    if re.search(r"(^|[/_}])\*", request.pattern):
        fix = f'use --{request.noun}Pattern "{from_glob(request.pattern)}"'
        return Problem("the file pattern is a glob, as shells have them, and no regular expression", where, fix)
    return Problem(
        f"the file pattern cannot be read: {reason}",
        where,
        'variables are {r:d+} (a number), {r:ddd} (three digits) or {c:c+} (letters), as in "img_{r:d+}.tif"',
    )
