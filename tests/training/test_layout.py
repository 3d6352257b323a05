"""Channels last, and the convolutions that must not be."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tune_smp.training.layout import channels_last

LAST = torch.channels_last


def stem(channels: int, *, kernel: int = 1, stride: int = 2) -> nn.Sequential:
    """A convolution as MobileOne begins with, and a usual one."""
    torch.manual_seed(0)
    first = nn.Conv2d(channels, 48, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(first, nn.BatchNorm2d(48), nn.ReLU(), nn.Conv2d(48, 8, 3, padding=1))


def gradients(model: nn.Module, images: Tensor) -> list[Tensor]:
    model.zero_grad()
    model(images).square().mean().backward()
    return [row.grad.clone() for row in model.parameters() if row.grad is not None]


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8, 15, 16, 24])
def test_gradients_of_strided_pixels_are_right(channels: int) -> None:
    model = stem(channels)
    images = torch.rand(2, channels, 128, 128)
    expected = gradients(copy.deepcopy(model), images)
    laid_out = channels_last(model)
    # Several times: memory that is written past its end crashes later.
    for _ in range(10):
        found = gradients(laid_out, images.contiguous(memory_format=LAST))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 8, 15, 16])
def test_they_are_in_bfloat16_too(channels: int) -> None:
    model = stem(channels)
    images = torch.rand(2, channels, 128, 128)
    expected = torch.cat([row.flatten() for row in gradients(copy.deepcopy(model), images)])
    laid_out = channels_last(model)
    for _ in range(10):
        with torch.autocast("cpu", torch.bfloat16):
            found = gradients(laid_out, images.contiguous(memory_format=LAST))
        distance = (torch.cat([row.flatten() for row in found]) - expected).norm() / expected.norm()
        assert distance < 0.02  # 0.003 with AVX512-BF16


def test_what_is_unsafe_sees_channels_first() -> None:
    model = channels_last(stem(3))
    seen: list[Tensor] = []
    model[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.rand(2, 3, 32, 32).contiguous(memory_format=LAST))
    assert seen[0].is_contiguous()
    assert not seen[0].is_contiguous(memory_format=LAST)
    weights = dict(model.named_parameters())
    assert weights["0.weight"].stride() == (3, 1, 1, 1)
    assert weights["3.weight"].is_contiguous(memory_format=LAST)


@pytest.mark.parametrize(("channels", "kernel", "stride"), [(3, 3, 2), (3, 1, 1), (16, 1, 2)])
def test_all_others_are_channels_last(channels: int, kernel: int, stride: int) -> None:
    model = channels_last(stem(channels, kernel=kernel, stride=stride))
    seen: list[Tensor] = []
    model[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.rand(2, channels, 32, 32).contiguous(memory_format=LAST))
    assert seen[0].is_contiguous(memory_format=LAST)


def test_copies_and_states_are_as_before() -> None:
    model = stem(3)
    laid_out = copy.deepcopy(channels_last(copy.deepcopy(model)))
    assert laid_out.state_dict().keys() == model.state_dict().keys()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(laid_out(images.contiguous(memory_format=LAST)), model(images))
