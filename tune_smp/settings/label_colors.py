"""The colours of labels that are painted, not numbered: ``background=#000000,cell=#ff0000``, or JSON that says so."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BeforeValidator

from tune_smp.errors import Problem, listing
from tune_smp.settings.base import Draft

IGNORED = "ignore"  # the name of a colour whose pixels are left out of loss and metrics
MOST_CLASSES = 255
EXAMPLE = "background=#000000,cell=#ff0000"


def _read(value: Any) -> Any:
    """The content of a JSON file stands for its path: a run is resumed with the colours that it began with."""
    if isinstance(value, Mapping):
        return json.dumps(value)
    if isinstance(value, str) and value.endswith(".json") and not value.lstrip().startswith("{"):
        try:
            return Path(value).expanduser().read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError):
            return value  # `legible` reports it
    return value


ColorText = BeforeValidator(_read)
"""For the field: text, a mapping, or the path of a JSON file."""


def label_colors(text: str | None) -> dict[str, int]:
    """Name → 0xRRGGBB, in the order of the classes; of text that `legible` finds no fault with."""
    return {name: int(color.lstrip("#"), 16) for name, color in _entries(text)} if text else {}


def legible(draft: Draft) -> Iterator[Problem]:
    """Every colour is #rrggbb, no name and no colour occurs twice, and a colour can mean one class only."""
    text = draft.values.get("label_colors")
    if text is None:
        return
    where = draft.where("label_colors")
    try:
        entries = _entries(text)
    except ValueError as error:
        yield Problem(f"the label colours cannot be read: {error}", where, f"write them as {EXAMPLE}")
        return
    wrong = [f"{name}={color}" for name, color in entries if not re.fullmatch(r"#?[0-9a-fA-F]{6}", color)]
    if wrong:
        yield Problem(f"colours are #rrggbb, {len(wrong)} are not", listing(wrong), f"write them as {EXAMPLE}")
    names, colors = [name for name, _ in entries], [color.lower().lstrip("#") for _, color in entries]
    for kind, values in (("name", names), ("colour", colors)):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            yield Problem(f"every {kind} may occur once in the label colours, {listing(twice)} does not", where)
    classes = [name for name in names if name != IGNORED]
    if not 2 <= len(classes) <= MOST_CLASSES:
        yield Problem(f"label colours need 2 to {MOST_CLASSES} classes, there are {len(classes)}", where)
    if draft.values.get("segmentation_mode") == "multilabel":
        fix = "use --segmentationMode multiclass, or give each class a channel or a file of its own"
        yield Problem("a pixel has one colour, so classes that overlap (multilabel) cannot be colours", where, fix)


def _entries(text: str) -> list[tuple[str, str]]:
    """Raise ValueError with the reason."""
    if text.lstrip().startswith("{"):
        pairs: list[tuple[Any, Any]] = json.loads(text, object_pairs_hook=list)
        if not all(isinstance(color, str) for _, color in pairs):
            raise ValueError("the JSON must map names to colours")
        return [(str(name), color.strip()) for name, color in pairs]
    if text.endswith(".json"):
        raise ValueError(f"there is no such file, or it holds no text: {text}")
    entries = []
    for part in filter(str.strip, text.split(",")):
        name, equals, color = part.partition("=")
        if not (name.strip() and equals):
            raise ValueError(f"{part.strip()!r} is no name=#rrggbb")
        entries.append((name.strip(), color.strip()))
    return entries
