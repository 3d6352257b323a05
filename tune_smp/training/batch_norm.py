"""Batch normalisation: where there is one value per channel to normalise over, and where its statistics lag."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn


class _Borrower:
    """Lets one layer use its running statistics for the length of one call."""

    def __init__(self) -> None:
        self.has_borrowed = False

    def before(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """In training, one value per channel: switch this layer to its running statistics."""
        features = inputs[0]  # (N, C, ...)
        if layer.training and features.numel() == features.shape[1]:
            self.has_borrowed = True
            layer.training = False

    def after(self, layer: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        """Switch it back."""
        if self.has_borrowed:
            self.has_borrowed = False
            layer.training = True


def tolerate_single_values(model: nn.Module) -> None:
    """Make a training batch of one work for every architecture.

    Behind a global pooling (PAN, DeepLabV3, DeepLabV3Plus, UPerNet, PSPNet), or where features shrink to one pixel, a
    batch of one has a single value per channel, and torch raises "Expected more than 1 value per channel". Such a layer
    uses its running statistics for that call, as it will in inference. State, parameters and larger batches are
    untouched; the hooks cost about a microsecond per layer and call.
    """
    for layer in _tracking(model):
        borrower = _Borrower()
        layer.register_forward_pre_hook(borrower.before)
        layer.register_forward_hook(borrower.after, always_call=True)


_USUAL_MOMENTUM = 0.1  # torch's


def hasten_statistics(model: nn.Module) -> None:
    """Let no running statistics follow the weights more slowly than torch's do by default.

    With a momentum of 0.01, made for runs of a million steps (smp's EfficientNets, timm's ``tf_`` nets), they are of no
    use for some 500 steps (docs/decisions/0029-young-statistics.md).
    """
    for layer in _tracking(model):
        if layer.momentum:  # None: the mean of all; 0: never changed
            layer.momentum = max(layer.momentum, _USUAL_MOMENTUM)


# After this many times 1 / momentum steps, less than 1 % of the running statistics is what they began with.
_TIMES_TO_FORGET = 5


def remembers_its_start(model: nn.Module, steps: int) -> bool:
    """Whether after ``steps`` steps the running statistics of some layer are still, in part, those it began with.

    With the usual momentum of 0.1 that is so for 50 steps.
    """
    # None stands for the mean of all, 0 for statistics that never change.
    momenta = [layer.momentum for layer in _tracking(model) if layer.momentum]
    return any(steps * momentum < _TIMES_TO_FORGET for momentum in momenta)


@contextlib.contextmanager
def statistics_of(model: nn.Module, images: Iterable[Tensor]) -> Iterator[None]:
    """In the block, the running statistics are those of these images (N, C, H, W), N > 1, under the weights of now.

    The running ones lag behind the weights, and are put back. Their share of the first values is the smaller reason:
    taking that out by bias correction did not help (docs/quality.md).
    """
    layers = _tracking(model)
    momenta, was_training = [layer.momentum for layer in layers], model.training
    kept = [{name: buffer.clone() for name, buffer in layer.named_buffers()} for layer in layers]
    try:
        with torch.no_grad():
            update_bn(images, model)
        yield
    finally:
        model.train(was_training)
        for layer, buffers, momentum in zip(layers, kept, momenta, strict=True):
            layer.momentum = momentum
            for name, buffer in layer.named_buffers():
                buffer.copy_(buffers[name])


def _tracking(model: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
