"""Going on from an earlier run, and loading an exported model. Nothing that is read is ever executed."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.encoders import RANDOM, find_encoder
from tune_smp.errors import DataError, Problem
from tune_smp.training import checkpoint
from tune_smp.training.builders import ModelShape

HEAD = "segmentation_head."
CHECKPOINT = "checkpoint.pth"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class EarlierRun:
    """What an earlier run left: ``state`` is its checkpoint, None where there is only its exported model."""

    path: Path
    shape: ModelShape
    weights: Mapping[str, Tensor]
    state: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PretrainedChoice:
    """The settings that the model of an earlier run answers to."""

    model_name: str
    encoder_base_variant_weights: str


def describe_pretrained(path: Path) -> PretrainedChoice:
    """Architecture and encoder of an earlier run. Raises DataError, also for an encoder that this program lacks."""
    shape = load_earlier_run(path).shape
    encoder = find_encoder(shape.encoder)
    if encoder is None or shape.architecture not in ARCHITECTURES:
        raise _refused(path, f"the model is none that tune-smp trains: {shape}", "use a model of tune-smp")
    return PretrainedChoice(shape.architecture, f"{encoder.family},{encoder.name},{RANDOM}")


def load_earlier_run(path: Path) -> EarlierRun:
    """What is in an output folder, or in its ``model/``: the checkpoint if it is there, else the exported model.

    Raises DataError where there is neither, or where what is there cannot be read.
    """
    if (path / CHECKPOINT).is_file():
        return _from_checkpoint(path / CHECKPOINT)
    folder = path / "model" if (path / "model").is_dir() else path
    config = read_config(folder)
    return EarlierRun(folder, _shape_of(config, folder), _read_weights(folder))


def adopt_weights(
    model: nn.Module, shape: ModelShape, earlier: EarlierRun, *, replace_head: bool = False
) -> tuple[str, ...]:
    """Give the model the weights of an earlier run; what is to be told about it.

    ``replace_head`` keeps the model's own last layer, whatever the classes. Raises DataError where the two differ in
    anything else, naming both.
    """
    check_fits(shape, earlier, replace_head=replace_head)
    taken = {name: tensor for name, tensor in earlier.weights.items() if not (replace_head and name.startswith(HEAD))}
    try:
        with warnings.catch_warnings(action="ignore"):  # smp's, about what is told below
            missing, unexpected = model.load_state_dict(taken, strict=False)
    except RuntimeError as error:
        raise _refused(earlier.path, f"the weights do not fit the model: {error}", "copy the folder again") from error
    missing = [name for name in missing if not (replace_head and name.startswith(HEAD))]
    if missing or unexpected:
        differing = f"{len(missing)} weights are missing and {len(unexpected)} are not of this model"
        raise _refused(earlier.path, differing, "copy the folder again")
    return (f"a new last layer for {shape.classes} classes takes the place of the earlier one",) if replace_head else ()


def load_exported(folder: Path) -> nn.Module:
    """The exported model in this folder, in inference mode, on the CPU; (N, C, H, W) → logits (N, K, H, W).

    Raises DataError where a file is missing, damaged, or none of smp's.
    """
    config = read_config(folder)
    weights = _read_weights(folder)
    architecture = getattr(smp, config["_model_class"])
    known = set(inspect.signature(architecture.__init__).parameters)
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    # Other names would reach timm, which takes paths and addresses of weights.
    strange = sorted(arguments.keys() - known)
    if strange:
        raise _refused(folder / CONFIG, f"the model has arguments that smp does not know: {', '.join(strange)}", "")
    try:
        model: nn.Module = architecture(**{**arguments, "encoder_weights": None})
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise _refused(folder, f"configuration and weights do not fit: {error}", "export the model again") from error
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """smp's ``config.json`` of an exported model. Raises DataError where it is none."""
    path = folder / CONFIG
    if not path.is_file():
        fix = f"pass the output folder of a finished run ({CHECKPOINT} or model/), or its model/; copy all of it"
        raise _refused(folder, f"there is no model here: {CONFIG} is missing", fix)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(path, f"the file cannot be read: {error}", "copy the folder again") from error
    if not isinstance(config, dict) or config.get("_model_class") not in ARCHITECTURES:
        raise _refused(path, "the file does not describe a model of segmentation-models-pytorch", "")
    return config


def _from_checkpoint(path: Path) -> EarlierRun:
    state = checkpoint.load(path)
    try:
        return EarlierRun(path, ModelShape.from_json(state["shape"]), state["model"], state)
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(path, f"the checkpoint lacks something: {error!r}", "use the version that wrote it") from error


def _shape_of(config: Mapping[str, Any], folder: Path) -> ModelShape:
    try:
        return ModelShape(
            architecture=config["_model_class"],
            encoder=str(config["encoder_name"]),
            channels=int(config["in_channels"]),
            classes=int(config["classes"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _refused(folder / CONFIG, f"the file lacks {error}", "export the model again") from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise _refused(folder, f"the model is incomplete: {WEIGHTS} is missing", "copy the whole folder")
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise _refused(path, f"the weights are damaged: {error}", "copy the file again") from error


def check_fits(wanted: ModelShape, earlier: EarlierRun, *, replace_head: bool) -> None:
    """Raises DataError, naming both, where the earlier model cannot be gone on from."""
    found = earlier.shape
    if (wanted.architecture, wanted.encoder, wanted.channels) != (found.architecture, found.encoder, found.channels):
        fix = (
            f"pass --modelName {found.architecture} and an --encoderBaseVariantWeights with {found.encoder_name}, on "
            f"images of {found.channels} channels; or leave --pretrainedModel out"
        )
    elif wanted.classes != found.classes and not replace_head:
        fix = "pass --replaceHead to keep everything but the last layer, or use labels of the same classes"
    else:
        return
    raise _refused(earlier.path, f"the earlier model is {found}; this run needs {wanted}", fix)


def _refused(path: Path, problem: str, fix: str) -> DataError:
    return DataError(Problem(problem, str(path), fix))
