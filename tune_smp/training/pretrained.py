"""Going on from an earlier run, and loading an exported model. Nothing that is read is ever executed."""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from tune_smp.choices.architectures import ARCHITECTURES, MOST_CHANNELS, NO_ATTENTION
from tune_smp.choices.encoders import RANDOM, find_encoder
from tune_smp.errors import file_error, listing
from tune_smp.training import checkpoint, original_plugin
from tune_smp.training.builders import ModelShape, NoRandomWeights, empty_model

HEAD = "segmentation_head."
CHECKPOINT = "checkpoint.pth"
CONFIG = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class EarlierRun:
    """The result of an earlier run; ``training`` is None where there is only its exported model."""

    path: Path
    shape: ModelShape
    weights: Mapping[str, Tensor]
    training: EarlierTraining | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class EarlierTraining:
    """How far an earlier run came, and what its optimizer had learnt.

    ``parameters`` are the names of the tensors in the order in which the optimizer numbers them, None where that is the
    model's own order.
    """

    epochs: int
    optimizer_name: str
    optimizer: Mapping[str, Any]
    parameters: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class PretrainedChoice:
    """The settings that the model of an earlier run answers to."""

    model_name: str
    encoder_base_variant_weights: str
    encoder_depth: int | None = None
    decoder_channels: int | None = None
    decoder_attention: str = NO_ATTENTION


def describe_pretrained(path: Path) -> PretrainedChoice:
    """Architecture and encoder of an earlier run. Raises DataError, also for an encoder that this program lacks."""
    shape = load_earlier_run(path).shape
    encoder = find_encoder(shape.encoder)
    if encoder is None or shape.architecture not in ARCHITECTURES:
        raise file_error(path, f"the model is none that tune-smp trains: {shape}", "use a model of tune-smp")
    return PretrainedChoice(
        shape.architecture,
        f"{encoder.family},{encoder.name},{RANDOM}",
        shape.encoder_depth,
        shape.decoder_channels,
        shape.decoder_attention,
    )


def load_earlier_run(path: Path) -> EarlierRun:
    """Load what is in an output folder, or in its ``model/``: the checkpoint if it is there, else the exported model.

    Raises DataError where there is neither, or where what is there cannot be read.
    """
    if (path / CHECKPOINT).is_file():
        return _from_checkpoint(path / CHECKPOINT)
    if (path / original_plugin.WHOLE_MODULE).is_file() and not (path / "model").is_dir():
        raise file_error(
            path / original_plugin.WHOLE_MODULE,
            "the file is a whole module, which cannot be read without running what is in it: it was not opened",
            f"put the {CHECKPOINT} of the same run beside it, which holds the same weights",
        )
    folder = path / "model" if (path / "model").is_dir() else path
    config = read_config(folder)
    return EarlierRun(folder, _shape_of(config, folder), _read_weights(folder))


def adopt_weights(
    model: nn.Module, shape: ModelShape, earlier: EarlierRun, *, replace_head: bool = False
) -> tuple[str, ...]:
    """Give the model the weights of an earlier run; return what to report about it.

    ``replace_head`` keeps the model's own last layer, whatever the classes. Raises DataError where the two differ in
    anything else, naming both.
    """
    check_fits(shape, earlier, model, replace_head=replace_head)
    own_head = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(HEAD)}
    model.load_state_dict({**earlier.weights, **(own_head if replace_head else {})})
    new_head = f"a new last layer for {shape.classes} classes takes the place of the earlier one"
    return (*earlier.notes, new_head) if replace_head else earlier.notes


def optimizer_state(model: nn.Module, training: EarlierTraining) -> Mapping[str, Any] | None:
    """Return the state of the earlier run's optimizer, for one of all parameters of this model, in their order.

    None where it does not fit.
    """
    if training.parameters is None:
        return training.optimizer
    numbers = {name: number for number, name in enumerate(training.parameters)}
    learnt = training.optimizer.get("state")
    if not isinstance(learnt, Mapping) or learnt.keys() - set(numbers.values()):
        return None
    state = {}
    for number, (name, parameter) in enumerate(model.named_parameters()):
        values = learnt.get(numbers.get(name), {})
        if any(
            isinstance(value, list) or _shape_of_value(value) not in ((), parameter.shape) for value in values.values()
        ):
            return None  # LBFGS remembers all parameters in one row
        if values:
            state[number] = values
    return {"state": state}


def _shape_of_value(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else ()


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
        raise file_error(folder / CONFIG, f"the model has arguments that smp does not know: {', '.join(strange)}", "")
    try:
        with NoRandomWeights():
            model: nn.Module = architecture(**{**arguments, "encoder_weights": None})
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise file_error(folder, f"configuration and weights do not fit: {error}", "export the model again") from error
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """smp's ``config.json`` of an exported model. Raises DataError where it is none."""
    path = folder / CONFIG
    if not path.is_file():
        fix = f"pass the output folder of a finished run ({CHECKPOINT} or model/), or its model/; copy all of it"
        raise file_error(folder, f"there is no model here: {CONFIG} is missing", fix)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise file_error(path, f"the file cannot be read: {error}", "copy the folder again") from error
    if not isinstance(config, dict) or config.get("_model_class") not in ARCHITECTURES:
        raise file_error(path, "the file does not describe a model of segmentation-models-pytorch", "")
    return config


def _from_checkpoint(path: Path) -> EarlierRun:
    content = checkpoint.read(path)
    if original_plugin.wrote(content):
        return _from_original_plugin(original_plugin.read(content, path), path)
    state = checkpoint.state_in(content, path)
    try:
        training = EarlierTraining(state["epoch"], state["optimizer_name"], state["optimizer"])
        return EarlierRun(path, ModelShape.from_json(state["shape"]), state["model"], training)
    except (KeyError, TypeError, ValueError) as error:
        raise file_error(path, f"the checkpoint lacks something: {error!r}", "use the version that wrote it") from error


def _from_original_plugin(old: original_plugin.OldCheckpoint, path: Path) -> EarlierRun:
    training = EarlierTraining(old.epochs, old.optimizer_name, old.optimizer, old.parameters)
    note = (
        f"{path} is of the original WIPP plugin, which normalised pixels by their surroundings: "
        "--normalization zscore comes nearest"
    )
    return EarlierRun(path, old.shape, old.weights, training, notes=(note,))


def _shape_of(config: Mapping[str, Any], folder: Path) -> ModelShape:
    try:
        return ModelShape(
            architecture=config["_model_class"],
            encoder=str(config["encoder_name"]),
            channels=int(config["in_channels"]),
            classes=int(config["classes"]),
            **_decoder_of(config),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise file_error(folder / CONFIG, f"the file lacks {error}", "export the model again") from error


def _decoder_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Depth, width and attention as `ModelShape` has them, from the arguments of smp that they became.

    A width of which this program makes no model is left out: the tensors are compared anyway.
    """
    row = ARCHITECTURES[config["_model_class"]]
    depth = int(config.get("encoder_depth", row.encoder_depth))
    attention = str(config.get("decoder_attention_type") or NO_ATTENTION)

    def describes(width: int) -> bool:
        wanted = row.smp_arguments(depth=depth, width=width, attention=attention)
        return all(_plain(config.get(name)) == _plain(value) for name, value in wanted.items())

    own = row.own_width(depth)
    widths = () if own is None else (own, *range(row.channels_step, MOST_CHANNELS + 1, row.channels_step))
    width = next(filter(describes, widths), own)
    return {
        "encoder_depth": None if depth == row.encoder_depth else depth,
        "decoder_channels": None if width == own else width,
        "decoder_attention": attention,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read_weights(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS
    if not path.is_file():
        raise file_error(folder, f"the model is incomplete: {WEIGHTS} is missing", "copy the whole folder")
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise file_error(path, f"the weights are damaged: {error}", "copy the file again") from error


def check_fits(wanted: ModelShape, earlier: EarlierRun, model: nn.Module | None = None, *, replace_head: bool) -> None:
    """Raise DataError, naming both, where the earlier model cannot be gone on from.

    ``model`` is the one to continue with; without it, an empty one of the wanted shape is looked at.
    """
    found = earlier.shape
    if dataclasses.replace(wanted, classes=found.classes) != found:
        flags = "".join(f" --{flag} {value}" for flag, value in found.own_flags().items())
        fix = (
            f"pass --modelName {found.architecture}{flags} and an --encoderBaseVariantWeights with "
            f"{found.encoder_name}, on images of {found.channels} channels; or leave --pretrainedModel out"
        )
    elif wanted.classes != found.classes and not replace_head:
        fix = "pass --replaceHead to keep everything but the last layer, or use labels of the same classes"
    else:
        return _check_tensors(model or _empty(wanted, earlier.path), earlier, replace_head=replace_head)
    raise file_error(earlier.path, f"the earlier model is {found}; this run needs {wanted}", fix)


def _empty(shape: ModelShape, path: Path) -> nn.Module:
    try:
        return empty_model(shape)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        problem = f"segmentation-models-pytorch cannot build the earlier model, {shape}: {error}"
        raise file_error(path, problem, "leave --pretrainedModel out") from error


def _check_tensors(model: nn.Module, earlier: EarlierRun, *, replace_head: bool) -> None:
    """Raise DataError where the earlier model lacks a tensor, has another one, or one of another shape."""
    if not all(isinstance(tensor, Tensor) for tensor in earlier.weights.values()):
        raise file_error(earlier.path, "not all of its weights are tensors", "copy the folder again")
    wanted, found = (
        {name: tuple(tensor.shape) for name, tensor in tensors.items() if not (replace_head and name.startswith(HEAD))}
        for tensors in (model.state_dict(), earlier.weights)
    )
    missing = [name for name in wanted if name not in found]
    strange = [name for name in found if name not in wanted]
    other = [
        f"{name} {found[name]} for {wanted[name]}" for name in wanted if found.get(name, wanted[name]) != wanted[name]
    ]
    differing = [
        f"{len(names)} weights {what} ({listing(names, limit=3)})"
        for names, what in ((missing, "are missing"), (strange, "are not of this model"), (other, "have other shapes"))
        if names
    ]
    if differing:
        fix = "copy the folder again; if it is whole, leave --pretrainedModel out"
        raise file_error(earlier.path, f"of {earlier.shape}, {'; '.join(differing)}", fix)
