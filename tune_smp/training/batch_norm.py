"""Batch normalisation where there is one value per channel, and so nothing to normalise over."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and layer.track_running_stats:
            borrower = _Borrower()
            layer.register_forward_pre_hook(borrower.before)
            layer.register_forward_hook(borrower.after, always_call=True)
