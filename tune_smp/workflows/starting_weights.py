"""Weights that a run or a search starts from, looked at before Ray starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.encoders import ENCODERS, RANDOM, Encoder, partner_encoders
from tune_smp.data.store.image_store import ImageStore
from tune_smp.errors import SettingsError
from tune_smp.settings.encoder_choice import choice_problems, chosen_encoder, spelled, split_choice
from tune_smp.settings.fields import flag_name
from tune_smp.settings.run import RunFlags, RunSettings
from tune_smp.tuning.space_file import read_space
from tune_smp.workflows.printing import note, output

if TYPE_CHECKING:
    from tune_smp.training.weights import WeightSet

AnyRunFlags = TypeVar("AnyRunFlags", bound=RunFlags)


def adopt_pretrained(settings: AnyRunFlags) -> AnyRunFlags:
    """Take what the earlier run's model is where the command line does not name them."""
    if settings.pretrained_model is None:
        return settings
    from tune_smp.training.pretrained import describe_pretrained  # noqa: PLC0415  imports torch

    earlier = describe_pretrained(settings.pretrained_model)
    adopted = {
        name: value
        for name, value in dataclasses.asdict(earlier).items()
        if name not in settings.model_fields_set and getattr(settings, name) != value
    }
    note(f"--{flag_name(name)} {value} is taken from --pretrainedModel" for name, value in adopted.items())
    return settings.with_changes(**adopted)


def fetch_weights(wanted: Sequence[str]) -> None:
    """Put weights into the cache, for machines without a network.

    Each word is an encoder as ``Family,variant,weights``, an architecture (all encoders that it takes, each with its
    first weights), or a search space by name or path. Raises SettingsError where a word is none of these, ResourceError
    with all weights that cannot be had: the others are in the cache then.
    """
    choices = list(dict.fromkeys(choice for word in wanted for choice in _encoder_choices(word)))
    problems = [problem for choice in choices for problem in choice_problems(choice)]
    if problems:
        raise SettingsError(problems)
    for choice in choices:
        if _weights_word(choice) == RANDOM:
            output.print(f"nothing to fetch: {choice}")
    named = [choice for choice in choices if _weights_word(choice) != RANDOM]
    if not named:
        return
    from tune_smp.training.weights import WeightSet  # noqa: PLC0415  imports torch

    missing = []
    for choice in named:
        one = WeightSet(_encoder(choice), _weights_word(choice))
        if one.is_cached():
            output.print(f"in the cache: {choice}")
        else:
            missing.append(one)
    _fetch(missing)
    if missing:
        output.print(f"fetched {len(missing)} of {len(named)} sets of weights: all are in the cache")


def _fetch(missing: Sequence[WeightSet]) -> None:
    """Fetch what is missing, a line for each before it is fetched."""
    from tune_smp.training import weights  # noqa: PLC0415  imports torch

    numbers = {one: number for number, one in enumerate(missing, start=1)}

    def announce(one: WeightSet, size: int | None) -> None:
        megabytes = "" if size is None else f" ({size / 1e6:.1f} MB)"
        output.print(f"fetching {one}{megabytes}, {numbers[one]} of {len(missing)}")

    weights.fetch_weights(missing, announce)


def _encoder(choice: str) -> Encoder:
    encoder = chosen_encoder(choice)
    assert encoder is not None  # noqa: S101 - looked at before
    return encoder


def _weights_word(choice: str) -> str:
    words = split_choice(choice)
    assert words is not None  # noqa: S101 - looked at before
    return words.weights


def _encoder_choices(word: str) -> Sequence[str]:
    if word in ARCHITECTURES:
        return [spelled(ENCODERS[name]) for name in partner_encoders(ARCHITECTURES[word])]
    if "," in word:
        return [word]
    return read_space(word).encoder_choices()


def fetch_encoder_weights(trials: Iterable[RunSettings]) -> None:
    """Bring the weights into the cache, each once, or say which cannot be had, before Ray starts."""
    named = dict.fromkeys(
        (settings.encoder, settings.encoder_weights) for settings in trials if settings.pretrained_model is None
    )
    if not any(weights for _, weights in named):
        return  # torch need not be imported
    from tune_smp.training.weights import WeightSet  # noqa: PLC0415  imports torch

    sets = [WeightSet(encoder, weights) for encoder, weights in named if weights is not None]
    _fetch([one for one in sets if not one.is_cached()])


def check_pretrained(settings: RunSettings, store: ImageStore) -> None:
    """Refuse an earlier run that does not fit before anything is started."""
    if settings.pretrained_model is None:
        return
    from tune_smp.training.builders import ModelShape  # noqa: PLC0415  imports torch
    from tune_smp.training.pretrained import check_fits, load_earlier_run  # noqa: PLC0415

    shape = ModelShape.of(settings, channels=store.channels, classes=store.class_map.classes)
    check_fits(shape, load_earlier_run(settings.pretrained_model), replace_head=settings.replace_head)
