"""OME-XML on the planes that lie in one TIFF file, and about the size of their pixels.

One OME-XML may describe a set of files, and a copy of it stands in each. An image file is read as the planes that lie
in it: which other files belong to it is what a file pattern says. The document is rewritten so that it speaks of this
file alone, in one order of dimensions, and tifffile does the rest.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import PurePath
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from tune_smp.data.reading.calibration import Calibration, Length

ORDER = "XYCZT"  # of what is rewritten: tifffile reverses it, T is the slowest axis
NO_GRID_NOTE = "the planes that the OME-XML gives to this file are no whole Z, C and T: they are read one by one"
FOREIGN_NOTE = "the OME-XML describes other files than this: its pages are read in their order"


class Position(NamedTuple):
    """The place of a plane in its image."""

    t: int
    z: int
    c: int


@dataclass(frozen=True)
class OwnPlanes:
    """``text`` is the OME-XML of this file's planes; empty where it names none, or cannot be parsed.

    ``missing`` says which planes the OME-XML promises that the file does not hold, ``calibrations`` has one entry per
    image of ``text``.
    """

    text: str = ""
    missing: str = ""
    calibrations: tuple[Calibration, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Block:
    """A TiffData element: planes that follow each other, in a file with this UUID and name."""

    first: Position
    ifd: int
    count: int | None  # None: all that are left
    uuid: str
    file_name: str


@dataclass
class _Image:
    """The Pixels element of an image, and the pages of this file that it names."""

    pixels: Element
    order: str  # the dimensions of planes, fastest first, such as "ZCT"
    sizes: Position
    samples: int  # of a pixel: 3 for RGB, whose channels are one plane
    blocks: list[_Block]
    pages: dict[Position, int] = field(default_factory=dict)

    @property
    def is_shared(self) -> bool:
        """Whether some of its planes lie in other files."""
        return len({(block.uuid, block.file_name) for block in self.blocks}) > 1


def own_planes(text: str, *, file_name: str, pages: int) -> OwnPlanes:
    """The OME-XML reduced to the planes that lie in this file, whatever name it has now.

    A file is known by the UUID in the root of its own copy of the document; else by its name; else, if the document
    names but one file, it is this one. ``pages`` is how many the file has.
    """
    try:
        root = ElementTree.fromstring(text)  # noqa: S314  expat limits what entities can grow to
        images = [(element, _parse(pixels)) for element, pixels in _pixels(root)]
    except (ElementTree.ParseError, KeyError, ValueError):
        return OwnPlanes()
    blocks = [block for _, image in images for block in image.blocks]
    own = _own_blocks(blocks, root.get("UUID", ""), file_name)
    if not own:
        return OwnPlanes(notes=(FOREIGN_NOTE,) if blocks else ())
    notes, calibrations = [], []
    for element, image in images:
        _place(image, [block for block in image.blocks if block in own], pages)
        if not image.pages:
            root.remove(element)
            continue
        missing = _missing(image, pages)
        if missing:
            return OwnPlanes(missing=missing)
        if not _rewrite(image):
            notes.append(NO_GRID_NOTE)
        calibrations.append(_calibration(image.pixels))
    return OwnPlanes(ElementTree.tostring(root, encoding="unicode"), "", tuple(calibrations), tuple(notes))


def _pixels(root: Element) -> Iterator[tuple[Element, Element]]:
    """Every Image with its Pixels, by their local names: the namespace changes with each version of the schema."""
    for image in root:
        for pixels in image:
            if _name(image) == "Image" and _name(pixels) == "Pixels":
                yield image, pixels


def _name(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _parse(pixels: Element) -> _Image:
    """Raise KeyError or ValueError where an attribute is missing or no number."""
    channels = [child for child in pixels if _name(child) == "Channel"]
    samples = int(channels[0].get("SamplesPerPixel", 1)) if channels else 1
    sizes = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "ZCT"}
    position = Position(sizes["T"], sizes["Z"], max(1, sizes["C"] // samples))
    blocks = [_block(child) for child in pixels if _name(child) == "TiffData"]
    everything = _Block(Position(0, 0, 0), 0, None, "", "")
    return _Image(pixels, pixels.attrib["DimensionOrder"][2:], position, samples, blocks or [everything])


def _block(element: Element) -> _Block:
    first = Position(*(int(element.get(f"First{axis}", 0)) for axis in "TZC"))
    count = element.get("PlaneCount", element.get("NumPlanes", "1" if "IFD" in element.attrib else None))
    uuid = next((child for child in element if _name(child) == "UUID"), None)
    return _Block(
        first,
        int(element.get("IFD", 0)),
        None if count is None else int(count),
        "" if uuid is None else (uuid.text or "").strip(),
        "" if uuid is None else uuid.get("FileName", ""),
    )


def _own_blocks(blocks: Sequence[_Block], uuid: str, file_name: str) -> set[_Block]:
    unnamed = {block for block in blocks if not block.uuid and not block.file_name}
    rules = (
        {block for block in blocks if uuid and block.uuid == uuid},
        {block for block in blocks if _folded(block.file_name) == _folded(file_name)},
        set(blocks) if len({(block.uuid, block.file_name) for block in blocks}) == 1 else set(),
    )
    return next((unnamed | found for found in rules if found), unnamed)


def _folded(name: str) -> str:
    """A file name as file systems compare it that ignore case; without a folder, of either kind of path."""
    return unicodedata.normalize("NFC", PurePath(name.replace("\\", "/")).name).casefold()


def _place(image: _Image, blocks: Sequence[_Block], pages: int) -> None:
    """Fill ``image.pages`` from the blocks of this file; planes beyond the image's sizes are left out."""
    sizes = [getattr(image.sizes, axis.lower()) for axis in image.order]  # fastest first
    for block in blocks:
        first = [getattr(block.first, axis.lower()) for axis in image.order]
        if any(position >= size for position, size in zip(first, sizes, strict=True)):
            continue  # ImageJ leaves such elements behind when it crops
        start = sum(position * prod(sizes[:axis]) for axis, position in enumerate(first))
        left = prod(sizes) - start
        for number in range(min(left, pages - block.ifd if block.count is None else block.count)):
            image.pages[_position(start + number, image)] = block.ifd + number


def _position(number: int, image: _Image) -> Position:
    places = {}
    for axis in image.order:
        number, places[axis.lower()] = divmod(number, getattr(image.sizes, axis.lower()))
    return Position(**places)


def _missing(image: _Image, pages: int) -> str:
    """Name what the file should hold and does not; a file of a set owes its own planes only."""
    promised = len(image.pages) if image.is_shared else prod(image.sizes)
    held = sum(page < pages for page in image.pages.values())
    return f"its OME-XML promises {promised} planes, {held} of them are in the file" if held < promised else ""


def _rewrite(image: _Image) -> bool:
    """Reduce sizes, order and TiffData to the planes in ``image.pages``; False where they fill no grid."""
    times, depths, channels = (sorted({position[axis] for position in image.pages}) for axis in range(3))
    grid = [Position(*place) for place in product(times, depths, channels)]
    is_grid = len(grid) == len(image.pages)
    if not is_grid:
        grid = sorted(image.pages)
        times, depths, channels = [0], list(range(len(grid))), [0]
    pixels = image.pixels
    for child in [child for child in pixels if _name(child) == "TiffData"]:
        pixels.remove(child)
    pixels.set("DimensionOrder", ORDER)
    for axis, size in (("T", len(times)), ("Z", len(depths)), ("C", len(channels) * image.samples)):
        pixels.set(f"Size{axis}", str(size))
    namespace = pixels.tag.removesuffix("Pixels")
    for number, place in enumerate(product(range(len(times)), range(len(depths)), range(len(channels)))):
        t, z, c = map(str, place)
        attributes = {"FirstT": t, "FirstZ": z, "FirstC": c, "IFD": str(image.pages[grid[number]]), "PlaneCount": "1"}
        ElementTree.SubElement(pixels, f"{namespace}TiffData", attributes)
    return is_grid


def _calibration(pixels: Element) -> Calibration:
    """Schema: PhysicalSize in µm and TimeIncrement in s where no unit is given."""
    return Calibration(
        x=_length(pixels, "PhysicalSizeX", "µm"),
        y=_length(pixels, "PhysicalSizeY", "µm"),
        z=_length(pixels, "PhysicalSizeZ", "µm"),
        t=_length(pixels, "TimeIncrement", "s"),
    )


def pixel_attributes(calibration: Calibration) -> str:
    """The attributes of a Pixels element, such as ``PhysicalSizeX="0.325" PhysicalSizeXUnit="µm"``."""
    names = {"x": "PhysicalSizeX", "y": "PhysicalSizeY", "z": "PhysicalSizeZ", "t": "TimeIncrement"}
    lengths = {name: length for axis, name in names.items() if (length := getattr(calibration, axis))}
    return " ".join(f'{name}="{length.value!r}" {name}Unit="{length.unit}"' for name, length in lengths.items())


def _length(pixels: Element, attribute: str, usual_unit: str) -> Length | None:
    try:
        value = float(pixels.get(attribute, "nan"))
    except ValueError:
        return None
    return Length.of(value, pixels.get(f"{attribute}Unit", usual_unit))
