"""Pairing labels with images, from file names and the values of pattern variables alone."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tune_smp.data.reading.formats import image_stem
from tune_smp.errors import DataError, Problem, listing
from tune_smp.texts import shown

Value = int | float | str
Key = tuple[Value, ...]

CHANNEL_VARIABLE = "c"  # stacked into input channels where the label pattern lacks it


@dataclass(frozen=True)
class Pair:
    """An image (one file per stacked channel) with its label (one file, or one per enumerated class).

    ``plane`` counts the Z and T planes inside the files; a file of one plane serves every plane of its partner.
    """

    name: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...]
    variables: Mapping[str, Value] = field(default_factory=dict)
    plane: int = 0


@dataclass(frozen=True)
class Collection:
    """All pairs, sorted by name, and what the patterns' variables meant."""

    pairs: tuple[Pair, ...]
    channel_variable: str | None = None
    channel_values: tuple[Value, ...] = ()
    class_variable: str | None = None
    class_values: tuple[Value, ...] = ()
    notes: tuple[str, ...] = ()
    twins: tuple[tuple[int, ...], ...] = ()  # pairs whose images are the same picture, known when they are decoded
    levels: tuple[int, int] = (0, 0)  # of folders that are part of the names of images, and of labels


@dataclass(frozen=True)
class FoundFile:
    """A file whose name matches the pattern, and what the variables are in it."""

    path: Path
    variables: Mapping[str, Value] = field(default_factory=dict)
    levels: int = 0  # of folders that are part of the name

    @property
    def key(self) -> str:
        """The name by which files are compared: with its folders, in Unicode's composed form."""
        return unicodedata.normalize("NFC", relative_name(self.path, self.levels))

    @property
    def name(self) -> str:
        """The name as it is shown: control characters, which could spoil a terminal, are escaped."""
        return shown(self.key)


@dataclass(frozen=True)
class Unpaired:
    """Files that break one rule of pairing: a problem, or left out with a note."""

    rule: str
    names: tuple[str, ...]
    fix: str

    @property
    def note(self) -> str:
        """The note where they are left out."""
        return f"left out: {self.rule}: {listing(self.names)}"


@dataclass(frozen=True)
class Stacks:
    """Files gathered by the values of the outer variables, each stack sorted by the value of the inner variable."""

    complete: Mapping[Key, tuple[FoundFile, ...]]
    inner_values: tuple[Value, ...]
    doubled: Mapping[Key, tuple[str, ...]]  # several files have the same values in all variables
    incomplete: Mapping[Key, tuple[str, ...]]  # not every value of the inner variable is there

    def __contains__(self, key: Key) -> bool:
        return key in self.complete or key in self.doubled or key in self.incomplete


def relative_name(path: Path, levels: int) -> str:
    """The file name with the names of so many folders above it: ``plate1/A01/field.tif``."""
    return "/".join(path.parts[-1 - levels :])


def stack(files: Iterable[FoundFile], outer: Sequence[str], inner: str | None) -> Stacks:
    """Gather files that agree in ``outer``; a complete stack has one file for each value that ``inner`` ever takes."""
    gathered: dict[Key, dict[Value, list[FoundFile]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        key = tuple(file.variables[name] for name in outer)
        gathered[key][file.variables[inner] if inner else 0].append(file)
    values = sorted({value for by_value in gathered.values() for value in by_value}, key=_value_order)
    complete, doubled, incomplete = {}, {}, {}
    for key, by_value in gathered.items():
        candidates = [file for value in values for file in by_value.get(value, ())]
        if any(len(same) > 1 for same in by_value.values()):
            doubled[key] = tuple(file.name for file in candidates)
        elif len(by_value) < len(values):
            incomplete[key] = tuple(file.name for file in candidates)
        else:
            complete[key] = tuple(candidates)
    return Stacks(complete, tuple(values) if inner else (), doubled, incomplete)


def pair_by_variables(
    images: Sequence[FoundFile],
    labels: Sequence[FoundFile],
    *,
    image_variables: Sequence[str],
    label_variables: Sequence[str],
) -> tuple[Collection, tuple[Unpaired, ...]]:
    """Pairs that agree in every variable which both patterns have.

    Of the image variables that the label pattern lacks, ``c`` is stacked into channels and every other one gives pairs
    of its own; the one label variable that the image pattern lacks enumerates classes:

        images    a_z1_c1 a_z1_c2 a_z2_c1 a_z2_c2    {s}_z{z}_c{c}
        labels    a_nucleus a_edge                   {s}_{k}
        shared s; c → channels, z → pairs, k → classes
        pairs     (a_z1_c1 + a_z1_c2, a_edge + a_nucleus)
                  (a_z2_c1 + a_z2_c2, a_edge + a_nucleus)

    Raises:
        DataError: the patterns cannot be matched with each other at all.
    """
    shared = [name for name in image_variables if name in label_variables]
    channel = CHANNEL_VARIABLE if CHANNEL_VARIABLE in set(image_variables) - set(label_variables) else None
    class_variable = _class_variable(image_variables, label_variables)
    image_outer = [name for name in image_variables if name != channel]
    image_stacks = stack(images, image_outer, channel)
    label_stacks = stack(labels, shared, class_variable)
    if not shared:
        _require_one_side_single(image_stacks, labels, image_variables=image_variables, label_variables=label_variables)

    def label_key(image_key: Key) -> Key:
        values = dict(zip(image_outer, image_key, strict=True))
        return tuple(values[name] for name in shared)

    pairs = [
        _pair(files, label_stacks.complete[label_key(key)], channel)
        for key, files in image_stacks.complete.items()
        if label_key(key) in label_stacks.complete
    ]
    lonely_images = [
        file.name
        for key, files in image_stacks.complete.items()
        if label_key(key) not in label_stacks
        for file in files
    ]
    wanted = {label_key(key) for kind in _kinds(image_stacks) for key in kind}
    lonely_labels = [file.name for key, files in label_stacks.complete.items() if key not in wanted for file in files]
    findings = (
        *_without_partner(lonely_images, len(images), lonely_labels, len(labels)),
        *broken_stacks(image_stacks, "image", channel),
        *broken_stacks(label_stacks, "label", class_variable),
    )
    collection = Collection(
        pairs=tuple(sorted(pairs, key=lambda pair: pair.name)),
        channel_variable=channel,
        channel_values=image_stacks.inner_values,
        class_variable=class_variable,
        class_values=label_stacks.inner_values,
    )
    return collection, findings


def pair_by_names(images: Sequence[FoundFile], labels: Sequence[FoundFile]) -> tuple[Collection, tuple[Unpaired, ...]]:
    """Pairs of equal file names, then of equal stems among what is left (``a.tif`` with ``a.png``). Never by order."""
    labels_by_name = {label.key: label for label in labels}
    pairs = [_pair((image,), (labels_by_name[image.key],), None) for image in images if image.key in labels_by_name]
    paired = {image.key for image in images} & labels_by_name.keys()
    rest_images = _by_stem(image for image in images if image.key not in paired)
    rest_labels = _by_stem(label for label in labels if label.key not in paired)
    doubled = []
    for stem in sorted(rest_images.keys() & rest_labels.keys()):
        candidates = (*rest_images[stem], *rest_labels[stem])
        if len(candidates) == 2:
            pairs.append(_pair((rest_images[stem][0],), (rest_labels[stem][0],), None))
        else:
            doubled.append(" and ".join(file.name for file in candidates))
    lonely_images = [file.name for stem in rest_images.keys() - rest_labels.keys() for file in rest_images[stem]]
    lonely_labels = [file.name for stem in rest_labels.keys() - rest_images.keys() for file in rest_labels[stem]]
    findings = list(_without_partner(lonely_images, len(images), lonely_labels, len(labels)))
    if doubled:
        rule = f"{len(doubled)} file names have several candidates for one image or one label"
        findings.append(Unpaired(rule, tuple(doubled), "rename or remove all but one"))
    return Collection(tuple(sorted(pairs, key=lambda pair: pair.name))), tuple(findings)


def expand_planes(pairs: Sequence[Pair], planes: Mapping[Path, int]) -> tuple[Pair, ...]:
    """One pair per Z or T plane; ``planes`` gives ImageInfo.planes of every file.

    A file of one plane serves every plane of its partners (one label for a whole stack, say). A pair of one plane keeps
    its name; planes are named ``stack.tif[0]``, ``stack.tif[1]``, ….

    Raises:
        DataError: files of one pair have different numbers of planes; all such pairs at once.
    """
    expanded: list[Pair] = []
    problems = []
    for pair in pairs:
        counts = {path: planes[path] for path in (*pair.images, *pair.labels)}
        several = {count for count in counts.values() if count > 1}
        if len(several) > 1:
            where = ", ".join(f"{shown(path.name)}: {count}" for path, count in counts.items())
            fix = "image and label need the same number of Z and T planes, or one of them a single plane"
            problems.append(Problem("image and label have different numbers of planes", where, fix))
        elif several:
            expanded.extend(
                Pair(f"{pair.name}[{plane}]", pair.images, pair.labels, pair.variables, plane)
                for plane in range(*several)
            )
        else:
            expanded.append(pair)
    if problems:
        raise DataError(problems)
    return tuple(expanded)


def _value_order(value: Value) -> tuple[bool, float, str]:
    """Numbers before texts, each in their own order."""
    return (True, 0.0, value) if isinstance(value, str) else (False, value, "")


def _kinds(stacks: Stacks) -> tuple[Iterable[Key], ...]:
    return (stacks.complete, stacks.doubled, stacks.incomplete)


def _pair(images: Sequence[FoundFile], labels: Sequence[FoundFile], channel: str | None) -> Pair:
    return Pair(
        name=images[0].key,
        images=tuple(file.path for file in images),
        labels=tuple(file.path for file in labels),
        variables={name: value for name, value in images[0].variables.items() if name != channel},
    )


def _by_stem(files: Iterable[FoundFile]) -> dict[str, list[FoundFile]]:
    stems: dict[str, list[FoundFile]] = defaultdict(list)
    for file in files:
        stems[image_stem(file.key)].append(file)
    return stems


def _class_variable(image_variables: Sequence[str], label_variables: Sequence[str]) -> str | None:
    extra = [name for name in label_variables if name not in image_variables]
    if len(extra) > 1:
        raise DataError(
            Problem(
                "at most one variable of the label pattern may be missing in the image pattern: it enumerates classes",
                f"--labelsPattern: {', '.join(extra)}",
                "give variables that mean the same thing the same name in both patterns",
            )
        )
    return extra[0] if extra else None


def _require_one_side_single(
    image_stacks: Stacks,
    labels: Sequence[FoundFile],
    *,
    image_variables: Sequence[str],
    label_variables: Sequence[str],
) -> None:
    """Without a shared variable everything agrees with everything: right only for one image or for one label."""
    images = sum(1 for kind in _kinds(image_stacks) for _ in kind)
    if images > 1 and len(labels) > 1:
        of_images, of_labels = (", ".join(names) or "none" for names in (image_variables, label_variables))
        raise DataError(
            Problem(
                f"the patterns share no variable, so {images} images cannot be matched with {len(labels)} labels",
                f"variables of --imagesPattern: {of_images}; variables of --labelsPattern: {of_labels}",
                "use the same variable in both for what they have in common, or no variable in either",
            )
        )


def _without_partner(
    images: Sequence[str], all_images: int, labels: Sequence[str], all_labels: int
) -> Iterable[Unpaired]:
    if images:
        rule = f"{len(images)} of {all_images} images have no label"
        yield Unpaired(rule, tuple(sorted(images)), "add the labels")
    if labels:
        rule = f"{len(labels)} of {all_labels} labels have no image"
        yield Unpaired(rule, tuple(sorted(labels)), "add the images")


def broken_stacks(stacks: Stacks, noun: str, inner: str | None) -> Iterable[Unpaired]:
    """Find what is wrong with stacks: several files for one place, or none; ``noun`` is image or label."""
    if stacks.doubled:
        names = tuple(" and ".join(same) for same in stacks.doubled.values())
        count = sum(map(len, stacks.doubled.values()))
        rule = f"{count} {noun} files are candidates for {len(names)} {noun}s: all their variables have the same values"
        yield Unpaired(rule, names, "make the pattern tell them apart, or remove all but one")
    if stacks.incomplete:
        names = tuple(name for same in stacks.incomplete.values() for name in same)
        values = ", ".join(map(str, stacks.inner_values))
        rule = f"{len(stacks.incomplete)} {noun}s have not every value of {inner} ({values})"
        yield Unpaired(rule, names, "add the missing files")
