"""The search space: what may vary between trials, and how a point of it becomes settings.

Needs neither Ray nor Optuna: whoever walks through a space (the sampler, the validation, a test) brings a function that
picks a value from a domain.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.settings.base import Draft
from tune_smp.settings.encoder_choice import chosen_encoder
from tune_smp.settings.fields import flags_of
from tune_smp.settings.rules import pair_can_be_built, tile_fits
from tune_smp.settings.run import EPOCHS_OF_A_BUDGET, RunSettings

Scalar = str | int | float | bool
Point = dict[str, Scalar]
"""Values by flag name."""
Conditions = Mapping[str, tuple[Scalar, ...]]
"""Flag name to the values of which it must have one."""

MODEL, ENCODER, TILE = "modelName", "encoderBaseVariantWeights", "tileSize"
CHAIN = (MODEL, ENCODER, TILE)
"""What must go together, in the order in which it is chosen."""
FLAGS = {flag.name: flag for flag in flags_of(RunSettings)}
_DEFAULTS = {flag.name: RunSettings.model_fields[flag.field].default for flag in FLAGS.values() if not flag.required}


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One value of a choice; ``when`` limits it to trials in which other flags have certain values."""

    value: Scalar
    when: Conditions
    line: int


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; ``log``: even in the logarithm; ``step``: multiples from low."""

    low: float
    high: float
    integer: bool
    log: bool = False
    step: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """One searched flag, as line ``line`` of the file says it. Those of the chain are never ranges."""

    flag: str
    domain: tuple[Option, ...] | Range
    when: Conditions
    line: int


Domain = Sequence[Scalar] | Range
Suggest = Callable[[str, Domain], Scalar]
"""Picks a value of a domain; the text names the domain, the same name always for the same values."""


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Everything that a search may try.

    ``parameters`` stand in the order of the walk: architecture, encoder, tile size, then each after those that its
    conditions name. ``given`` are flags of the command line, which rule over ``fixed``. ``text`` is the file.
    """

    name: str
    text: str
    description: str
    fixed: Mapping[str, Scalar]
    parameters: tuple[Parameter, ...]
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lines: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def searched(self) -> tuple[str, ...]:
        """The flags that vary, in the order of the walk."""
        return tuple(parameter.flag for parameter in self.parameters)

    def with_flags(self, given: Mapping[str, Any]) -> SearchSpace:
        """The space under a command line: a flag that is given is the same for every trial, and no longer searched."""
        parameters = tuple(parameter for parameter in self.parameters if parameter.flag not in given)
        fixed = {flag: value for flag, value in self.fixed.items() if flag not in given}
        return dataclasses.replace(self, given=dict(given), fixed=fixed, parameters=parameters)

    def without_fixed(self, flag: str) -> SearchSpace:
        """The space without what it fixes of this flag."""
        return dataclasses.replace(self, fixed={name: value for name, value in self.fixed.items() if name != flag})

    @functools.cached_property
    def constant(self) -> Mapping[str, Any]:
        """Every flag's value where it is not searched: the default, the file's, or the command line's."""
        return {**_DEFAULTS, **self.fixed, **self.given}

    def settings(self, point: Mapping[str, Scalar]) -> RunSettings:
        """The settings of a trial. Raises SettingsError where the point is no legal configuration."""
        return RunSettings.from_flags({**self.fixed, **self.given, **point})

    def walk(self, suggest: Suggest) -> Point:
        """A point: every parameter whose conditions hold, with a value that ``suggest`` picked.

        An architecture, encoder or tile size that cannot go with the others is never offered to ``suggest``. A
        parameter with nothing to offer is left out, so that its default holds. Of ``modelName: [Unet, PAN]``,
        ``encoderBaseVariantWeights: [vgg16, resnet18]`` and ``momentum: {..., when: {optimizerName: SGD}}``:

            modelName      both are offered, as resnet18 goes with either; PAN is picked
            encoder...     [resnet18] alone, under the name encoder...[1]: PAN takes no vgg16
            optimizerName  Adam is picked
            momentum       is not asked for, and not in the point
        """
        point: Point = {}
        for parameter in self.parameters:
            if holds(parameter.when, {**self.constant, **point}):
                offer = self._offer(parameter, point)
                if offer is not None:
                    point[parameter.flag] = suggest(*offer)
        return point

    def _offer(self, parameter: Parameter, point: Point) -> tuple[str, Domain] | None:
        """Name and domain of what the parameter may be after what was picked."""
        if isinstance(parameter.domain, Range):
            return parameter.flag, parameter.domain
        known = {**self.constant, **point}
        legal = [
            number
            for number, option in enumerate(parameter.domain)
            if (not option.when or holds(option.when, known)) and self._can_be(parameter.flag, option.value, point)
        ]
        if not legal:
            return None
        name = parameter.flag if len(legal) == len(parameter.domain) else f"{parameter.flag}[{_spans(legal)}]"
        return name, tuple(parameter.domain[number].value for number in legal)

    def _can_be(self, flag: str, value: Scalar, point: Point) -> bool:
        """Whether architecture, encoder and tile size can still be had together once the flag has this value."""
        if flag not in CHAIN:
            return True
        later = CHAIN[CHAIN.index(flag) + 1 :]
        return self._completes({**point, flag: value}, [row for row in self.parameters if row.flag in later])

    def _completes(self, point: Point, later: Sequence[Parameter]) -> bool:
        """Whether the links of the chain that are still to be chosen leave a combination that works."""
        if not later:
            model, encoder, tile_size = (point.get(flag) or self.constant[flag] for flag in CHAIN)
            return fits(model, encoder, tile_size)
        link, *rest = later
        # An encoder that dictates its tile size leaves none to choose.
        dictated = link.flag == TILE and dictates_tile_size(point.get(ENCODER) or self.constant[ENCODER])
        if dictated or not self._may_hold(link.when, point):
            return self._completes(point, rest)
        return any(
            self._may_hold(option.when, point) and self._completes({**point, link.flag: option.value}, rest)
            for option in _options(link)
        )

    def _may_hold(self, conditions: Conditions, point: Point) -> bool:
        """Whether the conditions hold, as far as the flags that they name are settled."""
        if not conditions:
            return True
        settled = {flag: values for flag, values in conditions.items() if flag in point or flag not in self.searched}
        return holds(settled, {**self.constant, **point})

    def possible(self, flag: str) -> tuple[Any, ...]:
        """Every value that a trial may have; of a range, both ends."""
        row = next((row for row in self.parameters if row.flag == flag), None)
        if row is None:
            return (self.constant[flag],)
        is_always_asked = not row.when and (isinstance(row.domain, Range) or not all(o.when for o in row.domain))
        return ends(row.domain) if is_always_asked else (*ends(row.domain), self.constant[flag])

    def encoder_choices(self) -> tuple[str, ...]:
        """Every encoder that a trial may have."""
        tiles = [row for row in self.parameters if row.flag == TILE]
        points: Iterator[Point] = (
            {ENCODER: encoder, MODEL: model} for encoder in self.possible(ENCODER) for model in self.possible(MODEL)
        )
        return tuple(dict.fromkeys(str(point[ENCODER]) for point in points if self._completes(point, tiles)))

    def model_for(self, encoder: str) -> str:
        """An architecture of this space that can be built with this encoder."""
        models = next((ends(row.domain) for row in self.parameters if row.flag == MODEL), (self.constant[MODEL],))
        return str(next(model for model in models if fits(str(model), encoder, None)))

    def most_epochs(self) -> int:
        """The largest number of epochs that a trial may have."""
        is_divided = self.constant["timeBudget"] is not None and "maxEpochs" not in (
            *self.searched,
            *self.fixed,
            *self.given,
        )
        return EPOCHS_OF_A_BUDGET if is_divided else int(max(self.possible("maxEpochs")))

    def longest_warmup(self) -> int:
        """Epochs until the learning rate of the slowest trial is at its full height."""
        return math.ceil(self.most_epochs() * max(float(share) for share in self.possible("warmupFraction")))


@functools.cache
def fits(model: str, encoder: str, tile_size: int | None) -> bool:
    """Whether an architecture can be built with an encoder, and both can work on tiles of this size (px)."""
    values = {"model_name": model, "encoder_base_variant_weights": encoder, "tile_size": tile_size}
    draft = Draft(values, (), {flag.field: flag for flag in FLAGS.values()})
    return model in ARCHITECTURES and not any(True for rule in (pair_can_be_built, tile_fits) for _ in rule(draft))


@functools.cache
def dictates_tile_size(encoder: str) -> bool:
    """Whether the encoder works on tiles of one size only."""
    row = chosen_encoder(encoder)
    return row is not None and row.tile_size is not None


def holds(conditions: Conditions, known: Mapping[str, Any]) -> bool:
    """Whether every flag that is named has one of its values."""
    return all(known.get(flag) in values for flag, values in conditions.items())


def ends(domain: tuple[Option, ...] | Range) -> tuple[Any, ...]:
    """The values that have to be legal for all to be: every option, or both ends of a range."""
    if isinstance(domain, Range):
        return (domain.low, domain.high)
    return tuple(option.value for option in domain)


def _options(parameter: Parameter) -> tuple[Option, ...]:
    assert not isinstance(parameter.domain, Range)  # noqa: S101 - architecture, encoder and tile size are choices
    return parameter.domain


def _spans(numbers: Sequence[int]) -> str:
    """``0-2,5`` for 0, 1, 2, 5: which of a parameter's options a name stands for."""
    starts = [number for number in numbers if number - 1 not in numbers]
    stops = [number for number in numbers if number + 1 not in numbers]
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, stops, strict=True))


def flag_of(name: str) -> str:
    """The flag that a domain's name stands for: ``lossName`` for ``lossName[0-2]``."""
    return name.partition("[")[0]


def values_by_flag(values: Mapping[str, Any]) -> Point:
    """Translate what was picked, from domains' names to flag names."""
    return {flag_of(name): value for name, value in values.items()}
