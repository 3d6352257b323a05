"""The flags of the plugin, as every manifest needs them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tune_smp.settings.encoder_choice import FLAG as ENCODER_FLAG
from tune_smp.settings.encoder_choice import every_choice
from tune_smp.settings.fields import Flag, flags_of
from tune_smp.settings.run import RunSettings


@dataclass(frozen=True, slots=True)
class Parameter:
    """One flag of the plugin.

    ``default`` is the value itself, None where there is none and the program finds one. ``choices`` are all legal
    values, also of the encoder, which help and messages do not list.
    """

    flag: Flag
    default: str | int | float | None
    choices: tuple[str, ...]

    @property
    def name(self) -> str:
        """``batchSize``."""
        return self.flag.name

    @property
    def title(self) -> str:
        """``Batch size``; what a folder or a name is of, says what it is: ``Images``, ``Model``."""
        words = self.name.removesuffix("Dir").removesuffix("Name")
        return re.sub("[A-Z]", lambda letter: f" {letter[0].lower()}", words).capitalize()

    @property
    def is_collection(self) -> bool:
        """Whether it is a folder of images."""
        return bool(self.flag.about.subfolders)

    @property
    def description(self) -> str:
        """The meaning, with limits, unit and default, in one line."""
        limits = " ".join(part for part in (self.flag.range, self.flag.about.unit) if part)
        default = "" if self.flag.required else f"default: {self.flag.default}"
        notes = "; ".join(part for part in (limits, default) if part)
        return f"{self.flag.description} ({notes})" if notes else self.flag.description


def inputs() -> tuple[Parameter, ...]:
    """Return what the plugin is given, in the order of a form that is read from top to bottom."""
    return tuple(parameter for parameter in _parameters() if parameter.flag.about.folder != "written")


def outputs() -> tuple[Parameter, ...]:
    """The folders that the plugin fills."""
    return tuple(parameter for parameter in _parameters() if parameter.flag.about.folder == "written")


def sections() -> dict[str, tuple[Parameter, ...]]:
    """The inputs by heading."""
    headings = dict.fromkeys(parameter.flag.about.group for parameter in inputs())
    return {heading: tuple(row for row in inputs() if row.flag.about.group == heading) for heading in headings}


def _parameters() -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            flag=flag,
            default=None if flag.required else RunSettings.model_fields[flag.field].default,
            choices=every_choice() if flag.option == ENCODER_FLAG else flag.choices,
        )
        for flag in flags_of(RunSettings)
        if flag.about.wipp
    )
