"""Whether every point of a search space is a legal configuration, asked before anything starts.

A space can hold more points than could be tried. Rules between flags name two or three of them, so that it is enough to
try every value by itself and every two that could matter to each other, with what their conditions ask for.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.base import Draft
from tune_smp.settings.rules import pair_can_be_built, tile_fits
from tune_smp.tuning.space import (
    CHAIN,
    ENCODER,
    FLAGS,
    MODEL,
    Conditions,
    Domain,
    Parameter,
    Point,
    Range,
    Scalar,
    SearchSpace,
    flag_of,
    holds,
)

SHAPE = (MODEL, ENCODER, "encoderDepth", "decoderChannels", "decoderAttention")
"""The flags that the tensors of a model hang on."""
Rows = Mapping[str, Parameter]
FIELDS = {flag.field: flag for flag in FLAGS.values()}
JUST_ABOVE = 1e-3
"""Share of a range: 0 may mean "off", so that the numbers right above it follow another rule."""
SAMPLE = 200
"""Points that are tried by chance, besides."""


def check_space(space: SearchSpace) -> None:
    """Raise SettingsError where there is nothing to try, or with all that does not go together."""
    for stage in (_nothing_to_try, _wrong_points):
        problems: dict[str, Problem] = {}
        for problem in stage(space):
            problems.setdefault(problem.problem, problem)
        if problems:
            raise SettingsError(problems.values())


def _values_with_lines(parameter: Parameter) -> list[tuple[Scalar, int]]:
    """The values that have to be legal for all to be: every option; of a range, the ends and the first after low."""
    domain = parameter.domain
    if not isinstance(domain, Range):
        return [(option.value, option.line) for option in domain]
    first = domain.step or (1 if domain.integer else (domain.high - domain.low) * JUST_ABOVE)
    values = (domain.low, domain.low + first, domain.high)
    return [(int(value) if domain.integer else value, parameter.line) for value in values]


def _nothing_to_try(space: SearchSpace) -> Iterator[Problem]:
    """Find what leaves no trial at all, or none that differs from another."""
    rows = _rows(space)
    if not rows:
        fix = "leave one of these flags out, or train this one configuration: tune-smp train"
        yield Problem("the command line fixes all that the space would search", space.name, fix)
    of_model = [flag for flag in SHAPE if flag in rows]
    if of_model and space.constant.get("pretrainedModel") is not None:
        text = f"--pretrainedModel has one architecture and encoder, and the space searches {' and '.join(of_model)}"
        fix = f"pass {' and '.join(f'--{flag}' for flag in of_model)} as that model has, or --searchSpace fine_tune"
        yield Problem(text, _where(space, rows[of_model[0]].line), fix)
    searched = [flag for flag in (MODEL, ENCODER) if flag in rows]
    point = _point_with(space, {})
    clash = _clash(space, {})
    if clash is not None and any(not rows[flag].when and flag not in point for flag in searched):
        text = f"no architecture, encoder and tile size of the space go together: {clash.problem}"
        yield _at(space, 0, Problem(text, clash.where, clash.fix))


def _wrong_points(space: SearchSpace) -> Iterator[Problem]:
    sample = _sample(space)
    for parameter in space.parameters:
        for value, line in _values_with_lines(parameter):
            point = _trial_with(space, {parameter.flag: value}) or _first_with(sample, parameter, value)
            if point is not None:
                yield from _broken_rules(space, point, line)
            elif not _is_left_out_on_purpose(space, parameter, value):
                yield _never_possible(space, parameter, value, line)
    for first, second in itertools.combinations(space.parameters, 2):
        for (one, _), (other, line) in itertools.product(_kinds(space, first), _kinds(space, second)):
            point = _trial_with(space, {first.flag: one, second.flag: other})
            if point is not None:
                yield from _broken_rules(space, point, line)
    for point in sample:
        yield from _broken_rules(space, point, 0)


def _sample(space: SearchSpace) -> list[Point]:
    """Points by chance, always the same: for what hangs on many conditions, or on the default of a flag left out."""
    chance = random.Random(0)  # noqa: S311 - no secret

    def pick(_: str, domain: Domain) -> Scalar:
        return chance.choice((domain.low, domain.high) if isinstance(domain, Range) else domain)

    return [space.walk(pick) for _ in range(SAMPLE)]


def _first_with(points: Sequence[Point], parameter: Parameter, value: Scalar) -> Point | None:
    any_number = isinstance(parameter.domain, Range)
    return next((p for p in points if parameter.flag in p and (any_number or p[parameter.flag] == value)), None)


def _kinds(space: SearchSpace, parameter: Parameter) -> list[tuple[Scalar, int]]:
    """Values, with their lines, that could matter to what other flags may be.

    Whether there is a number matters, not which. What goes together in the chain is the walk's business, and no rule
    names a link of it with another flag: only conditions can.
    """
    values = _values_with_lines(parameter)
    if isinstance(parameter.domain, Range):
        return values[:1]
    if parameter.flag not in CHAIN:
        return values
    conditions = [_conditions_of(row, value) for row in space.parameters for value in _values(row)]
    named = {value for condition in conditions for value in condition.get(parameter.flag, ())}
    return [(value, line) for value, line in values if value in named]


def _trial_with(space: SearchSpace, forced: Point) -> Point | None:
    """A point that has these values; None where no trial can have them."""
    for context in _contexts(space, forced):
        point = _point_with(space, context)
        if all(point.get(flag) == value for flag, value in forced.items()):
            return point
    return None


def _contexts(space: SearchSpace, forced: Point) -> Iterator[Point]:
    """The forced values with all that may be needed for them: their conditions, and links of the chain before them."""
    rows = _rows(space)
    for point in _with_conditions(rows, forced):
        last = max((CHAIN.index(flag) for flag in point if flag in CHAIN), default=0)
        before = [flag for flag in CHAIN[:last] if flag in rows and flag not in point]
        for values in itertools.product(*(_values(rows[flag]) for flag in before)):
            yield from _with_conditions(rows, {**dict(zip(before, values, strict=True)), **point})


def _with_conditions(rows: Rows, point: Point) -> Iterator[Point]:
    """The point with values that its values' conditions ask for, in every way."""
    for flag, value in point.items():
        for other, wanted in _conditions_of(rows[flag], value).items():
            if other in rows and other not in point:
                for one in _within(rows[other], wanted):
                    yield from _with_conditions(rows, {**point, other: one})
                return
    yield point


def _conditions_of(parameter: Parameter, value: Scalar) -> Conditions:
    """Return the conditions for the parameter to have this value."""
    conditions = dict(parameter.when)
    if not isinstance(parameter.domain, Range):
        for flag, wanted in next(option.when for option in parameter.domain if option.value == value).items():
            conditions[flag] = tuple(one for one in conditions.get(flag, wanted) if one in wanted)
    return conditions


def _within(parameter: Parameter, values: Sequence[Scalar]) -> list[Scalar]:
    """Those of the values that the parameter can have."""
    domain = parameter.domain
    if not isinstance(domain, Range):
        return [value for value in values if value in _values(parameter)]
    return [value for value in values if not isinstance(value, str) and domain.low <= value <= domain.high]


def _point_with(space: SearchSpace, wanted: Point) -> Point:
    """The point of the wanted values where they are offered, and of first values elsewhere."""

    def pick(name: str, domain: Domain) -> Scalar:
        value = wanted.get(flag_of(name))
        if isinstance(domain, Range):
            return domain.low if value is None else value
        return value if value is not None and value in domain else domain[0]

    return space.walk(pick)


def _broken_rules(space: SearchSpace, point: Point, line: int) -> Iterator[Problem]:
    """Find what is wrong with a point, with the lines of the flags that a rule names."""
    try:
        space.settings(point)
    except SettingsError as error:
        for problem in error.problems:
            named = [word.removeprefix("--") for word in problem.where.split() if word.removeprefix("--") in FLAGS]
            lines = sorted({_line_of(space, flag, point) for flag in named} - {0}) if named else [line]
            at = f", line {', '.join(map(str, lines))}" if lines else ""
            where = f"{space.name}{at}: {problem.where}"
            yield Problem(problem.problem, where, problem.fix + _condition_to_add(space, named, point))


def _condition_to_add(space: SearchSpace, named: Sequence[str], point: Point) -> str:
    """The condition under which the first of these flags would be legal, ready to be filled in."""
    if len(named) < 2 or named[0] in CHAIN or named[0] not in {*point, *space.fixed}:
        return ""
    flag, when = named[0], f"when: {{{named[1]}: [...]}}"
    if flag in space.fixed:
        return f"; or search it where it is legal, {flag}: {{choices: [{space.fixed[flag]}], {when}}}"
    if isinstance(_rows(space)[flag].domain, Range):
        return f"; or give it a condition, {flag}: {{low: ..., high: ..., {when}}}"
    return f"; or give it a condition, {{value: {point[flag]}, {when}}}"


def _line_of(space: SearchSpace, flag: str, point: Point) -> int:
    """The line of the flag's value in this point, 0 where it is not in the file."""
    if flag not in point:
        return space.lines.get(flag, 0) if flag in space.fixed else 0
    parameter = _rows(space)[flag]
    return next((line for value, line in _values_with_lines(parameter) if value == point[flag]), parameter.line)


def _is_left_out_on_purpose(space: SearchSpace, parameter: Parameter, value: Scalar) -> bool:
    """Whether what holds for every trial, or the command line, keeps the value out: nothing is wrong then."""
    if parameter.flag in CHAIN and any(flag in space.given for flag in CHAIN):
        return True
    rows = _rows(space)
    for flag, wanted in _conditions_of(parameter, value).items():
        if flag not in rows:
            if not holds({flag: wanted}, space.constant):
                return True
        else:
            ways = _within(rows[flag], wanted)
            if ways and all(_is_left_out_on_purpose(space, rows[flag], way) for way in ways):
                return True
    return False


def _never_possible(space: SearchSpace, parameter: Parameter, value: Scalar, line: int) -> Problem:
    """No trial could ever have this value."""
    rows = _rows(space)
    for flag, wanted in _conditions_of(parameter, value).items():
        if flag in rows and not _within(rows[flag], wanted):
            of_all = not _within(rows[flag], parameter.when.get(flag, wanted)) and flag in parameter.when
            what = parameter.flag if of_all else f"{parameter.flag} {value}"
            text = f"{what} is never asked for: no trial has {flag} {' or '.join(map(str, wanted))}"
            fix = f"list it under {flag}, correct the condition, or leave {what} out"
            return Problem(text, _where(space, line), fix)
    clash = _clash(space, {parameter.flag: value}) if parameter.flag in CHAIN else None
    if clash is not None:
        return _at(space, line, clash)
    text = f"no trial can have {parameter.flag} {value}: its conditions never hold together"
    return Problem(text, _where(space, line), "correct the conditions, or leave it out")


def _clash(space: SearchSpace, forced: Point) -> Problem | None:
    """Explain why architecture, encoder and tile size do not go together, by the first combination that does not."""
    rows = _rows(space)
    links = [
        [forced[flag]] if flag in forced else _values(rows[flag]) if flag in rows else [space.constant[flag]]
        for flag in CHAIN
    ]
    fields = [FLAGS[flag].field for flag in CHAIN]
    given = [FLAGS[flag].field for flag in CHAIN if flag in {*rows, *space.fixed, *space.given}]
    for values in itertools.product(*links):
        draft = Draft(dict(zip(fields, values, strict=True)), given, FIELDS)
        for rule in (pair_can_be_built, tile_fits):
            for problem in rule(draft):
                return problem
    return None


def _rows(space: SearchSpace) -> Rows:
    return {row.flag: row for row in space.parameters}


def _values(parameter: Parameter) -> list[Any]:
    return [value for value, _ in _values_with_lines(parameter)]


def _at(space: SearchSpace, line: int, problem: Problem) -> Problem:
    where = f"{_where(space, line)}: {problem.where}" if problem.where else _where(space, line)
    return Problem(problem.problem, where, problem.fix)


def _where(space: SearchSpace, line: int) -> str:
    return f"{space.name}, line {line}" if line else space.name
