"""How the numbers of a model lie in memory: channels last, but where that is not safe."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)

FEWEST_CHANNELS = 16
"""Channels that the kernels of oneDNN work on at a time, on processors with AVX-512; 8 on others."""


def channels_last(model: Model) -> Model:
    """Lay out the model's convolutions channels last, in place.

    On a CPU up to a fifth faster for convolutional encoders and never more than a twelfth slower, on a GPU what its
    matrix units want.

    Left as they are: strided convolutions of one pixel on few channels, such as the stem of MobileOne. For the gradient
    of their weights oneDNN (3.12, of torch 2.14) writes past its own memory where the image is channels last, which
    ends in a crash, a hang or wrong numbers, in float32 and in bfloat16 (uxlfoundation/oneDNN issue 6035).
    """
    model.to(memory_format=torch.channels_last)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and _is_unsafe(layer):
            # A clone: for one pixel, torch takes both layouts to be the same, and would not move anything.
            layer.weight.data = layer.weight.data.clone(memory_format=torch.contiguous_format)
            layer.register_forward_pre_hook(_channels_first)
    return model


def _is_unsafe(layer: nn.Conv2d) -> bool:
    is_strided_pixel = layer.kernel_size == (1, 1) and max(layer.stride) > 1
    return is_strided_pixel and layer.in_channels // layer.groups < FEWEST_CHANNELS


def _channels_first(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
    images, *rest = inputs  # (N, C, H, W)
    if images.device.type != "cpu":
        return None
    return (images.clone(memory_format=torch.contiguous_format), *rest)
