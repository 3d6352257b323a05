"""``Family,variant,weights``: the one string in which WIPP says encoder and weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tune_smp.choices.encoders import ENCODERS, RANDOM, Encoder, find_encoder
from tune_smp.errors import Problem
from tune_smp.settings.wording import choose_from
from tune_smp.texts import shown

FLAG = "--encoderBaseVariantWeights"


class EncoderChoice(NamedTuple):
    """The three words of the string, as they stand there."""

    family: str
    variant: str
    weights: str


def split_choice(text: str) -> EncoderChoice | None:
    """The three words, without blanks around them; None where there are not three."""
    words = [word.strip() for word in text.split(",")]
    return EncoderChoice(*words) if len(words) == 3 and all(words) else None


def chosen_encoder(text: str) -> Encoder | None:
    """The encoder that the string names, if there is one of that name."""
    choice = split_choice(text)
    return find_encoder(choice.variant) if choice else None


def choice_problems(text: str) -> Iterator[Problem]:
    """Find what is wrong with the string by itself."""
    choice = split_choice(text)
    if choice is None:
        yield Problem(
            f"{FLAG} must be three words with commas between them, got {shown(text)}",
            fix=f'pass "Family,variant,weights", such as {spelled(ENCODERS["resnet34"])}',
        )
        return
    encoder = find_encoder(choice.variant)
    if encoder is None:
        yield Problem(
            f"{FLAG} names no encoder that exists: {choice.variant!r}",
            fix=choose_from(choice.variant, tuple(ENCODERS), "tune-smp show encoders"),
        )
        return
    legal = (*encoder.weights, RANDOM)
    if choice.family != encoder.family:
        weights = choice.weights if choice.weights in legal else legal[0]
        yield Problem(
            f"{FLAG}: {choice.variant} is of the family {encoder.family}, got {choice.family!r}",
            fix=f'pass "{encoder.family},{choice.variant},{weights}"',
        )
    if choice.weights not in legal:
        yield Problem(
            f"{FLAG}: {choice.variant} has no weights {choice.weights!r}",
            fix=choose_from(choice.weights, legal, "tune-smp show encoders"),
        )


def every_choice() -> tuple[str, ...]:
    """All strings that are legal, encoder by encoder, ``random`` last."""
    rows = ENCODERS.values()
    return tuple(f"{row.family},{row.name},{weights}" for row in rows for weights in (*row.weights, RANDOM))


def spelled(encoder: Encoder) -> str:
    """The whole string for this encoder, with its first weights."""
    return f"{encoder.family},{encoder.name},{(*encoder.weights, RANDOM)[0]}"
