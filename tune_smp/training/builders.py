"""The model from settings; where smp's and timm's exceptions become ours."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import segmentation_models_pytorch as smp
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tune_smp.choices.architectures import ARCHITECTURES, NO_ATTENTION
from tune_smp.choices.encoders import find_encoder
from tune_smp.errors import Problem, SettingsError
from tune_smp.settings.run import RunSettings
from tune_smp.training.batch_norm import hasten_statistics
from tune_smp.training.layout import channels_last
from tune_smp.training.weights import with_weights


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The properties that two models must share for the weights of one to fit the other.

    ``encoder`` is smp's name. ``encoder_depth`` and ``decoder_channels``: None where they are the architecture's own.
    """

    architecture: str
    encoder: str
    channels: int
    classes: int
    encoder_depth: int | None = None
    decoder_channels: int | None = None
    decoder_attention: str = NO_ATTENTION

    @classmethod
    def of(cls, settings: RunSettings, *, channels: int, classes: int) -> Self:
        """The shape of the model of these settings."""
        row = settings.architecture
        depth, width = settings.resolved_encoder_depth, settings.resolved_decoder_channels
        return cls(
            row.name,
            settings.encoder.smp_name,
            channels,
            classes,
            None if depth == row.encoder_depth else depth,
            None if width == row.own_width(depth) else width,
            settings.decoder_attention,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of ``to_json``; older versions knew the first four properties alone."""
        depth, width = document.get("encoder_depth"), document.get("decoder_channels")
        return cls(
            str(document["architecture"]),
            str(document["encoder"]),
            int(document["channels"]),
            int(document["classes"]),
            None if depth is None else int(depth),
            None if width is None else int(width),
            str(document.get("decoder_attention", NO_ATTENTION)),
        )

    def build(self, weights: str | bool | None = None) -> nn.Module:
        """smp's model of this shape; raises what smp raises where there is none."""
        row = ARCHITECTURES[self.architecture]
        depth = self.encoder_depth or row.encoder_depth
        width = self.decoder_channels or row.own_width(depth)
        arguments = row.smp_arguments(depth=depth, width=width, attention=self.decoder_attention)
        model: nn.Module = smp.create_model(
            self.architecture, self.encoder, weights, in_channels=self.channels, classes=self.classes, **arguments
        )
        return model

    def own_flags(self) -> dict[str, int | str]:
        """The flags of depth, width and attention that its settings need, by name."""
        flags = {
            "encoderDepth": self.encoder_depth,
            "decoderChannels": self.decoder_channels,
            "decoderAttention": None if self.decoder_attention == NO_ATTENTION else self.decoder_attention,
        }
        return {flag: value for flag, value in flags.items() if value is not None}

    @property
    def encoder_name(self) -> str:
        """The encoder as users write it."""
        row = find_encoder(self.encoder)
        return row.name if row else self.encoder

    def __str__(self) -> str:
        own = (f"{flag} {value}" for flag, value in self.own_flags().items())
        parts = (f"{self.architecture} with {self.encoder_name}", *own, f"{self.channels} channels in")
        return ", ".join((*parts, f"{self.classes} classes out"))


def build_model(settings: RunSettings, *, channels: int, classes: int, load_weights: bool = True) -> nn.Module:
    """The model of these settings: (N, channels, H, W) → logits (N, classes, H, W).

    ``load_weights`` False leaves its encoder random, for weights that come from elsewhere: nothing is fetched.

    Convolutions are laid out channels last, see `layout`; for sparse gradients plainly, since on a GPU torch adds these
    to plainly laid out tensors only.

    Raises SettingsError where smp refuses the choice, ResourceError where the weights cannot be had.
    """
    encoder, weights = settings.encoder, settings.encoder_weights if load_weights else None
    # timm's encoders have one set of weights, which smp wants asked for by True.
    asked = True if weights is not None and encoder.through_timm else weights
    build = functools.partial(ModelShape.of(settings, channels=channels, classes=classes).build, asked)

    with warnings.catch_warnings():
        # Old encoder names are ours to keep, and DPT without prefix tokens is meant.
        warnings.simplefilter("ignore")
        try:
            model = build() if weights is None else with_weights(build, encoder, weights)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _not_buildable(settings, error) from error
    hasten_statistics(model)
    model = channels_last(model)
    return model.to(memory_format=torch.contiguous_format) if settings.optimizer.sparse_gradients else model


def empty_model(shape: ModelShape) -> nn.Module:
    """A model of this shape without numbers: its tensors have names and shapes and take no memory. A tenth of a second.

    Raises what smp raises where there is none of this shape.
    """
    with warnings.catch_warnings(action="ignore"), torch.device("meta"):
        return shape.build()


class NoRandomWeights(TorchFunctionMode):
    """Within, models are built without drawing weights, for those that are loaded next: all of them must be.

    A Unet with resnet18 is there after 7 ms instead of 120, one with mit_b2 after 45 instead of 450. Buffers are as
    they should be, which those of a model on torch's "meta" device are not.
    """

    _DRAWING = frozenset(
        {
            *(torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.erfinv_),
            *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_),
        }
    )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Return the tensor as it is instead of filling it."""
        del types
        kwargs = kwargs or {}
        if func in self._DRAWING:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _not_buildable(settings: RunSettings, error: Exception) -> SettingsError:
    return SettingsError(
        Problem(
            f"segmentation-models-pytorch cannot build {settings.model_name} with {settings.encoder.name}: {error}",
            f"--modelName {settings.model_name}, --encoderBaseVariantWeights {settings.encoder_base_variant_weights}",
            "tune-smp show architectures and tune-smp show encoders list what goes together",
        )
    )
