"""Batch normalisation of one value per channel, and of statistics that lag behind the weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tune_smp.training.batch_norm import hasten_statistics, remembers_its_start, statistics_of, tolerate_single_values


def pooled() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    model(torch.rand(8, 1, 8, 8))  # running statistics other than 0 and 1
    return model


def test_torch_alone_fails() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        pooled()(torch.rand(1, 1, 8, 8))


def test_a_single_value_is_normalised_with_the_running_statistics() -> None:
    model, image = pooled(), torch.rand(1, 1, 8, 8)
    expected = copy.deepcopy(model).eval()(image)
    tolerate_single_values(model)
    state = copy.deepcopy(model.state_dict())
    found = model(image)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    gradients = [parameter.grad for parameter in model[0].parameters()]
    assert all(gradient is not None and gradient.any() for gradient in gradients)
    torch.testing.assert_close(dict(model.state_dict()), dict(state))
    assert all(layer.training for layer in model.modules())


def test_larger_batches_and_inference_are_untouched() -> None:
    plain, tolerant, images = pooled(), pooled(), torch.rand(4, 1, 8, 8)
    tolerate_single_values(tolerant)
    torch.testing.assert_close(tolerant(images), plain(images), rtol=0, atol=0)
    torch.testing.assert_close(dict(tolerant.state_dict()), dict(plain.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(tolerant.eval()(images[:1]), plain.eval()(images[:1]), rtol=0, atol=0)
    assert not any(layer.training for layer in tolerant.modules())


def test_training_mode_is_restored_when_the_layer_fails() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    tolerate_single_values(model)
    with pytest.raises(RuntimeError):
        model(torch.rand(1, 4, 1, 1))
    assert model[0].training


def test_copies_do_not_share_hooks() -> None:
    model = pooled()
    tolerate_single_values(model)
    copied = copy.deepcopy(model)
    copied(torch.rand(1, 1, 8, 8))
    assert model[2].training
    assert copied[2].training


def normalised() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5))


def test_the_statistics_are_those_of_the_images_within_the_block_only() -> None:
    model = normalised()
    model(torch.rand(4, 1, 8, 8))
    before = copy.deepcopy(model.eval().state_dict())
    images = torch.rand(6, 1, 8, 8) * 3 + 1
    features = model[0](images).detach()
    with statistics_of(model, (images[i : i + 2] for i in (0, 2, 4))):
        assert not any(layer.training for layer in model.modules())
        torch.testing.assert_close(model[1].running_mean, features.mean(dim=(0, 2, 3)))
        found = model(images)
        assert found.mean().abs() < 1e-4
        assert abs(found.std().item() - 1) < 0.05
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert model[1].momentum == 0.1


def test_the_statistics_are_put_back_when_the_block_fails() -> None:
    model = normalised()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError), statistics_of(model, [torch.rand(2, 1, 8, 8)]):
        raise KeyError
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


def test_everything_is_put_back_when_an_image_cannot_be_had() -> None:
    def images() -> Iterator[torch.Tensor]:
        yield torch.rand(2, 1, 8, 8)
        raise TimeoutError

    model = normalised().eval()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(TimeoutError), statistics_of(model, images()):
        pass
    torch.testing.assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)
    assert not any(layer.training for layer in model.modules())
    assert model[1].momentum == 0.1


@pytest.mark.parametrize(
    ("momentum", "steps", "expected"), [(0.1, 49, True), (0.1, 50, False), (0.01, 499, True), (0.01, 500, False)]
)
def test_how_long_a_layer_remembers_its_start(momentum: float, steps: int, expected: bool) -> None:
    model = nn.Sequential(nn.BatchNorm2d(2, momentum=momentum))
    assert remembers_its_start(model, steps) is expected
    for forgetful in (nn.LayerNorm(2), nn.BatchNorm2d(2, track_running_stats=False), nn.BatchNorm2d(2, momentum=None)):
        assert not remembers_its_start(nn.Sequential(forgetful), 0)


def test_slow_statistics_are_hastened_and_others_left_alone() -> None:
    model = nn.Sequential(*(nn.BatchNorm2d(2, momentum=momentum) for momentum in (0.01, 0.1, 0.3, 0.0, None)))
    hasten_statistics(model)
    assert [layer.momentum for layer in model] == [0.1, 0.1, 0.3, 0.0, None]
