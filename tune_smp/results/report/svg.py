"""Matplotlib figures as SVG inside a page: colours of the page's own style, text as text, the same bytes each time."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# What a figure draws with. The colours are placeholders: in the page they become classes, whose real colours the style
# sheet gives, one for light and one for dark.
PAINTS = {name: f"#{0x100000 + index:06x}" for index, name in enumerate(("ink", "grid", "other", "best", "default"))}
_CLASSES = {colour: name for name, colour in PAINTS.items()}

_RC: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "tune-smp", "text.parse_math": False, "font.size": 9.5}
_DECIMALS = re.compile(r"(\d+\.\d)\d+")
_XLINK = "{http://www.w3.org/1999/xlink}href"
_KEPT = frozenset({"opacity", "text-anchor", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity"})


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """The settings that a figure for the page is drawn under, whatever the user's own matplotlib is set to."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def inline(figure: Figure, name: str, description: str) -> Markup:
    """The figure as an ``<svg>`` element; ``name`` keeps its ids apart from those of the page's other figures.

    It holds no style attribute, no script and no address, so that the strictest content security policy lets it be.
    """
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of glyphs that its font lacks: the browser's may have them
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})  # type: ignore[no-untyped-call]  # matplotlib's
    # Of our own making a moment ago: not a document that could attack the parser.
    root = ET.fromstring(stream.getvalue())  # noqa: S314
    _clean(root, name)
    attributes = {"class": "plot", "role": "img", "aria-label": description, "viewBox": root.attrib["viewBox"]}
    root.attrib.clear()
    root.attrib.update(attributes)
    return Markup(ET.tostring(root, encoding="unicode", short_empty_elements=True))  # noqa: S704  text is escaped by ET


def _clean(root: ET.Element, name: str) -> None:
    ids = _used_ids(root, name)
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = element.text = (element.text or "").strip() or None if element.tag == "text" else None
        _restyle(element)
        _rename(element, ids)
        if "d" in element.attrib:
            element.set("d", " ".join(_DECIMALS.sub(r"\1", element.attrib["d"]).split()))


def _used_ids(root: ET.Element, name: str) -> dict[str, str]:
    """New names for the ids that something refers to."""
    references = [element.attrib.get(_XLINK, "") for element in root.iter()]
    references += [element.attrib.get("clip-path", "")[4:-1] for element in root.iter()]
    used = dict.fromkeys(reference[1:] for reference in references if reference.startswith("#"))
    return {old: f"{name}-{number}" for number, old in enumerate(used)}


def _restyle(element: ET.Element) -> None:
    """``style="…"`` as attributes and classes."""
    declarations = (part.partition(":") for part in element.attrib.pop("style", "").split(";") if ":" in part)
    classes = []
    for key, _, value in ((key.strip(), colon, value.strip()) for key, colon, value in declarations):
        if key in ("fill", "stroke"):
            if value in _CLASSES:
                classes.append(f"{key}-{_CLASSES[value]}")
            else:
                element.set(key, value)
        elif key in _KEPT:
            element.set(key, value)
        elif key in ("font", "font-size"):
            element.set("font-size", re.findall(r"[\d.]+(?=px)", value)[0])
    if classes:
        element.set("class", " ".join(classes))


def _rename(element: ET.Element, ids: dict[str, str]) -> None:
    old = element.attrib.pop("id", "")
    if old in ids:
        element.set("id", ids[old])
    if _XLINK in element.attrib:
        element.set("href", f"#{ids[element.attrib.pop(_XLINK)[1:]]}")
    if "clip-path" in element.attrib:
        element.set("clip-path", f"url(#{ids[element.attrib['clip-path'][5:-1]]})")
    for number in ("x", "y"):
        if number in element.attrib:
            element.set(number, _DECIMALS.sub(r"\1", element.attrib[number]))
