"""Checkpoints of the original WIPP plugin: their tensors under the names that they have today.

The plugin trained with segmentation-models-pytorch 0.2 and 0.3, whose networks are the same as today's but for names:
encoders of timm were classes of smp's own, and DeepLabV3's decoder was a plain sequence. Its networks ended in a
sigmoid, which has no tensors; what comes before it are the logits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.encoders import Encoder, find_encoder
from tune_smp.errors import DataError, file_error
from tune_smp.training.builders import ModelShape, empty_model

KEYS = frozenset(
    ("model_name", "encoder_variant", "optimizer_name", "final_epoch", "model_state_dict", "optimizer_state_dict")
)
WHOLE_MODULE = "model.pth"
"""The plugin's other file: a pickled module, which cannot be read without running what is in it."""
ENCODER, HEAD = "encoder.", "segmentation_head.0.weight"
DEEPLAB_NAMES = {"0": "aspp", "1": "conv", "2": "bn"}
NOT_TRAINED = ("running_mean", "running_var", "num_batches_tracked")
"""Last parts of the names of tensors that no optimizer moves; these networks have no others."""


@dataclass(frozen=True)
class OldCheckpoint:
    """What such a checkpoint holds.

    ``parameters`` are the names of the trained tensors in the order in which ``optimizer`` numbers them.
    """

    shape: ModelShape
    weights: Mapping[str, Tensor]
    epochs: int
    optimizer_name: str
    optimizer: Mapping[str, Any]
    parameters: tuple[str, ...]


def wrote(content: Any) -> bool:
    """Whether the original plugin wrote what ``checkpoint.read`` found."""
    return isinstance(content, dict) and content.keys() >= KEYS


def read(content: Mapping[str, Any], path: Path) -> OldCheckpoint:
    """The checkpoint that is in ``content``; its classes and channels follow from the tensors.

    Raises DataError where it is of a network that is none today, or lacks something.
    """
    encoder = find_encoder(str(content["encoder_variant"]))
    architecture = str(content["model_name"])
    if encoder is None or architecture not in ARCHITECTURES:
        named = f"{architecture} with {content['encoder_variant']}"
        raise _unusable(path, f"the original plugin's checkpoint is of {named}, which tune-smp does not have")
    if ARCHITECTURES[architecture].dilates_encoder and encoder.through_timm:
        # Same tensors, other dilations: measured, the logits differ by a tenth of their range and more.
        named = f"{architecture} with {encoder.name}"
        raise _unusable(
            path, f"{named} dilates its encoder otherwise today: the original plugin's weights do not fit it"
        )
    try:
        tensors: dict[str, Tensor] = dict(content["model_state_dict"])
        weights = {name_today(name, architecture, encoder): tensor for name, tensor in tensors.items()}
        first = next(tensor for name, tensor in weights.items() if name.startswith(ENCODER) and tensor.ndim == 4)
        shape = ModelShape(architecture, encoder.smp_name, channels=first.shape[1], classes=weights[HEAD].shape[0])
        return OldCheckpoint(
            shape,
            _used(weights, shape, encoder),
            epochs=int(content["final_epoch"]),
            optimizer_name=str(content["optimizer_name"]),
            optimizer=dict(content["optimizer_state_dict"]),
            parameters=tuple(name for name in weights if not name.endswith(NOT_TRAINED)),
        )
    except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise _unusable(path, f"the original plugin's checkpoint lacks something: {error!r}") from error


def name_today(name: str, architecture: str, encoder: Encoder) -> str:
    """The name that a tensor of then has today."""
    if architecture == "DeepLabV3":
        name = re.sub(r"^decoder\.([012])\.", lambda found: f"decoder.{DEEPLAB_NAMES[found[1]]}.", name)
    if not (encoder.through_timm and name.startswith(ENCODER)):
        return name
    inner = name.removeprefix(ENCODER).removeprefix("model.")
    if encoder.family == "GERNet":
        inner = inner.replace("stages.", "stages_")
    return f"{ENCODER}model.{inner}"


def _used(weights: Mapping[str, Tensor], shape: ModelShape, encoder: Encoder) -> Mapping[str, Tensor]:
    """Without the deep stages that PSPNet never ran: encoders of then had them, timm's of today leave them out."""
    if shape.architecture != "PSPNet" or not encoder.through_timm:
        return weights
    today = empty_model(shape).state_dict()
    return {name: tensor for name, tensor in weights.items() if name in today or not name.startswith(ENCODER)}


def _unusable(path: Path, problem: str) -> DataError:
    return file_error(
        path, problem, "pass the folder of a run whose checkpoint.pth is whole, or leave --pretrainedModel out"
    )
