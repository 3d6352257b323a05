"""Find images and labels by file pattern and pair them.

Names are matched here, with a time limit, not by filepattern's own search, which can hang and cannot say what it left
out.
"""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tune_smp.data.pairing.folders import Request, image_names, require_folder, sub_folders
from tune_smp.data.pairing.name_matching import match_names, number_or_text
from tune_smp.data.pairing.pairs import (
    Collection,
    FoundFile,
    Unpaired,
    Value,
    broken_stacks,
    pair_by_names,
    pair_by_variables,
    stack,
)
from tune_smp.data.pairing.patterns import NamePattern, levels, translate
from tune_smp.data.pairing.suggestions import suggest
from tune_smp.data.pairing.unmatched import holds_images, no_match, nothing_readable
from tune_smp.data.reading.foreign_formats import foreign_by_name
from tune_smp.errors import DataError, Problem, SettingsError, listing
from tune_smp.settings.folders import collection_folders, resolve_folder
from tune_smp.texts import shown


@dataclass(frozen=True)
class ImageGroup:
    """The files of one image without a label: one path per stacked channel."""

    name: str
    paths: tuple[Path, ...]
    variables: Mapping[str, Value] = field(default_factory=dict)
    levels: int = 0  # of folders that are part of the name


@dataclass(frozen=True)
class _Matches:
    """The files that one pattern found in one folder."""

    request: Request
    pattern: NamePattern
    files: tuple[FoundFile, ...]
    left_out: tuple[str, ...]
    miscounted: tuple[str, ...]  # would match if the pattern did not count digits


def find_pairs(
    images_dir: Path, labels_dir: Path, *, images_pattern: str, labels_pattern: str, allow_unpaired: bool = False
) -> Collection:
    """All pairs of image and label under two folders, or under their sub-folders ``images/`` and ``labels/``.

    Raises:
        SettingsError: a folder cannot be used, or a pattern cannot be read.
        DataError: no match, files left out by digit counts, or files without a single partner; all of these at once.
            With ``allow_unpaired`` the last two kinds are left out and reported in ``Collection.notes``.
    """
    images_used, labels_used = collection_folders(images_dir, labels_dir)
    images, labels = _search(
        Request("images", images_dir, images_pattern, images_used),
        Request("labels", labels_dir, labels_pattern, labels_used),
    )
    _require_different_files(images, labels)
    collection, findings = _pair(images, labels)
    findings = (*_miscounted(images), *_miscounted(labels), *findings)
    if findings and not allow_unpaired:
        problems = [_unpaired_problem(finding, images, labels) for finding in findings]
        raise DataError([*problems, *_order_alone(images, labels)] if not collection.pairs else problems)
    if not collection.pairs:
        raise DataError(Problem("no image has a label", _both_patterns(images, labels)))
    notes = (*(finding.note for finding in findings), *_left_out_notes(images, labels), *_unsearched(images, labels))
    return replace(collection, notes=notes, levels=(levels(images_pattern), levels(labels_pattern)))


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
    (images,) = _search(Request("images", images_dir, images_pattern, resolve_folder(images_dir, "images")))
    variables = images.pattern.variables
    if not variables:
        return tuple(ImageGroup(file.key, (file.path,), levels=file.levels) for file in images.files)
    channel = channel_variable if channel_variable in variables else None
    stacks = stack(images.files, [name for name in variables if name != channel], channel)
    # Without labels to pair with, equal values harm only where they would be stacked.
    findings = (*_miscounted(images), *(broken_stacks(stacks, "image", channel) if channel else ()))
    if findings:
        raise DataError(Problem(finding.rule, listing(finding.names), finding.fix) for finding in findings)
    if channel and channel_values and stacks.inner_values != tuple(channel_values):
        raise _other_channels(channel, stacks.inner_values, channel_values)
    if not channel:
        return tuple(ImageGroup(file.key, (file.path,), file.variables, file.levels) for file in images.files)
    groups = [
        ImageGroup(files[0].key, tuple(file.path for file in files), files[0].variables, files[0].levels)
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
    """Find what every request asks for; the problems of all requests are reported together."""
    usable: list[tuple[Request, NamePattern]] = []
    problems: list[Problem] = []
    for request in requests:
        try:
            require_folder(request)
            usable.append((request, translate(request)))
        except SettingsError as error:
            problems.extend(error.problems)
    if problems:
        raise SettingsError(problems)
    found = [_match(request, pattern) for request, pattern in usable]
    missing = [problem for problem in found if isinstance(problem, Problem)]
    if missing:
        raise DataError(missing)
    return tuple(matches for matches in found if isinstance(matches, _Matches))


def _match(request: Request, pattern: NamePattern) -> _Matches | Problem:
    """The matching files, or the problem that there are none, or that two have one name."""
    depth = levels(request.pattern)
    paths: dict[str, list[str]] = defaultdict(list)  # composed form of a name → as it is on the disk
    for name in image_names(request, depth):
        paths[unicodedata.normalize("NFC", name)].append(name)
    names = sorted(paths)
    try:
        exact, loose, widened = match_names((pattern.exact, pattern.loose, pattern.widened), names)
    except TimeoutError as error:
        fix = "avoid quantifiers inside quantified groups, such as (a|aa)+"
        raise SettingsError(Problem(f"the file pattern takes too long: {error}", request.shown, fix)) from error
    groups = exact if any(group is not None for group in exact) else loose
    files = [
        FoundFile(request.used / path, {variable: number_or_text(text) for variable, text in group.items()}, depth)
        for name, group in zip(names, groups, strict=True)
        if group is not None
        for path in paths[name]
    ]
    if not files:
        return no_match(request, names)
    if foreign := nothing_readable(request, [file.key for file in files]):
        return foreign
    doubled = [name for name, group in zip(names, groups, strict=True) if group is not None and len(paths[name]) > 1]
    if doubled:
        problem = (
            f"{len(doubled)} names of {request.noun} stand for two files each, equal but for their Unicode normal form"
        )
        return Problem(problem, f"{request.shown}: {listing(doubled)}", "remove or rename one of the two")
    missed = [(name, wide) for name, group, wide in zip(names, groups, widened, strict=True) if group is None]
    return _Matches(
        request=request,
        pattern=pattern,
        files=tuple(files),
        left_out=tuple(name for name, wide in missed if wide is None),
        miscounted=tuple(name for name, wide in missed if wide is not None),
    )


# --- what is said about files that do not match -----------------------------------------------------------------------


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
    foreign = dict.fromkeys(known for name in finding.names if (known := foreign_by_name(name)))
    ways_out = [f"{known.name} are not read: {known.way_out}; else " for known in foreign]
    fix = f"{''.join(ways_out[:1])}{finding.fix}, or pass --allowUnpaired to leave these files out"
    return Problem(finding.rule, where, fix)


def _order_alone(images: _Matches, labels: _Matches) -> Iterable[Problem]:
    """Says so where nothing but their sorted order would pair images and labels, and what patterns would."""
    if images.pattern.variables or labels.pattern.variables or len(images.files) != len(labels.files):
        return
    first = f"{images.files[0].name} with {labels.files[0].name}"
    suggestions = [suggest(matches.request, [file.key for file in matches.files]) for matches in (images, labels)]
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
        others = {file.key for file in other.files} if matches.request.used == other.request.used else set()
        names = [shown(name) for name in matches.left_out if name not in others]
        if names:
            pattern = matches.request.pattern
            yield f'{len(names)} files do not match --{matches.request.noun}Pattern "{pattern}": {listing(names)}'


def _unsearched(*every: _Matches) -> Iterable[str]:
    """Sub-folders with images, beside the images that were found; those of the other request are meant to be there."""
    used = {os.path.realpath(matches.request.used) for matches in every}
    for matches in every:
        request = matches.request
        inside = [
            name
            for name in sub_folders(request.used)
            if os.path.realpath(request.used / name) not in used and holds_images(request.used / name)
        ]
        if inside and not levels(request.pattern):
            names = listing([shown(name) for name in inside], 4)
            yield (
                f"{len(inside)} sub-folders of the {request.noun} hold images too, which are not searched: {names}; "
                'a pattern with folders, such as "{w}/...", finds them'
            )
