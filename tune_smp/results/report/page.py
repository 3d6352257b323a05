"""Writing report.html: one file with its figures and pictures inside, which asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from tune_smp.results.folder import RunFolder, write_text
from tune_smp.results.report.content import page_of
from tune_smp.results.report.facts import gather
from tune_smp.results.report.pictures import ExamplePicture


def write_page(folder: RunFolder, examples: Sequence[ExamplePicture] = ()) -> Path:
    """Write ``report.html`` from what the folder holds of a train or a search, whole or not at all.

    Files that are missing, empty or damaged make the page shorter, which it says. The same folder and examples give the
    same bytes. Raises ResourceError when the file cannot be written.
    """
    page = page_of(gather(folder), examples)
    style, script = _source("report.css"), _source("report.js")
    html = _template().render(
        page=page,
        style=Markup(style),  # noqa: S704  our own file
        script=Markup(script),  # noqa: S704  our own file
        policy=_policy(style, script),
    )
    # A name of bytes that are no UTF-8 is shown by their numbers.
    write_text(folder.report, html.encode("utf-8", "backslashreplace").decode("utf-8"))
    return folder.report


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    return environment.from_string(_source("report.html.j2"))


def _policy(style: str, script: str) -> str:
    """Nothing may be loaded or run but what this very file holds."""
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _source(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
