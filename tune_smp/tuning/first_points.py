"""The points that a search tries first: the plain default, and the best of an earlier search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tune_smp.settings.run import RunSettings
from tune_smp.tuning.space import FLAGS, Domain, Point, Range, Scalar, SearchSpace, flag_of, values_by_flag
from tune_smp.tuning.trial_record import TrialRecord, best_of

# Of an earlier search: enough to bring its best regions along, few enough to leave room for new ones.
MOST_EARLIER_POINTS = 8
# Defaults that hang on other settings, and the property that says them.
_RESOLVED = {
    "learningRate": "resolved_learning_rate",
    "weightDecay": "resolved_weight_decay",
    "momentum": "resolved_momentum",
    "encoderDepth": "resolved_encoder_depth",
    "decoderChannels": "resolved_decoder_channels",
    "tileSize": "resolved_tile_size",
}


def default_values(space: SearchSpace) -> dict[str, Scalar]:
    """The plain default configuration by domain name; where the space does not hold it, the nearest point it holds."""
    picked: dict[str, Scalar] = {}

    def suggest(name: str, domain: Domain) -> Scalar:
        picked[name] = nearest_value(domain, _default(space, flag_of(name), values_by_flag(picked)))
        return picked[name]

    space.walk(suggest)
    return picked


def _default(space: SearchSpace, flag: str, known: Point) -> Any:
    """Return the value that ``train`` takes where the flag is not given, next to these other values."""
    if flag in _RESOLVED:
        return getattr(space.settings(known), _RESOLVED[flag])
    return RunSettings.model_fields[FLAGS[flag].field].default


def nearest_value(domain: Domain, wanted: Any) -> Scalar:
    """The value of the domain that comes nearest: for names, the same, else the first with the most words in common."""
    if isinstance(domain, Range):
        # A default that is measured, the batch size, is the largest that fits.
        return _within(domain, domain.high if wanted is None else float(wanted))
    if wanted in domain:
        return next(value for value in domain if value == wanted)
    if isinstance(wanted, int | float) and all(isinstance(value, int | float) for value in domain):
        return min(domain, key=lambda value: abs(float(value) - wanted))
    words = set(str(wanted).split(","))
    return max(domain, key=lambda value: len(words & set(str(value).split(","))))


def _within(domain: Range, wanted: float) -> Scalar:
    value = min(max(wanted, domain.low), domain.high)
    if domain.step:
        value = domain.low + round((value - domain.low) / domain.step) * domain.step
    return round(value) if domain.integer else value


def earlier_values(space: SearchSpace, records: Sequence[TrialRecord]) -> list[dict[str, Scalar]]:
    """The best trials of an earlier search, best first, as far as they lie in this space.

    They are run again, not taken over: their values were measured on other data, or with other epochs. A flag that the
    earlier search did not vary is left to the sampler.
    """
    points: list[dict[str, Scalar]] = []
    remaining = list(records)
    while (best := best_of(remaining)) is not None and len(points) < MOST_EARLIER_POINTS:
        remaining.remove(best)
        values = _values_in(space, dict(best.flags))
        if values and values not in points:
            points.append(values)
    return points


def completed_values(space: SearchSpace, flags: Mapping[str, Scalar]) -> dict[str, Scalar] | None:
    """The flags by domain name, and the default's values where a flag is missing; None where one lies outside."""
    return _values_in(space, flags, complete=True)


def _values_in(space: SearchSpace, flags: Mapping[str, Scalar], *, complete: bool = False) -> dict[str, Scalar] | None:
    """The flags by domain name, None where one of them lies outside the space."""
    picked: dict[str, Scalar] = {}
    outside: list[str] = []

    def suggest(name: str, domain: Domain) -> Scalar:
        wanted = flags.get(flag_of(name))
        if wanted is None:
            value = nearest_value(domain, _default(space, flag_of(name), values_by_flag(picked)))
            if complete:
                picked[name] = value
            return value
        value = nearest_value(domain, wanted)
        if value != wanted:
            outside.append(name)
        picked[name] = value
        return value

    space.walk(suggest)
    return None if outside else picked
