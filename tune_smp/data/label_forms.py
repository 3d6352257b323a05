"""In which form labels hold their classes: as numbers, as greys in three channels, or as colours that have names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tune_smp.data.label_values import LabelValues
from tune_smp.data.labels import IGNORE, ClassMap, Mode
from tune_smp.errors import Problem, listing

MOST_COLORS = 20  # that are suggested as classes; more come from a photograph, or from edges that were smoothed
LABELS_FIX = "save the labels as single-channel images of class values"
BACKGROUND, IGNORED = "background", "ignore"


@dataclass(frozen=True)
class ColorClasses:
    """The meaning of painted labels: 0xRRGGBB → class number, or IGNORE; and the names of the classes."""

    numbers: Mapping[int, int]
    names: tuple[str, ...]

    def applied_to(self, class_map: ClassMap) -> ClassMap:
        """The class map with the colours in place of values; predictions hold the class numbers."""
        values = tuple(range(max(2, len(self.names))))
        colors = tuple(self.numbers.items())
        return replace(class_map, values=values, names=self.names, colors=colors)


def color_classes(mode: Mode, colors: Mapping[str, int]) -> ColorClasses:
    """The classes of named colours in their order; of binary labels all but the background are the foreground.

    The background is the colour of that name, else black, else the first.
    """
    names = [name for name in colors if name != IGNORED]
    if mode == "binary":
        black = next((name for name in names if colors[name] == 0), names[0])
        background = BACKGROUND if BACKGROUND in names else black
        numbers = {colors[name]: int(name != background) for name in names}
        return ColorClasses(numbers | _ignored(colors), ("foreground",))
    return ColorClasses({colors[name]: number for number, name in enumerate(names)} | _ignored(colors), tuple(names))


def _ignored(colors: Mapping[str, int]) -> dict[int, int]:
    return {colors[IGNORED]: IGNORE} if IGNORED in colors else {}


def as_numbers(
    labels: Sequence[LabelValues], mode: Mode, colors: Mapping[str, int]
) -> tuple[list[LabelValues], list[Problem], list[str]]:
    """The labels as single channels of numbers, what is wrong with their forms, and what is odd about them."""
    if mode == "multilabel":
        return list(labels), [*_mixed_inversion(labels)], []
    if colors:
        numbered = [_by_color(label, color_classes(mode, colors)) for label in labels]
        return numbered, [*_unlisted(labels, colors)], []
    problems = [*_in_alpha(labels), *_painted(labels), *_palettes_that_differ(labels), *_mixed_inversion(labels)]
    greys = [label.name for label in labels if label.is_grey]
    notes = [f"{len(greys)} labels have three equal channels, read as one: {listing(greys, 3)}"] if greys else []
    # Of those refused here nothing more has to be said.
    return (
        [replace(label, channels=1) if label.is_grey or label.is_colored else label for label in labels],
        problems,
        notes,
    )


def _by_color(label: LabelValues, classes: ColorClasses) -> LabelValues:
    counts: Counter[int] = Counter()
    for color, pixels in colors_of(label):
        if color in classes.numbers and classes.numbers[color] != IGNORE:
            counts[classes.numbers[color]] += pixels
    values = sorted(counts)
    return replace(label, channels=1, values=tuple(values), counts=tuple(counts[v] for v in values), truncated=False)


def colors_of(label: LabelValues) -> list[tuple[int, int]]:
    """(0xRRGGBB, pixels) of a label of three channels, a grey one, or one with a palette."""
    if label.colors and not label.is_grey:
        return list(label.colors)
    counts = label.counts or (0,) * len(label.values)
    if label.is_grey:
        counts = tuple(count // 3 for count in counts)
    found = []
    for value, count in zip(label.values, counts, strict=True):
        index = int(value)
        red, green, blue = label.palette[index] if index < len(label.palette) else (index, index, index)
        found.append((red << 16 | green << 8 | blue, count))
    return found


def _unlisted(labels: Sequence[LabelValues], colors: Mapping[str, int]) -> Iterator[Problem]:
    counts: Counter[int] = Counter()
    names: list[str] = []
    for label in labels:
        other = [(color, pixels) for color, pixels in colors_of(label) if color not in colors.values()]
        counts.update(dict(other))
        names.extend([label.name] if other else [])
    if counts:
        listed = listing([f"#{color:06x} ({pixels} px)" for color, pixels in counts.most_common()], 5)
        fix = "list them too (ignore=#rrggbb leaves a colour out), or export labels without smoothed edges"
        yield Problem(
            f"{len(counts)} colours of {len(names)} labels are not in --labelColors: {listed}", listing(names), fix
        )


def _painted(labels: Sequence[LabelValues]) -> Iterator[Problem]:
    painted = [label for label in labels if label.is_colored]
    if not painted:
        return
    counts: Counter[int] = Counter()
    for label in painted:
        counts.update(dict(label.colors))
    common = [color for color, _ in counts.most_common(MOST_COLORS)]
    if len(counts) > MOST_COLORS:
        share = sum(counts[color] for color in common) / sum(counts.values())
        fix = f"{LABELS_FIX}, or paint them without smoothed edges and lossy compression and pass --labelColors"
        problem = (
            f"{len(painted)} labels are RGB images of {len(counts)} colours, of which the first {MOST_COLORS} hold "
            f"{share:.1%} of the pixels: photographs, or painted labels whose edges were smoothed"
        )
        yield Problem(problem, listing([label.name for label in painted]), fix)
        return
    mapping = ",".join(f"{name}=#{color:06x}" for name, color in _suggested(common))
    yield Problem(
        f"{len(painted)} labels are painted in {len(counts)} colours, which need names to be classes",
        listing([label.name for label in painted]),
        f'pass --labelColors "{mapping}" (with names of your own; the order is that of the classes), or {LABELS_FIX}',
    )


def _suggested(common: Sequence[int]) -> list[tuple[str, int]]:
    """Black, or else the most frequent colour, is the background; the others are the classes 1, 2, ..."""
    background = 0 if 0 in common else common[0]
    others = sorted(color for color in common if color != background)
    return [(BACKGROUND, background), *((f"class{number}", color) for number, color in enumerate(others, 1))]


def _in_alpha(labels: Sequence[LabelValues]) -> Iterable[Problem]:
    with_alpha = [label for label in labels if label.alpha_values > 1]
    if with_alpha and all(label.is_constant for label in labels):
        yield Problem(
            "the labels have one colour everywhere: what they show lies in their alpha channel, which is not read",
            listing([f"{label.name} ({label.alpha_values} values of alpha)" for label in with_alpha], 3),
            "save the alpha channel as a greyscale image",
        )


def _palettes_that_differ(labels: Sequence[LabelValues]) -> Iterator[Problem]:
    """Only the entries that pixels use count."""
    seen: dict[int, tuple[tuple[int, int, int], str]] = {}
    for label in labels:
        for value in label.values if label.palette else ():
            color = label.palette[int(value)] if int(value) < len(label.palette) else (0, 0, 0)
            first, name = seen.setdefault(int(value), (color, label.name))
            if first != color:
                here, there = (f"{int(value)} is #{r:02x}{g:02x}{b:02x}" for r, g, b in (first, color))
                colors = dict.fromkeys(color for label in labels for color, _ in colors_of(label) if label.palette)
                mapping = ",".join(f"{name}=#{color:06x}" for name, color in _suggested(list(colors)[:MOST_COLORS]))
                yield Problem(
                    "the palettes of the labels differ, so that one index has several colours",
                    f"{name}: {here}; {label.name}: {there}",
                    f'read the labels by their colours: --labelColors "{mapping}" (with names of your own)',
                )
                return


def _mixed_inversion(labels: Sequence[LabelValues]) -> Iterator[Problem]:
    white, black = ([label.name for label in labels if label.inverted is is_white] for is_white in (True, False))
    if white and black:
        yield Problem(
            f"{len(white)} labels are stored as MinIsWhite and {len(black)} as MinIsBlack: a viewer shows the same "
            "number as white in one and as black in the other",
            f"MinIsWhite: {listing(white)}; MinIsBlack: {listing(black)}",
            "save all labels with one photometric interpretation, or narrow --labelsPattern to one kind",
        )
