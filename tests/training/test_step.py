"""One step: batches of one, pieces, running out of memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.errors import ResourceError
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import build_model
from tune_smp.training.losses import build_loss
from tune_smp.training.optimizers import build_optimizer
from tune_smp.training.precision import Precision
from tune_smp.training.step import Tiles, TrainingStep

MakeSettings = Callable[..., RunSettings]


def make_step(settings: RunSettings, model: nn.Module) -> TrainingStep:
    return TrainingStep(
        model.train(),
        build_loss(settings),
        build_optimizer(settings, model.parameters()),
        row=settings.optimizer,
        precision=Precision(None),
        gradient_clip=1.0,
    )


def tiles(count: int, size: int = 64, *, channels: int = 1) -> Tiles:
    generator = torch.Generator().manual_seed(count)
    images = torch.rand(count, channels, size, size, generator=generator)
    return Tiles(images, (images[:, :1] > 0.5).to(torch.uint8), has_ignored=False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_trains_on_a_batch_of_one_and_on_more(
    make_settings: MakeSettings, architecture: str
) -> None:
    size = ARCHITECTURES[architecture].min_tile_size  # features shrink to one pixel
    settings = make_settings(
        model_name=architecture, tile_size=size, loss_name="SoftBCEWithLogitsLoss", optimizer_name="SGD"
    )
    step = make_step(settings, build_model(settings, channels=1, classes=1))
    before = [parameter.detach().clone() for parameter in step.model.parameters()]
    for count in (1, 3):
        assert step(tiles(count, size)).isfinite()
    assert any(not torch.equal(old, new) for old, new in zip(before, step.model.parameters(), strict=True))
    assert all(layer.training for layer in step.model.modules())
    assert all(tensor.isfinite().all() for tensor in step.model.state_dict().values())


@pytest.mark.parametrize("mode", ["multilabel", "multiclass"])
def test_several_channels_and_classes(make_settings: MakeSettings, mode: str) -> None:
    settings = make_settings(segmentation_mode=mode)
    step = make_step(settings, build_model(settings, channels=5, classes=3))
    masks = torch.randint(0, 2, (2, 3 if mode == "multilabel" else 1, 64, 64), dtype=torch.uint8)
    assert step(Tiles(torch.rand(2, 5, 64, 64), masks, has_ignored=True)).isfinite()


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_gradients_are_clipped_as_torch_does(make_settings: MakeSettings, limit: float) -> None:
    settings = make_settings(loss_name="SoftBCEWithLogitsLoss", optimizer_name="SGD")
    steps = [make_step(settings, build_model(settings, channels=1, classes=1)) for _ in range(2)]
    steps[1].model.load_state_dict(steps[0].model.state_dict())
    batch, (ours, torchs) = tiles(3), steps
    ours.gradient_clip, torchs.gradient_clip = limit, 0.0

    ours(batch)
    torchs(batch)  # its gradients stay as they are
    gradients = [parameter.grad for parameter in torchs.model.parameters() if parameter.grad is not None]
    nn.utils.clip_grad_norm_(torchs.model.parameters(), limit)

    found = [parameter.grad for parameter in ours.model.parameters() if parameter.grad is not None]
    assert all(torch.equal(own, other) for own, other in zip(found, gradients, strict=True))


@pytest.mark.parametrize("limit", [1e-3, 1e3])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_gradient_that_is_no_number_has_the_others_clipped_as_torch_does(
    make_settings: MakeSettings, limit: float, value: float
) -> None:
    settings = make_settings(loss_name="SoftBCEWithLogitsLoss", optimizer_name="SGD")
    step = make_step(settings, build_model(settings, channels=1, classes=1))
    parameters = list(step.model.parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    parameters[0].grad.view(-1)[0] = value  # type: ignore[union-attr] # there is one
    expected = [nn.Parameter(torch.zeros_like(parameter)) for parameter in parameters]
    for other, parameter in zip(expected, parameters, strict=True):
        other.grad = parameter.grad.clone()  # type: ignore[union-attr] # there is one
    step.gradient_clip = limit

    step._clip()
    nn.utils.clip_grad_norm_(expected, limit)

    for other, parameter in zip(expected, parameters, strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=0, atol=0, equal_nan=True)


class Narrow(nn.Module):
    """A linear model without batch normalisation that fails for more than ``most`` tiles, as a full device does."""

    def __init__(self, most: int, message: str = "CUDA out of memory. Tried to allocate 2.00 GiB") -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 1, 3, padding=1)
        self.most = most
        self.message = message

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise RuntimeError(self.message)
        logits: Tensor = self.convolution(images)
        return logits


def narrow_step(make_settings: MakeSettings, most: int) -> TrainingStep:
    torch.manual_seed(0)
    return make_step(make_settings(optimizer_name="SGD", loss_name="SoftBCEWithLogitsLoss"), Narrow(most))


@pytest.mark.parametrize(("most", "size"), [(4, 4), (3, 2), (1, 1)])
def test_out_of_memory_is_met_by_pieces_with_the_same_update(make_settings: MakeSettings, most: int, size: int) -> None:
    whole, narrow = narrow_step(make_settings, 8), narrow_step(make_settings, most)
    for _ in range(3):
        torch.testing.assert_close(narrow(tiles(8)), whole(tiles(8)))
    for expected, found in zip(whole.model.parameters(), narrow.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    assert f"pieces of {size}" in narrow.notes[-1]
    assert whole.notes == ()


def test_three_halvings_are_the_most(make_settings: MakeSettings) -> None:
    with pytest.raises(ResourceError, match=r"out of memory with 2 tiles of 64 px") as raised:
        narrow_step(make_settings, 1)(tiles(16))
    assert "--batchSize 16" in str(raised.value)


def test_a_single_tile_cannot_be_halved(make_settings: MakeSettings) -> None:
    step = narrow_step(make_settings, 0)
    with pytest.raises(ResourceError, match="out of memory with 1 tiles"):
        step(tiles(2))
    assert step.halvings == 1


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_settings: MakeSettings) -> None:
    step = make_step(make_settings(), Narrow(0, message="mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        step(tiles(2))
    assert step.halvings == 0


def test_pieces_of_an_odd_batch(make_settings: MakeSettings) -> None:
    whole, narrow = narrow_step(make_settings, 5), narrow_step(make_settings, 3)
    torch.testing.assert_close(narrow(tiles(5)), whole(tiles(5)))
    for expected, found in zip(whole.model.parameters(), narrow.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
