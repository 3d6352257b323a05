"""Facts about a setting where it is declared, and the flags that follow from them.

The text below a field is its help: its first words are what the field calls the thing, then comes what it does.

Help texts, docs/flags.md and error messages read `flags_of`; nothing about a flag is written twice.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

GROUPS = ("Words", "Data", "Search", "Model", "Loss and metric", "Training", "Tiles", "Machine", "Output")

Kind = Literal["text", "integer", "number", "boolean", "path"]

NOUNS: dict[Kind, str] = {
    "text": "text that is not empty",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "path": "a path",
}


@dataclass(frozen=True, slots=True)
class About:
    """Everything that a field cannot say by its type and its docstring.

    ``absent`` says what None means. ``choices`` are the legal names, listed by ``tune-smp show`` ``table``. ``wipp``
    marks the 17 flags of the WIPP plugin. ``folder``: a folder that is read, or one that is written.
    ``subfolders``: a folder of images; the first of these sub-folders that is there is used in its place. A value that
    is written as a ``word``, without a flag, is shown by that name. ``flag``: the flag's name where it is not the
    field's. ``alone``: the value of a flag that stands without one; switches say true.
    """

    group: str = "Words"
    unit: str = ""
    absent: str = ""
    choices: tuple[str, ...] = ()
    table: str = ""
    wipp: bool = False
    folder: Literal["", "read", "written"] = ""
    subfolders: tuple[str, ...] = ()
    word: str = ""
    flag: str = ""
    alone: str = ""


@dataclass(frozen=True, slots=True)
class Flag:
    """One command-line flag, as help, tables and messages show it; all its texts are ready to print."""

    field: str
    name: str
    kind: Kind
    required: bool
    default: str
    range: str
    choices: tuple[str, ...]
    description: str
    about: About

    @property
    def option(self) -> str:
        """As written on the command line: ``--batchSize``, or ``OUTPUT_DIR`` for a word."""
        return self.about.word or f"--{self.name}"

    @property
    def alone(self) -> str:
        """The value of the flag where it stands without one; empty: it needs one."""
        return self.about.alone or ("true" if self.kind == "boolean" else "")

    @property
    def expectation(self) -> str:
        """What a value must be: ``a whole number >= 1``."""
        return f"{NOUNS[self.kind]} {self.range}".rstrip()


def flag_name(field: str) -> str:
    """``batch_size`` to ``batchSize``."""
    head, *tail = field.split("_")
    return head + "".join(part.capitalize() for part in tail)


@functools.cache
def flags_of(settings: type[BaseModel]) -> tuple[Flag, ...]:
    """The flags of a settings class, group by group; within a group the required ones first, then as declared."""
    flags = [_flag(name, field) for name, field in settings.model_fields.items()]
    return tuple(sorted(flags, key=lambda flag: (GROUPS.index(flag.about.group), not flag.required)))


def _flag(name: str, field: FieldInfo) -> Flag:
    about = next(entry for entry in field.metadata if isinstance(entry, About))
    plain, bounds, word = _taken_apart(field.annotation)
    return Flag(
        field=name,
        name=about.flag or flag_name(name),
        kind=_kind(plain),
        required=field.is_required(),
        default="" if field.is_required() else _default(field.default, about),
        range=" or ".join(part for part in (_range([*field.metadata, *bounds]), word) if part),
        choices=about.choices or _literals(plain),
        description=" ".join((field.description or "").split()),
        about=about,
    )


def _taken_apart(annotation: Any) -> tuple[Any, tuple[Any, ...], str]:
    """The type, what limits it, and the word that may stand in its place; None is left out."""
    parts = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    first, *others = (part for part in parts if part is not types.NoneType)
    word = " or ".join(name for part in others for name in _literals(part))
    plain, *bounds = typing.get_args(first) if hasattr(first, "__metadata__") else (first,)
    return plain, tuple(bounds), word


def _is_union(annotation: Any) -> bool:
    return isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union


def _literals(annotation: Any) -> tuple[str, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def _kind(annotation: Any) -> Kind:
    kinds: dict[Any, Kind] = {int: "integer", float: "number", bool: "boolean", Path: "path"}
    return kinds.get(annotation, "text")


def _default(value: Any, about: About) -> str:
    if value is None:
        return about.absent
    return str(value).lower() if isinstance(value, bool) else str(value)


def _range(metadata: Iterable[Any]) -> str:
    bounds = []
    for entry in metadata:
        match entry:
            case annotated_types.Ge(ge=bound):
                bounds.append(f">= {bound}")
            case annotated_types.Gt(gt=bound):
                bounds.append(f"> {bound}")
            case annotated_types.Le(le=bound):
                bounds.append(f"<= {bound}")
            case annotated_types.Lt(lt=bound):
                bounds.append(f"< {bound}")
    return " and ".join(bounds)
