"""Every optimizer, and the learning rate of each step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tune_smp.choices.optimizers import OPTIMIZERS
from tune_smp.choices.schedules import SCHEDULES
from tune_smp.settings.run import RunSettings
from tune_smp.training.losses import build_loss
from tune_smp.training.optimizers import build_optimizer, learning_rate, load_optimizer_state, set_learning_rate
from tune_smp.training.precision import Precision
from tune_smp.training.step import Tiles, TrainingStep

MakeSettings = Callable[..., RunSettings]


def small_step(settings: RunSettings) -> TrainingStep:
    """A step on a model of two convolutions."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    model = model.to(memory_format=torch.channels_last)
    return TrainingStep(
        model,
        build_loss(settings),
        build_optimizer(settings, model.parameters()),
        row=settings.optimizer,
        precision=Precision(None),
        gradient_clip=settings.gradient_clip,
    )


def bright_squares() -> Tiles:
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    return Tiles(images, (images > 0.5).to(torch.uint8), has_ignored=False)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(make_settings: MakeSettings, name: str) -> None:
    row = OPTIMIZERS[name]
    # Adadelta, ASGD and Rprop start with steps of next to nothing.
    rate = row.default_learning_rate * (1 if row.needs_closure else 5)
    step = small_step(make_settings(optimizer_name=name, learning_rate=rate, loss_name="SoftBCEWithLogitsLoss"))
    tiles = bright_squares()
    losses = [step(tiles).item() for _ in range(40)]
    assert losses[-1] < losses[0] - 0.01


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_numbers_go_where_the_optimizer_has_them(make_settings: MakeSettings, name: str) -> None:
    row = OPTIMIZERS[name]
    numbers = {"learning_rate": 0.012}
    numbers |= {"weight_decay": 0.034} if row.has_weight_decay else {}
    numbers |= {"momentum": 0.56} if row.has_momentum else {}
    optimizer = build_optimizer(make_settings(optimizer_name=name, **numbers), [nn.Parameter(torch.zeros(1))])
    assert type(optimizer).__name__ == name
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.012
    assert group.get("weight_decay") == (0.034 if row.has_weight_decay else group.get("weight_decay"))
    assert group.get("momentum") == (0.56 if row.has_momentum else group.get("momentum"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stored_and_loaded_goes_on_the_same(make_settings: MakeSettings, name: str) -> None:
    settings = make_settings(optimizer_name=name)
    tiles = bright_squares()
    straight, first, second = small_step(settings), small_step(settings), small_step(settings)
    losses = [straight(tiles).item() for _ in range(6)]
    halves = [first(tiles).item() for _ in range(3)]
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    assert halves + [second(tiles).item() for _ in range(3)] == losses


def test_hyperparameters_come_from_the_settings_not_from_the_stored_state(make_settings: MakeSettings) -> None:
    tiles = bright_squares()
    earlier = small_step(make_settings(optimizer_name="SGD", momentum=0.5, weight_decay=0.1))
    earlier(tiles)
    later = small_step(make_settings(optimizer_name="SGD", momentum=0.9, weight_decay=0.0))
    load_optimizer_state(later.optimizer, earlier.optimizer.state_dict())
    (group,) = later.optimizer.param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.9, 0.0)
    assert any("momentum_buffer" in state for state in later.optimizer.state.values())


def test_fused_is_the_same_optimizer(make_settings: MakeSettings) -> None:
    tiles = bright_squares()
    fused = small_step(make_settings(optimizer_name="AdamW", learning_rate=1e-3))
    plain = small_step(make_settings(optimizer_name="AdamW", learning_rate=1e-3))
    plain.optimizer = torch.optim.AdamW(plain.model.parameters(), lr=1e-3, weight_decay=1e-2, fused=False)
    for _ in range(5):
        torch.testing.assert_close(fused(tiles), plain(tiles))


def test_gradients_are_clipped(make_settings: MakeSettings) -> None:
    def largest_change(clip: float) -> float:
        step = small_step(make_settings(optimizer_name="SGD", learning_rate=1.0, momentum=0.0, gradient_clip=clip))
        before = [parameter.detach().clone() for parameter in step.model.parameters()]
        step(bright_squares())
        changes = [(new - old).norm() for new, old in zip(step.model.parameters(), before, strict=True)]
        return float(torch.stack(changes).detach().norm())

    assert largest_change(1e-3) < 1.2e-3 < largest_change(0.0)


def test_warm_up_then_schedule(make_settings: MakeSettings) -> None:
    settings = make_settings(learning_rate=0.2, warmup_fraction=0.1, schedule="linear")
    course = [learning_rate(settings, step / 100) for step in range(101)]
    assert course[0] < 0.01
    assert course[10] == pytest.approx(0.2)
    assert course[:11] == sorted(course[:11])
    assert course[10:] == sorted(course[10:], reverse=True)
    assert course[100] == 0.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rate_is_never_above_the_one_given(make_settings: MakeSettings, schedule: str) -> None:
    settings = make_settings(learning_rate=0.2, schedule=schedule, warmup_fraction=0.0)
    assert all(0 <= learning_rate(settings, step / 50) <= 0.2 for step in range(51))


def test_set_learning_rate(make_settings: MakeSettings) -> None:
    optimizer = build_optimizer(make_settings(), [nn.Parameter(torch.zeros(1))])
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5]
