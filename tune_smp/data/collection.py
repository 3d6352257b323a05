"""Find images and labels by file pattern and pair them.

The pattern language is filepattern's, with four differences, so that no file is lost and no pattern hangs or crashes:
a bare ``{c}`` means any number (filepattern: exactly one digit); a dot without a quantifier means a dot as long as that
matches any file (filepattern: any character); backslash escapes work; groups without a name capture nothing (there,
filepattern crashes). Names are matched here, in a child process with a time limit, not by filepattern's own search,
which can hang and cannot tell what it left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tune_smp.data.folders import Request, image_names, used_folder
from tune_smp.data.formats import image_suffix, shown
from tune_smp.data.name_matching import match_names, number_or_text
from tune_smp.data.pairing import (
    Collection,
    FoundFile,
    Pair,
    Unpaired,
    Value,
    broken_stacks,
    expand_planes,
    pair_by_names,
    pair_by_variables,
    stack,
)
from tune_smp.errors import DataError, Problem, SettingsError, listing

__all__ = ["Collection", "ImageGroup", "Pair", "Value", "expand_planes", "find_images", "find_pairs"]

LONGEST_PATTERN = 1000  # characters; filepattern's regular expressions overflow the stack on very long ones

# infer_pattern can crash its process.
_INFERRER = "import filepattern, json, sys; print(filepattern.infer_pattern(files=json.load(sys.stdin)))"


@dataclass(frozen=True)
class ImageGroup:
    """The files of one image without a label: one path per stacked channel."""

    name: str
    paths: tuple[Path, ...]
    variables: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class _NamePattern:
    """A file pattern as regular expressions over whole file names."""

    variables: tuple[str, ...]
    exact: str  # a dot without a quantifier is a dot
    loose: str  # and here any character
    widened: str  # `exact` with any number of digits or letters where the pattern counts them
    widened_text: str  # the pattern that `widened` stands for


@dataclass(frozen=True)
class _Matches:
    """What one pattern found in one folder."""

    request: Request
    pattern: _NamePattern
    files: tuple[FoundFile, ...]
    left_out: tuple[str, ...]
    miscounted: tuple[str, ...]  # would match if the pattern did not count digits

    @property
    def folder(self) -> Path:
        return self.files[0].path.parent


def find_pairs(
    images_dir: Path, labels_dir: Path, *, images_pattern: str, labels_pattern: str, allow_unpaired: bool = False
) -> Collection:
    """All pairs of image and label under two folders, or under their sub-folders ``images/`` and ``labels/``.

    Raises:
        SettingsError: a folder cannot be used, or a pattern cannot be read.
        DataError: no match, files left out by digit counts, or files without a single partner; all of these at once.
            With ``allow_unpaired`` the last two kinds are left out and told in ``Collection.notes``.
    """
    images, labels = _search(
        Request("images", images_dir, images_pattern, ("images",)),
        Request("labels", labels_dir, labels_pattern, ("labels", "images")),
    )
    _require_different_files(images, labels)
    collection, findings = _pair(images, labels)
    findings = (*_miscounted(images), *_miscounted(labels), *findings)
    if findings and not allow_unpaired:
        problems = [_unpaired_problem(finding, images, labels) for finding in findings]
        raise DataError([*problems, *_order_alone(images, labels)] if not collection.pairs else problems)
    if not collection.pairs:
        raise DataError(Problem("no image has a label", _both_patterns(images, labels)))
    notes = (*(finding.note for finding in findings), *_left_out_notes(images, labels))
    return replace(collection, notes=notes)


def find_images(
    images_dir: Path,
    *,
    images_pattern: str,
    channel_variable: str | None = None,
    channel_values: Sequence[Value] = (),
) -> tuple[ImageGroup, ...]:
    """All images under a folder, the values of ``channel_variable`` stacked; sorted by name.

    ``channel_values``: what these values must be, where the order of the channels has a meaning already.

    Raises:
        SettingsError: the folder cannot be used, or the pattern cannot be read.
        DataError: no match, files left out by digit counts, several files for one channel, or other channels.
    """
    (images,) = _search(Request("images", images_dir, images_pattern, ("images",)))
    variables = images.pattern.variables
    if not variables:
        return tuple(ImageGroup(file.path.name, (file.path,)) for file in images.files)
    channel = channel_variable if channel_variable in variables else None
    stacks = stack(images.files, [name for name in variables if name != channel], channel)
    # Without labels to pair with, equal values harm only where they would be stacked.
    findings = (*_miscounted(images), *(broken_stacks(stacks, "image", channel) if channel else ()))
    if findings:
        raise DataError(Problem(finding.rule, listing(finding.names), finding.fix) for finding in findings)
    if channel and channel_values and stacks.inner_values != tuple(channel_values):
        raise _other_channels(channel, stacks.inner_values, channel_values)
    if not channel:
        return tuple(ImageGroup(file.path.name, (file.path,), file.variables) for file in images.files)
    groups = [
        ImageGroup(files[0].path.name, tuple(file.path for file in files), files[0].variables)
        for files in stacks.complete.values()
    ]
    return tuple(sorted(groups, key=lambda group: group.name))


def _other_channels(variable: str, found: Sequence[Value], wanted: Sequence[Value]) -> DataError:
    said = f"the model was trained on {variable} = {listing([str(value) for value in wanted])}"
    return DataError(
        Problem(
            f"{said}; the images have {variable} = {listing([str(value) for value in found])}",
            "--imagesPattern",
            f"choose a pattern that matches the same values of {variable}, or pass --model of a run on these channels",
        )
    )


# --- from requests to matching files ---------------------------------------------------------------------------------


def _search(*requests: Request) -> tuple[_Matches, ...]:
    """What every request finds; the problems of all requests are told together."""
    usable: list[tuple[Request, Path, _NamePattern]] = []
    problems: list[Problem] = []
    for request in requests:
        try:
            usable.append((request, used_folder(request), _translate(request)))
        except SettingsError as error:
            problems.extend(error.problems)
    if problems:
        raise SettingsError(problems)
    found = [_match(request, folder, pattern) for request, folder, pattern in usable]
    missing = [problem for problem in found if isinstance(problem, Problem)]
    if missing:
        raise DataError(missing)
    return tuple(matches for matches in found if isinstance(matches, _Matches))


def _match(request: Request, folder: Path, pattern: _NamePattern) -> _Matches | Problem:
    """The matching files, or the problem that there are none."""
    names = image_names(folder, request)
    try:
        exact, loose, widened = match_names((pattern.exact, pattern.loose, pattern.widened), names)
    except TimeoutError as error:
        fix = "avoid quantifiers inside quantified groups, such as (a+)+"
        raise SettingsError(Problem(f"the file pattern takes too long: {error}", request.shown, fix)) from error
    groups = exact if any(group is not None for group in exact) else loose
    files = [
        FoundFile(folder / name, {variable: number_or_text(text) for variable, text in group.items()})
        for name, group in zip(names, groups, strict=True)
        if group is not None
    ]
    if not files:
        return _no_match(request, names)
    missed = [(name, wide) for name, group, wide in zip(names, groups, widened, strict=True) if group is None]
    return _Matches(
        request=request,
        pattern=pattern,
        files=tuple(files),
        left_out=tuple(name for name, wide in missed if wide is None),
        miscounted=tuple(name for name, wide in missed if wide is not None),
    )


# --- the pattern language --------------------------------------------------------------------------------------------


def _translate(request: Request) -> _NamePattern:
    """Regular expressions for a file pattern; what stands in braces is translated by filepattern itself.

    Raises:
        SettingsError: the pattern cannot be read.
    """
    _require_readable(request)
    parts = re.split(r"(\{[^{}]*\})", request.pattern)  # text, {variable}, text, {variable}, ..., text
    texts, tokens = parts[::2], [_explicit(token) for token in parts[1::2]]
    widened = [re.sub(r":(?:d+|c+)\}", lambda spec: f":{spec[0][1]}+}}", token) for token in tokens]
    groups = [_named_group(token, request) for token in tokens]
    wide_groups = [_named_group(token, request) for token in widened]
    exact_texts = [_with_exact_dots(text) for text in texts]
    pattern = _NamePattern(
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


def _require_readable(request: Request) -> None:
    if not request.pattern:
        raise SettingsError(_unreadable(request, "it is empty"))
    if len(request.pattern) > LONGEST_PATTERN:
        raise SettingsError(_unreadable(request, f"it has more than {LONGEST_PATTERN} characters"))
    if "/" in request.pattern:
        raise SettingsError(_unreadable(request, "it must describe file names, without folders"))
    outside = re.sub(r"\{[^{}]*\}", "", request.pattern)
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
    return Problem(
        f"the file pattern cannot be read: {reason}",
        f'--{request.noun}Pattern "{request.pattern}"',
        'variables are {r:d+} (a number), {r:ddd} (three digits) or {c:c+} (letters), as in "img_{r:d+}.tif"',
    )


# --- what is said about files that do not match -----------------------------------------------------------------------


def _no_match(request: Request, names: Sequence[str]) -> Problem:
    if not names:
        return Problem(f"there are no files for the {request.noun}", request.shown)
    suggestion = _suggest(request, names, [request.pattern])
    return Problem(
        f"none of {len(names)} file names matches the pattern of the {request.noun}",
        f"{request.shown}: {listing([shown(name) for name in names], 5)}",
        f'try --{request.noun}Pattern "{suggestion}"' if suggestion else "",
    )


def _suggest(request: Request, names: Sequence[str], first: Sequence[str] = ()) -> str:
    """A pattern that matches all image files, or a sample of 200: one of ``first``, an inferred one, or the suffix."""
    images = [name for name in names if image_suffix(name)]
    if not images:
        return ""
    sample = [*images[:: max(1, len(images) // 200)], min(images, key=len), max(images, key=len)]
    candidates = [*first, *_infer(sample), ".*" + image_suffix(images[0])]
    for candidate in candidates:
        try:
            pattern = _translate(replace(request, pattern=candidate))
        except SettingsError:
            continue
        (groups,) = match_names((pattern.widened,), sample)
        if None not in groups:
            return pattern.widened_text
    return ""


def _infer(names: Sequence[str]) -> list[str]:
    child = subprocess.run(
        [sys.executable, "-c", _INFERRER],
        input=json.dumps(names),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return [inferred] if child.returncode == 0 and (inferred := child.stdout.strip()) else []


def _miscounted(matches: _Matches) -> Iterable[Unpaired]:
    if matches.miscounted:
        request = matches.request
        count = len(matches.miscounted)
        rule = f'{count} {request.noun} are left out because "{request.pattern}" counts digits or letters'
        names = tuple(shown(name) for name in matches.miscounted)
        yield Unpaired(rule, names, f'use --{request.noun}Pattern "{matches.pattern.widened_text}"')


def _require_different_files(images: _Matches, labels: _Matches) -> None:
    both = sorted(_real_paths(images) & _real_paths(labels))
    if both:
        names = listing([shown(Path(path).name) for path in both])
        problem = f"{len(both)} files are images and labels at once"
        fix = "give labels a folder or a pattern of their own"
        raise DataError(Problem(problem, f"{names}  ({_both_patterns(images, labels)})", fix))


def _real_paths(matches: _Matches) -> set[str]:
    # Not Path.resolve: it fails on a loop of links, which is named when it is opened.
    return {os.path.realpath(file.path) for file in matches.files}


def _pair(images: _Matches, labels: _Matches) -> tuple[Collection, tuple[Unpaired, ...]]:
    if images.pattern.variables or labels.pattern.variables:
        return pair_by_variables(
            images.files,
            labels.files,
            image_variables=images.pattern.variables,
            label_variables=labels.pattern.variables,
        )
    return pair_by_names(images.files, labels.files)


def _unpaired_problem(finding: Unpaired, images: _Matches, labels: _Matches) -> Problem:
    where = f"{listing(finding.names)}  ({_both_patterns(images, labels)})"
    return Problem(finding.rule, where, f"{finding.fix}, or pass --allowUnpaired to leave these files out")


def _order_alone(images: _Matches, labels: _Matches) -> Iterable[Problem]:
    """Says so where nothing but their sorted order would pair images and labels, and what patterns would."""
    if images.pattern.variables or labels.pattern.variables or len(images.files) != len(labels.files):
        return
    first = f"{images.files[0].name} with {labels.files[0].name}"
    suggestions = [
        _suggest(matches.request, [file.path.name for file in matches.files]) for matches in (images, labels)
    ]
    flags = " ".join(
        f'--{m.request.noun}Pattern "{text}"' for m, text in zip((images, labels), suggestions, strict=True)
    )
    yield Problem(
        f"names have nothing in common, only their order would pair them ({first}), which is never done",
        _both_patterns(images, labels),
        f"say with variables what they have in common, such as {flags}" if all("{" in s for s in suggestions) else "",
    )


def _both_patterns(images: _Matches, labels: _Matches) -> str:
    return f'imagesPattern "{images.request.pattern}", labelsPattern "{labels.request.pattern}"'


def _left_out_notes(images: _Matches, labels: _Matches) -> Iterable[str]:
    """Told are files that match neither pattern: images and labels may share a folder."""
    for matches, other in ((images, labels), (labels, images)):
        others = {file.path.name for file in other.files} if matches.folder == other.folder else set()
        names = [shown(name) for name in matches.left_out if name not in others]
        if names:
            pattern = matches.request.pattern
            yield f'{len(names)} files do not match --{matches.request.noun}Pattern "{pattern}": {listing(names)}'
