"""The machinery that all settings share: one stage of validation that reports every problem at once, in flag names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.fields import About, Flag, flags_of
from tune_smp.settings.wording import as_written, missing_value, unknown_flag, wrong_value


@dataclass(frozen=True, slots=True)
class Draft:
    """The settings whose values are valid by themselves, while others may not be; rules look at it.

    ``values`` are by field name and hold the defaults of what was not given; an invalid field is missing. ``given`` are
    the fields that were set explicitly.
    """

    values: Mapping[str, Any]
    given: Collection[str]
    flags: Mapping[str, Flag]

    def was_given(self, field: str) -> bool:
        """Whether this field was set explicitly, to a valid value."""
        return field in self.given and self.values.get(field) is not None

    def where(self, *fields: str) -> str:
        """These flags with their values, as on a command line."""
        return ", ".join(
            as_written(self.flags[field], self.values[field], given=field in self.given) for field in fields
        )


Rule = Callable[[Draft], Iterator[Problem]]


class Settings(BaseModel):
    """Base of all settings: frozen, and never in an invalid state.

    Raises:
        SettingsError: with every problem at once, whether made by keyword, `from_flags` or `from_json`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False, use_attribute_docstrings=True
    )

    command: ClassVar[str]
    """The command whose ``--help`` lists the flags."""

    rules: ClassVar[tuple[Rule, ...]] = ()
    """What must hold between fields; each rule keeps silent about fields that are invalid by themselves."""

    debug: Annotated[bool, About("Output")] = False
    """Print the traceback of an error."""

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> Self:
        """Settings from flag names (camelCase, without dashes) and raw values, typed or as text.

        None and the empty string count as not given, as WIPP passes optional flags.
        """
        fields = {flag.name: flag.field for flag in flags_of(cls)}
        given = {name: value for name, value in flags.items() if name not in fields or value not in (None, "")}
        # An unknown flag keeps its dashes: a field's own name (batch_size) is no flag.
        return cls.model_validate(
            {fields.get(name, f"--{name.removeprefix('--')}"): value for name, value in given.items()}
        )

    def with_changes(self, **changes: Any) -> Self:
        """The same with other values, by field name, which then count as given."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return self.model_validate(given | changes)

    def to_json(self) -> dict[str, Any]:
        """Everything, by flag name, in JSON's own types; ``given`` are the flags that were set explicitly."""
        flags = flags_of(type(self))
        values = {flag.name: getattr(self, flag.field) for flag in flags}
        return {
            "values": {name: str(value) if isinstance(value, Path) else value for name, value in values.items()},
            "given": [flag.name for flag in flags if flag.field in self.model_fields_set],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The settings that `to_json` described."""
        fields = {flag.name: flag.field for flag in flags_of(cls)}
        values = {fields.get(name, name): value for name, value in record["values"].items() if value is not None}
        given = {fields[name] for name in record["given"] if name in fields}
        settings = cls.model_validate(values, context={"given": given})
        return cls.model_construct(given, **dict(settings))

    @model_validator(mode="wrap")
    @classmethod
    def _report_every_problem(cls, data: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if not isinstance(data, Mapping):
            return handler(data)
        flags = {flag.field: flag for flag in flags_of(cls)}
        given = (info.context or {}).get("given", data.keys())
        problems: list[Problem] = []
        try:
            settings = handler(data)
            draft = Draft(dict(settings), given, flags)
        except ValidationError as error:
            details = error.errors(include_url=False, include_context=False)
            problems += cls._field_problems(flags, details)
            draft = Draft(cls._valid_values(data, {detail["loc"][0] for detail in details}), given, flags)
        problems += _truth_for_a_number(data, flags)
        problems += _unknown_choices(draft)
        problems += [problem for rule in cls.rules for problem in rule(draft)]
        if problems:
            raise SettingsError(problems)
        return settings

    @classmethod
    def _field_problems(cls, flags: Mapping[str, Flag], details: Sequence[Mapping[str, Any]]) -> list[Problem]:
        """Unknown flags first: one may be a slip of the pen, and the reason why another one is missing."""
        ordered = sorted(details, key=lambda detail: detail["loc"][0] in flags)
        # A value that may be a number or a word breaks two rules of one flag.
        return list(dict.fromkeys(cls._field_problem(flags, detail["loc"][0], detail) for detail in ordered))

    @classmethod
    def _field_problem(cls, flags: Mapping[str, Flag], field: int | str, detail: Mapping[str, Any]) -> Problem:
        if field not in flags:
            return unknown_flag(str(field).removeprefix("--"), flags_of(cls), cls.command)
        flag = flags[str(field)]
        return missing_value(flag) if detail["type"] == "missing" else wrong_value(flag, detail["input"])

    @classmethod
    def _valid_values(cls, data: Mapping[str, Any], invalid: Collection[int | str]) -> dict[str, Any]:
        valid = {name: field for name, field in cls.model_fields.items() if name not in invalid}
        return {
            name: TypeAdapter(field.rebuild_annotation()).validate_python(data[name]) if name in data else field.default
            for name, field in valid.items()
        }


def _truth_for_a_number(data: Mapping[str, Any], flags: Mapping[str, Flag]) -> Iterator[Problem]:
    """Python, and pydantic with it, takes True for 1."""
    for field, value in data.items():
        if isinstance(value, bool) and field in flags and flags[field].kind in ("integer", "number"):
            yield wrong_value(flags[field], value)


def _unknown_choices(draft: Draft) -> Iterator[Problem]:
    for field, flag in draft.flags.items():
        value = draft.values.get(field)
        if flag.choices and value is not None and value not in flag.choices:
            yield wrong_value(flag, value)
