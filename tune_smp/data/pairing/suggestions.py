"""File patterns that would match, for messages: built from the names that there are, and tried before they are said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tune_smp.data.pairing.folders import Request
from tune_smp.data.pairing.name_matching import match_names
from tune_smp.data.pairing.patterns import from_glob, levels, translate
from tune_smp.data.reading.formats import image_suffix
from tune_smp.errors import SettingsError
from tune_smp.importing import python_environment

VARIABLES = "rijkmnpqxyz"  # of a suggestion; c would stack channels
_SAMPLE = 200  # names
# infer_pattern can crash its process.
_INFERRER = "import filepattern, json, sys; print(filepattern.infer_pattern(files=json.load(sys.stdin)))"


def suggest(request: Request, names: Sequence[str], first: Sequence[str] = ()) -> str:
    """A pattern that matches all image files, or a sample of them, as far as one is found.

    It is one of ``first``, the glob that the user's pattern may be, one with a variable where digits differ (by the
    names that the user gave to variables), an inferred one, or the suffix.
    """
    images = [name for name in names if image_suffix(name) or "/" in name]
    if not images:
        return ""
    sample = [*images[:: max(1, len(images) // _SAMPLE)], min(images, key=len), max(images, key=len)]
    depth = sample[0].count("/")
    candidates = (
        *first,
        from_glob(request.pattern),
        *_by_digits(request.pattern, sample),
        *_infer(sample),
        ".*/" * depth + ".*" + image_suffix(images[0]),
    )
    for candidate in candidates:
        try:
            pattern = translate(replace(request, pattern=candidate))
        except SettingsError:
            continue
        if levels(candidate) != depth:
            continue
        (groups,) = match_names((pattern.widened,), sample)
        if None not in groups:
            return pattern.widened_text
    return ""


def _by_digits(pattern: str, names: Sequence[str]) -> Iterator[str]:
    """``img_{i:d+}.tif`` for names that differ in whole numbers alone: leading zeros belong to the number."""
    pieces = [re.split(r"([0-9]+)", name) for name in names]  # text, digits, text, ..., text
    if len({tuple(piece[::2]) for piece in pieces}) != 1:
        return
    own = re.findall(r"\{(\w+?)(?::[^{}]*)?\}", pattern)
    free = iter([name for name in own if name.isidentifier()] + [name for name in VARIABLES if name not in own])
    columns = list(zip(*pieces, strict=True))
    yield "".join(
        f"{{{next(free, 'i')}:d+}}" if len(set(column)) > 1 else re.sub(r"([()\[\]{}+*?^$|\\])", r"\\\1", column[0])
        for column in columns
    )


def _infer(names: Sequence[str]) -> list[str]:
    child = subprocess.run(
        [sys.executable, "-c", _INFERRER],
        env={**os.environ, **python_environment()},
        input=json.dumps(names),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    inferred = child.stdout.strip() if child.returncode == 0 else ""
    return [re.sub(r"[0-9]*\{(\w+):d+\+?\}", r"{\1:d+}", inferred)] if inferred else []
