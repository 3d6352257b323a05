"""README.md of an exported model: what it segments, how well, and how to use it."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass

import jinja2

from tune_smp.data.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the card says beyond preprocessing.json.

    ``images_pattern`` is the run's own; ``training_images`` and ``validation_images`` count images (a single image that
    was split in space counts on both sides).
    """

    loss: str
    optimizer: str
    best_epoch: int
    best_metric: float
    metric: str
    parameters: int
    training_images: int
    validation_images: int
    images_pattern: str


def model_card(preprocessing: Preprocessing, facts: CardFacts) -> str:
    """The card as Markdown, with the header that the Hugging Face hub reads."""
    source = importlib.resources.files(__package__).joinpath("model_card.md.j2").read_text(encoding="utf-8")
    # Markdown, not HTML: nothing to escape, and an undefined name is an error.
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True)  # noqa: S701
    return environment.from_string(source).render(
        preprocessing=preprocessing,
        facts=facts,
        classes=_classes(preprocessing),
        outputs=_outputs(preprocessing),
        normalization=_normalization(preprocessing),
    )


def _classes(preprocessing: Preprocessing) -> str:
    class_map = preprocessing.class_map
    if class_map.mode == "binary":
        return "foreground from background"
    names = ", ".join(class_map.names)
    overlap = ", which may overlap" if class_map.mode == "multilabel" else ""
    return f"{class_map.classes} classes ({names}){overlap}"


def _outputs(preprocessing: Preprocessing) -> str:
    activation = "softmax" if preprocessing.class_map.mode == "multiclass" else "sigmoid"
    return f"logits, one channel for each of {preprocessing.class_map.classes}; {activation} makes them probabilities"


def _normalization(preprocessing: Preprocessing) -> str:
    normalization = preprocessing.normalization
    return f"{normalization.method}, over each {normalization.scope}" if normalization.method != "none" else "none"
