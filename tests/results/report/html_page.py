"""A report as a browser sees it: elements and texts."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import numpy as np

from tune_smp.results.folder import RunFolder
from tune_smp.results.report.page import write_page
from tune_smp.results.report.pictures import ExamplePicture

MakeFolder = Callable[..., RunFolder]

VOID = {"meta", "img", "input", "br"}

FINAL: dict[str, Any] = {
    "rounds": 2,
    "images": 8,
    "standings": [
        {"trial": 7, "mean": 0.8, "metrics": [0.81, 0.79]},
        {"trial": 0, "mean": 0.75, "metrics": [0.7, 0.8]},
    ],
    "gain": {"mean": 0.05, "low": 0.01, "high": 0.09},
}
"""``final`` of summary.json."""


class Page(HTMLParser):
    """The elements of a page, its text by the innermost element, and whether every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, *tags: str) -> str:
        found = [text for tag, text in self.texts if (tag in tags if tags else tag not in ("script", "style"))]
        return " ".join("".join(found).split())


def read(folder: RunFolder, examples: tuple[ExamplePicture, ...] = ()) -> Page:
    page = Page(write_page(folder, examples).read_text(encoding="utf-8"))
    assert page.open == []
    return page


def example(**changes: Any) -> ExamplePicture:
    mask = np.zeros((1, 20, 30), np.uint8)
    mask[:, 5:12, 5:20] = 1
    known = {"name": "r1.tif", "caption": "best of 3", "metric_name": "IoU", "metric_value": 0.9}
    return ExamplePicture(**{**known, "image": mask[0] * 90, "label": mask, "prediction": mask, **changes})
