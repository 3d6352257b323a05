"""The settings of the small commands: report, show, fetch-weights and demo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from annotated_types import MinLen
from pydantic import ConfigDict

from tune_smp.choices.catalogue import CATALOGUE
from tune_smp.errors import Problem
from tune_smp.settings.base import Draft, Rule, Settings
from tune_smp.settings.fields import About
from tune_smp.settings.folders import AbsolutePath

ENCODERS, SPACES = "encoders", "spaces"


class ReportSettings(Settings):
    """The report of what is in a folder, once more."""

    command: ClassVar[str] = "report"

    output_dir: Annotated[Path, AbsolutePath, About(word="OUTPUT_DIR", folder="read")]
    """Output folder of a run or search."""


def only_some_have_names(draft: Draft) -> Iterator[Problem]:
    """Only encoders and search spaces are shown in part."""
    subject, name = draft.values.get("subject"), draft.values.get("name")
    if name is not None and subject is not None and subject not in (ENCODERS, SPACES):
        yield Problem(f"there is no part of the {subject} to show, got {name!r}", fix=f"tune-smp show {subject}")


class ShowSettings(Settings):
    """The tables of what can be chosen, folded to the terminal, or to COLUMNS."""

    command: ClassVar[str] = "show"
    rules: ClassVar[tuple[Rule, ...]] = (only_some_have_names,)

    subject: Annotated[str, About(word="SUBJECT", choices=(*CATALOGUE, SPACES))]
    """What to show."""
    name: Annotated[str | None, MinLen(1), About(word="NAME", absent="all")] = None
    """Family of the encoders, or search space."""
    json_output: Annotated[bool, About("Output", flag="json")] = False
    """Print JSON, not a table."""


class FetchWeightsSettings(Settings):
    """The pretrained weights to put into the cache that HF_HOME names."""

    command: ClassVar[str] = "fetch-weights"

    names: Annotated[tuple[str, ...], MinLen(1), About(word="ENCODER|SPACE|ARCHITECTURE ...")]
    """Encoders as Family,variant,weights; search spaces, for all weights that they ask for; or architectures, for the
    weights of every encoder that they take."""


class DemoSettings(Settings):
    """One run on synthetic data; a demo of before in the same folder is replaced."""

    model_config = ConfigDict(validate_default=True)  # the default folder, too, becomes absolute
    command: ClassVar[str] = "demo"

    output_dir: Annotated[Path, AbsolutePath, About("Output", folder="written")] = Path("tune-smp-demo")
    """Folder for data, model and masks."""
