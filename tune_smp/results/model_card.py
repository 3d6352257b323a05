"""README.md of an exported model: what it segments, how well, and how to use it."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass

import jinja2

from tune_smp.data.channel_statistics import HIGH_PERCENTILE, LOW_PERCENTILE
from tune_smp.data.ensemble_record import EnsembleRecord
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.view_gains import WITHIN, ViewGains
from tune_smp.texts import counted


@dataclass(frozen=True, slots=True)
class Proved:
    """What speaks for a model that was trained on all images, so that none is left to measure it on.

    Models of the same settings, trained on a part of the images, reached ``metric`` on others, in the mean of ``runs``;
    ``thresholds`` are those that the model is used at.
    """

    metric: float
    runs: int
    thresholds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CardFacts:
    """The facts of the card beyond preprocessing.json.

    ``best_metric`` is that above the thresholds of preprocessing.json, ``metric_at_half`` that above 0.5;
    ``images_pattern`` is the run's own; ``training_images`` and ``validation_images`` count images (a single image that
    was split in space counts on both sides). ``proved`` is set for a model that was trained on all images.
    """

    loss: str
    optimizer: str
    best_epoch: int
    best_metric: float
    metric: str
    metric_at_half: float
    parameters: int
    training_images: int
    validation_images: int
    images_pattern: str
    proved: Proved | None = None


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
        thresholds=", ".join(f"{threshold:g}" for threshold in preprocessing.thresholds),
        normalization=_normalization(preprocessing),
        normalizing=_normalizing(preprocessing),
    )


def views_section(gains: ViewGains) -> str:
    """The card's last section: what each preset of test-time augmentation reached, and its time."""
    images = counted(gains.images, "validation image")
    rows = [f"| {name} | {score.metric:.4f} | {score.seconds:.3g} |" for name, score in gains.presets.items()]
    return "\n".join(
        [
            "\n## Test-time augmentation\n",
            f"`--testTimeAugmentation` of `tune-smp predict`, measured on {images} on a {gains.device}; `auto` takes",
            f"`{gains.recommended}`, the cheapest whose metric is within {WITHIN:g} of the best.\n",
            f"| views | {gains.metric} | seconds per megapixel |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def ensemble_section(record: EnsembleRecord) -> str:
    """A section of the card of an ensemble: what it is, what it gains, and how to use it."""
    rows = [f"| `{member.folder}` | {member.trial} | {member.weight:.3g} |" for member in record.members]
    return "\n".join(
        [
            "\n## Ensemble\n",
            "`tune-smp predict` and `tune_smp.load` average the probabilities of these models, each with the",
            "normalisation and the tiles of its own `preprocessing.json`. Everything above is the best trial alone,",
            "which lies in this folder as if there were no others.\n",
            "| folder | trial | weight |",
            "|---|---|---|",
            *rows,
            f"\n{record.metric_name} {record.metric:.4f} on {counted(record.images, 'validation image')}, where the",
            f"members were chosen: {record.gain:+.4f} against the best trial alone (in nine of ten resamplings of the",
            f"images at least {record.low:+.4f}). Prediction takes {record.cost:.1f} times as long. The thresholds of",
            "the mean are in `ensemble.json`.\n",
            "`model.onnx`, where it is there, is the ensemble: from pixels as they are in the file (N, C, H, W) and",
            "the `scale` and `offset` of each member for each image (N, members, C) to `probabilities`.",
            "",
        ]
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


def _normalizing(preprocessing: Preprocessing) -> str:
    """The normalisation as numpy code on ``image`` (C, H, W): what `data.normalization.affine` does."""
    normalization = preprocessing.normalization
    if not normalization.needs_statistics:
        scale, offset = (list(numbers) for numbers in (normalization.scale, normalization.offset))
        return (
            f"scale, offset = np.array({scale}), np.array({offset})\n"
            "image = image * scale.reshape(-1, 1, 1) + offset.reshape(-1, 1, 1)"
        )
    pixels = "pixels = image.reshape(len(image), -1)\n"
    ends = {
        "zscore": "zero, one = pixels.mean(axis=1), pixels.mean(axis=1) + pixels.std(axis=1)",
        "minmax": "zero, one = pixels.min(axis=1), pixels.max(axis=1)",
        "percentile": (
            f"zero, one = np.percentile(pixels, [{LOW_PERCENTILE}, {HIGH_PERCENTILE}], axis=1)\n"
            "few = one <= zero  # bright pixels, on a background of one value\n"
            "zero, one = np.where(few, pixels.min(axis=1), zero), np.where(few, pixels.max(axis=1), one)"
        ),
    }
    spread = "spread = np.where(one > zero, one - zero, 1)  # a constant channel becomes 0\n"
    return (
        f"{pixels}{ends[normalization.method]}\n{spread}image = (image - zero[:, None, None]) / spread[:, None, None]"
    )


def _normalization(preprocessing: Preprocessing) -> str:
    normalization = preprocessing.normalization
    return f"{normalization.method}, over each {normalization.scope}" if normalization.method != "none" else "none"
