"""Search spaces as files: YAML, keys are flag names; everything that is wrong is reported at once, with its line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

import tune_smp
from tune_smp.errors import Problem, SettingsError, nearest
from tune_smp.settings.fields import Flag
from tune_smp.tuning.space import CHAIN, FLAGS, Conditions, Option, Parameter, Range, Scalar, SearchSpace
from tune_smp.tuning.space_values import wrong_values

LARGEST = 1e300
"""Beyond this no number means anything, and not a number is not below it."""
KEYS = ("description", "fixed", "search")
RANGE_KEYS = ("low", "high", "log", "step", "when")
CHOICE_KEYS = ("choices", "when")
OPTION_KEYS = ("value", "when")
# The same data, split, metric and objective for every trial: their results are compared.
SEARCHABLE_GROUPS = ("Model", "Loss and metric", "Training", "Tiles")
NOT_SEARCHABLE = ("pretrainedModel", "replaceHead", "metricName", "seed")
FIXABLE_GROUPS = (*SEARCHABLE_GROUPS, "Data", "Machine")
NOT_FIXABLE = ("imagesDir", "labelsDir", "imagesPattern", "labelsPattern", "segmentationMode", "cacheDir")
SEARCHABLE = tuple(
    flag.name for flag in FLAGS.values() if flag.about.group in SEARCHABLE_GROUPS and flag.name not in NOT_SEARCHABLE
)
FIXABLE = tuple(
    flag.name for flag in FLAGS.values() if flag.about.group in FIXABLE_GROUPS and flag.name not in NOT_FIXABLE
)


def named_spaces() -> dict[str, Path]:
    """The spaces that come with tune-smp, by name."""
    package = Path(tune_smp.__file__).resolve().parent
    # Inside the installed package; beside it in a working copy.
    folders = (package / "search_spaces", package.parent / "search_spaces")
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_space(name: str) -> SearchSpace:
    """The space of this name, or in the file of this path.

    Raises SettingsError with all that is wrong in the file, each with its line.
    """
    named = named_spaces()
    path = named.get(name) or Path(os.path.expanduser(name))  # noqa: PTH111 - Path's own raises for an unknown user
    if not os.path.isfile(path):  # noqa: PTH113 - Path's own raises for a name that is too long
        fix = f"{nearest(name, named)}one of: {', '.join(named)}; or the path of a file"
        raise SettingsError(Problem(f"there is no search space {name!r}", f"--searchSpace {name}", fix))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        where, fix = f"--searchSpace {path}", "pass a text file in UTF-8 that this user may read"
        raise SettingsError(Problem(f"the search space cannot be read: {error}", where, fix)) from error
    return parse_space(text, name=name if name in named else str(path))


def parse_space(text: str, *, name: str) -> SearchSpace:
    """The space that a file of this text describes. Raises what ``read_space`` raises."""
    reader = _Reader(name)
    try:
        yaml = YAML(typ="rt")  # YAML 1.2, where 1e-4 is a number
        yaml.allow_duplicate_keys = True  # else the first of them ends the reading
        reader.keys_stand_once(yaml.compose(text))
        content = yaml.load(text)
    except (YAMLError, ValueError, RecursionError) as error:  # the last two: numbers and nesting beyond all measure
        raise SettingsError(_not_yaml(error, name)) from error
    return reader.read(content, text)


def load_yaml(text: str) -> Any:
    """What the text says, in plain values. Raises ValueError where it is no YAML."""
    try:
        return YAML(typ="safe").load(text)
    except (YAMLError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _not_yaml(error: Exception, name: str) -> Problem:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    what = str(error.problem) if isinstance(error, MarkedYAMLError) and error.problem else str(error)
    where = f"{name}, line {mark.line + 1}" if mark else name
    return Problem(f"the search space is not valid YAML: {what}", where, "compare with search_spaces/quick.yaml")


@dataclass
class _Reader:
    """Reads one file and gathers what is wrong with it, and in which line."""

    name: str
    problems: list[tuple[int, Problem]] = field(default_factory=list)

    def keys_stand_once(self, root: Node | None) -> None:
        for mapping in _mappings(root):
            lines: dict[str, int] = {}
            for key, line in ((str(key.value), key.start_mark.line + 1) for key, _ in mapping.value):
                if key in lines:
                    fix = "leave it in one of these places"
                    self._complain(f"the key {key!r} stands there twice, first in line {lines[key]}", line, fix)
                lines.setdefault(key, line)

    def read(self, content: Any, text: str) -> SearchSpace:
        if not isinstance(content, CommentedMap):
            example = "see search_spaces/quick.yaml"
            raise SettingsError(Problem("a search space has the keys " + ", ".join(KEYS), self.name, example))
        self._known_keys(content, KEYS)
        fixed = self._section(content, "fixed")
        search = self._section(content, "search")
        for flag, line in _key_lines(fixed).items():
            self._fixable(flag, fixed[flag], line, searched=flag in search)
        parameters = [row for flag, line in _key_lines(search).items() if (row := self._parameter(flag, search, line))]
        if not search:
            self._complain("there is nothing to search", 0, "put at least one flag under search:")
        ordered = self._in_order(parameters)
        if self.problems:
            in_order = sorted(self.problems, key=lambda found: found[0])
            raise SettingsError(dict.fromkeys(problem for _, problem in in_order))  # one value can be met twice
        description = str(content.get("description", ""))
        values = {flag: _plain(value) for flag, value in fixed.items()}
        return SearchSpace(self.name, text, description, values, ordered, lines=_key_lines(fixed))

    def _complain(self, problem: str, line: int, fix: str = "") -> None:
        where = f"{self.name}, line {line}" if line else self.name
        self.problems.append((line, Problem(problem, where, fix)))

    def _judge(self, flag: str, value: Scalar, line: int) -> None:
        """Complain of a value that no run can have."""
        for problem in wrong_values(flag, _plain(value)):
            self._complain(problem.problem, line, problem.fix)

    def _known_keys(self, mapping: CommentedMap, legal: tuple[str, ...]) -> None:
        for key, line in _key_lines(mapping).items():
            if key not in legal:
                fix = f"{nearest(str(key), legal)}one of: {', '.join(legal)}"
                self._complain(f"there is no key {str(key)!r} here", line, fix)

    def _section(self, content: CommentedMap, key: str) -> CommentedMap:
        section = content.get(key)
        if section is None:
            return CommentedMap()
        if not isinstance(section, CommentedMap):
            fix = f"{key}:, and under it lines like those of search_spaces/quick.yaml"
            self._complain(f"{key} must hold flags with their values", _key_lines(content)[key], fix)
            return CommentedMap()
        return section

    def _fixable(self, name: str, value: Any, line: int, *, searched: bool) -> None:
        if not _is_scalar(value):
            fix = f"{name}: VALUE; what varies between trials goes under search"
            self._complain(f"{name} needs one plain value here, got {_shown(value)}", line, fix)
        if searched:
            self._complain(f"{name} stands under fixed and under search", line, "leave it in one of them")
        if name not in FLAGS:
            self._complain(f"{str(name)!r} is no flag", line, f"{nearest(str(name), FIXABLE)}tune-smp train --help")
        elif name not in FIXABLE:
            self._complain(f"{name} cannot stand in a search space", line, f"pass --{name} on the command line")
        elif _is_scalar(value):
            self._judge(name, value, line)

    def _searchable(self, name: str, line: int) -> bool:
        if name in SEARCHABLE:
            return True
        if name in FLAGS:
            fix = "put it under fixed" if name in FIXABLE else f"pass --{name} on the command line"
            self._complain(f"{name} cannot be searched: trials would not be comparable, or not differ", line, fix)
        else:
            self._complain(f"{str(name)!r} is no flag", line, f"{nearest(str(name), SEARCHABLE)}tune-smp train --help")
        return False

    def _parameter(self, name: str, search: CommentedMap, line: int) -> Parameter | None:
        if not self._searchable(name, line):
            return None
        value = search[name]
        before = len(self.problems)
        when: Conditions = {}
        domain: tuple[Option, ...] | Range | None
        if isinstance(value, CommentedMap):
            when = self._conditions(value.get("when"), line)
            domain = self._choices(name, value, line) if "choices" in value else self._range(FLAGS[name], value, line)
        elif isinstance(value, CommentedSeq):
            domain = self._options(name, value, line)
        else:
            fix = "give a list, or {low: ..., high: ...}; or put it under fixed"
            self._complain(f"{name}: {_shown(value)} leaves nothing to search", line, fix)
            domain = None
        return Parameter(name, domain, when, line) if domain is not None and len(self.problems) == before else None

    def _choices(self, name: str, value: CommentedMap, line: int) -> tuple[Option, ...] | None:
        self._known_keys(value, CHOICE_KEYS)
        if not isinstance(value["choices"], CommentedSeq):
            self._complain(f"{name}: choices must be a list, got {_shown(value['choices'])}", line, "choices: [...]")
            return None
        return self._options(name, value["choices"], line)

    def _options(self, name: str, values: CommentedSeq, line: int) -> tuple[Option, ...]:
        options = tuple(self._option(name, value, values.lc.item(number)[0] + 1) for number, value in enumerate(values))
        if not options:
            self._complain(f"{name}: the list is empty", line, "give at least one value")
        values_before: list[Scalar] = []
        for option in options:
            if option.value in values_before:
                self._complain(f"{name}: {option.value} stands there twice", option.line, "leave one of them out")
            values_before.append(option.value)
        return options

    def _option(self, name: str, given: Any, line: int) -> Option:
        value, when = given, None
        complaint, fix = f"{_shown(given)} is no value to choose", "plain values, or {value: ..., when: {FLAG: [...]}}"
        if isinstance(given, CommentedMap):
            self._known_keys(given, OPTION_KEYS)
            value, when = given.get("value"), given.get("when")
            complaint, fix = "a choice with a condition needs its value", "{value: ..., when: {FLAG: [...]}}"
        if _is_scalar(value):
            self._judge(name, value, line)
        else:
            self._complain(complaint, line, fix)
        return Option(_plain(value), self._conditions(when, line), line)

    def _conditions(self, when: Any, line: int) -> Conditions:
        if when is None:
            return {}
        if not isinstance(when, CommentedMap) or not all(isinstance(values, CommentedSeq) for values in when.values()):
            self._complain("when must be {FLAG: [values]}", line, "when: {optimizerName: [SGD]}")
            return {}
        for flag, values in when.items():
            if flag not in FLAGS:
                fix = f"{nearest(str(flag), FLAGS)}tune-smp train --help"
                self._complain(f"when: {str(flag)!r} is no flag", line, fix)
            elif not values:
                self._complain(f"when: {flag} has an empty list, which never holds", line, "give at least one value")
            elif FLAGS[flag].choices:
                self._known_choices(FLAGS[flag], values, line)
        return {flag: tuple(_plain(value) for value in values) for flag, values in when.items()}

    def _known_choices(self, flag: Flag, values: CommentedSeq, line: int) -> None:
        for value in values:
            if value not in flag.choices:
                fix = f"{nearest(str(value), flag.choices)}one of: {', '.join(flag.choices)}"
                self._complain(f"when: {flag.name} has no choice {str(value)!r}", line, fix)

    def _range(self, flag: Flag, value: CommentedMap, line: int) -> tuple[Option, ...] | Range | None:
        self._known_keys(value, RANGE_KEYS)
        if flag.kind not in ("integer", "number"):
            self._complain(f"{flag.name} has no range: it is not a number", line, "give a list of values")
            return None
        before = len(self.problems)
        for key in ("low", "high", "step"):
            if key != "step" or key in value:
                self._bound(flag, key, value.get(key), line)
        if not isinstance(value.get("log", False), bool):
            self._complain(f"{flag.name}: log must be true or false, got {_shown(value['log'])}", line, "log: true")
        return self._ordered_range(flag, value, line) if len(self.problems) == before else None

    def _bound(self, flag: Flag, key: str, bound: Any, line: int) -> None:
        noun, kinds = ("a whole number", int) if flag.kind == "integer" else ("a number", int | float)
        if not isinstance(bound, kinds) or isinstance(bound, bool) or not -LARGEST <= bound <= LARGEST:
            fix = f"write it without quotes: {key}: {bound}" if isinstance(bound, str) else f"{key}: NUMBER"
            self._complain(f"{flag.name}: {key} must be {noun}, got {_shown(bound)}", line, fix)
        elif key != "step":
            # A flag's own limits leave no holes: both ends suffice.
            self._judge(flag.name, bound if flag.kind == "integer" else float(bound), line)

    def _ordered_range(self, flag: Flag, value: CommentedMap, line: int) -> tuple[Option, ...] | Range | None:
        low, high, log, step = value["low"], value["high"], value.get("log", False), value.get("step")
        complaints = (
            (low >= high, f"low must be below high, got {low} and {high}", "for one value: put it under fixed"),
            (log and low <= 0, f"a log scale needs low above 0, got {low}", "raise low, or leave log out"),
            (log and step is not None, "log and step do not go together", "leave one of them out"),
            (step is not None and step <= 0, f"step must be above 0, got {step}", "raise step"),
            (step is not None and low < high < low + step, f"step {step} leads beyond high", "lower step"),
            (step is None and flag.name in CHAIN, "a range needs a step", "such as step: 32"),
        )
        found = [(text, fix) for is_wrong, text, fix in complaints if is_wrong]
        for text, fix in found:
            self._complain(f"{flag.name}: {text}", line, fix)
        if found:
            return None
        if flag.name in CHAIN:
            return tuple(Option(number, {}, line) for number in range(int(low), int(high) + 1, int(step)))
        return _range_of(flag, float(low), float(high), log=log, step=step)

    def _in_order(self, parameters: list[Parameter]) -> tuple[Parameter, ...]:
        """Architecture, encoder and tile size first, as their legal values hang on each other; the rest as written, but
        each after the flags that its conditions name."""
        first = [row for flag in CHAIN for row in parameters if row.flag == flag]
        waiting = first + [row for row in parameters if row not in first]
        ordered: list[Parameter] = []
        while waiting:
            open_flags = {row.flag for row in waiting}
            ready = next((row for row in waiting if not open_flags & set(_needs(row))), None)
            if ready is None:
                circle = _circle(waiting)
                flags = ", ".join(row.flag for row in circle)
                fix = f"a condition can name only what is chosen before; {', '.join(CHAIN)} are chosen in this order"
                self._complain(f"the conditions of {flags} hang on each other in a circle", circle[0].line, fix)
                break
            waiting.remove(ready)
            ordered.append(ready)
        return tuple(ordered)


def _needs(parameter: Parameter) -> Iterator[str]:
    """Name what must be known before the parameter can be chosen."""
    if parameter.flag in CHAIN:
        yield from CHAIN[: CHAIN.index(parameter.flag)]
    yield from parameter.when
    if not isinstance(parameter.domain, Range):
        for option in parameter.domain:
            yield from option.when


def _circle(waiting: list[Parameter]) -> list[Parameter]:
    """Those that wait for each other, without those that only wait for them."""
    needed = {flag for row in waiting for flag in _needs(row)}
    circle = [row for row in waiting if row.flag in needed]
    return circle if len(circle) == len(waiting) else _circle(circle)


def _range_of(flag: Flag, low: float, high: float, *, log: bool, step: float | None) -> Range:
    """The range in the flag's kind of number; with a step, up to the last multiple."""
    number = int if flag.kind == "integer" else float
    if step is None:
        return Range(number(low), number(high), flag.kind == "integer", log=log)
    last = low + math.floor((high - low) / step + 1e-9) * step  # 1e-9: rounding
    return Range(number(low), number(last), flag.kind == "integer", step=number(step))


def _mappings(root: Node | None) -> Iterator[MappingNode]:
    """Every mapping of a document once, however often it is lent."""
    waiting, seen = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        parts = []
        if isinstance(node, MappingNode):
            yield node
            parts = [value for _, value in node.value]
        elif isinstance(node, SequenceNode):
            parts = node.value
        waiting += [part for part in parts if id(part) not in seen]
        seen.update(map(id, parts))


def _key_lines(mapping: CommentedMap) -> dict[str, int]:
    """Line of each key, from 1; a key that another mapping lends (``<<``) has the line where the mapping starts."""
    places = mapping.lc.data or {}
    return {key: (places[key][0] if key in places else mapping.lc.line) + 1 for key in mapping}


def _is_scalar(value: Any) -> bool:
    return value != "" and isinstance(value, str | int | float | bool)


def _shown(value: Any) -> str:
    """Describe what stands in the file, in a few words."""
    if value is None:
        return "nothing"
    if isinstance(value, CommentedMap | CommentedSeq):
        return "a list" if isinstance(value, CommentedSeq) else "a mapping"
    return f"the text {value!r}" if isinstance(value, str) else str(value)


def _plain(value: Any) -> Any:
    """A value without the file's formatting, which the reader keeps in classes of its own."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value
