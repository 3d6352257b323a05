"""Every loss, in every mode it is defined for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from tune_smp.choices.losses import LOSSES
from tune_smp.data.labels import IGNORE, Mode
from tune_smp.settings.run import RunSettings
from tune_smp.training.losses import build_loss

MakeSettings = Callable[..., RunSettings]
CASES: list[tuple[str, Mode]] = [
    (loss.name, mode)
    for loss in LOSSES.values()
    for mode in ("binary", "multilabel", "multiclass")
    if mode in loss.modes
]
CLASSES: dict[Mode, int] = {"binary": 1, "multilabel": 3, "multiclass": 3}
# Means over pixels: the mean over a data set does not depend on the batches.
OF_PIXELS = ("FocalLoss", "SoftBCEWithLogitsLoss", "SoftCrossEntropyLoss")


def example(mode: Mode, *, seed: int = 0, size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    classes = CLASSES[mode]
    logits = torch.randn(4, classes, size, size, generator=generator) * 3
    values, channels = (classes, 1) if mode == "multiclass" else (2, classes)
    masks = torch.randint(0, values, (4, channels, size, size), dtype=torch.uint8, generator=generator)
    return logits.requires_grad_(), masks


def value_and_gradient(loss: Any, logits: Tensor, masks: Tensor, **flags: bool) -> tuple[Tensor, Tensor]:
    value: Tensor = loss(logits, masks, **flags)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def contents(masks: Tensor) -> dict[str, Tensor]:
    """Masks as they may be."""
    all_ignored, half_ignored, first_ignored = masks.clone(), masks.clone(), masks.clone()
    all_ignored[:] = IGNORE
    half_ignored[:, :, :, ::2] = IGNORE
    first_ignored[:, 0] = IGNORE
    return {
        "mixed": masks,
        "background": torch.zeros_like(masks),
        "foreground": torch.ones_like(masks),
        "half ignored": half_ignored,
        "first channel ignored": first_ignored,
        "ignored": all_ignored,
    }


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_what_a_loss_is_listed_to_expect_is_what_it_is_given(
    name: str, mode: Mode, make_settings: MakeSettings
) -> None:
    loss = build_loss(make_settings(loss_name=name, segmentation_mode=mode))
    assert LOSSES[name].expects == loss.recipe.takes


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_finite_on_any_masks(make_settings: MakeSettings, name: str, mode: Mode) -> None:
    loss = build_loss(make_settings(loss_name=name, segmentation_mode=mode))
    for scale in (1.0, 1e-3, 100.0):
        logits, masks = example(mode)
        logits = (logits.detach() * scale).requires_grad_()
        for content, filled in contents(masks).items():
            value, gradient = value_and_gradient(loss, logits, filled)
            assert value.ndim == 0, content
            assert value.dtype == torch.float32
            assert value.isfinite(), content
            assert gradient.isfinite().all(), content


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_all_ignored_is_zero_with_a_graph(make_settings: MakeSettings, name: str, mode: Mode) -> None:
    loss = build_loss(make_settings(loss_name=name, segmentation_mode=mode))
    logits, masks = example(mode)
    value, gradient = value_and_gradient(loss, logits, torch.full_like(masks, IGNORE))
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_looking_for_ignored_pixels_where_there_are_none_changes_nothing(
    make_settings: MakeSettings, name: str, mode: Mode
) -> None:
    loss = build_loss(make_settings(loss_name=name, segmentation_mode=mode))
    logits, masks = example(mode)
    plain, plain_gradient = value_and_gradient(loss, logits, masks, has_ignored=False)
    masked, masked_gradient = value_and_gradient(loss, logits, masks, has_ignored=True)
    torch.testing.assert_close(masked, plain)
    torch.testing.assert_close(masked_gradient, plain_gradient)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_ignored_pixels_might_as_well_not_be_there(make_settings: MakeSettings, name: str, mode: Mode) -> None:
    loss = build_loss(make_settings(loss_name=name, segmentation_mode=mode))
    logits, masks = example(mode)
    ignored = masks.clone()
    ignored[..., 3:] = IGNORE
    value, gradient = value_and_gradient(loss, logits, ignored)
    cropped = logits[..., :3].detach().requires_grad_()
    expected, expected_gradient = value_and_gradient(loss, cropped, masks[..., :3], has_ignored=False)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[..., :3], expected_gradient)
    assert not gradient[..., 3:].any()


@pytest.mark.parametrize("name", [name for name, mode in CASES if mode == "multilabel"])
def test_a_pixel_ignored_in_one_channel_counts_in_the_others(make_settings: MakeSettings, name: str) -> None:
    logits, masks = example("multilabel")
    masks[:, 1, :4] = IGNORE
    masks[:, 2, :, 2:] = IGNORE
    value = build_loss(make_settings(loss_name=name, segmentation_mode="multilabel"))(logits, masks)
    binary = build_loss(make_settings(loss_name=name, segmentation_mode="binary"))
    alone = [binary(logits[:, k : k + 1], masks[:, k : k + 1]) for k in range(3)]
    torch.testing.assert_close(value, torch.stack(alone).mean())


def of_smp(name: str, mode: Mode) -> Callable[[Tensor, Tensor], Tensor]:
    """smp's loss as its documentation has it, on logits and uint8 masks without ignored pixels."""
    losses = smp.losses
    plain = {"JaccardLoss": losses.JaccardLoss, "DiceLoss": losses.DiceLoss, "LovaszLoss": losses.LovaszLoss}
    made: Any
    if name in plain:
        made = plain[name](mode)
    elif name == "TverskyLoss":
        made = losses.TverskyLoss(mode, alpha=0.3, beta=0.7)
    elif name in ("FocalLoss", "DiceFocalLoss"):
        made = losses.FocalLoss(mode, gamma=1.5)
    elif name == "DiceCELoss":
        multiclass = mode == "multiclass"
        made = losses.SoftCrossEntropyLoss(smooth_factor=0.0) if multiclass else losses.SoftBCEWithLogitsLoss()
    elif name == "SoftCrossEntropyLoss":
        made = losses.SoftCrossEntropyLoss(smooth_factor=0.0)
    elif name == "SoftBCEWithLogitsLoss":
        made = losses.SoftBCEWithLogitsLoss()
    else:
        made = losses.MCCLoss()

    def loss(logits: Tensor, masks: Tensor) -> Tensor:
        numbers = masks[:, 0].long()
        one_hot = torch.nn.functional.one_hot(numbers, 3).movedim(-1, 1).float() if mode == "multiclass" else None
        if name == "MCCLoss":
            probabilities = logits.sigmoid() if one_hot is None else logits.softmax(dim=1)
            value: Tensor = made(probabilities, masks.float() if one_hot is None else one_hot)
        elif name == "SoftBCEWithLogitsLoss":
            value = made(logits, masks.float() if one_hot is None else one_hot)
        else:
            value = made(logits, numbers if mode == "multiclass" else masks.float())
        if name.startswith("Dice") and name != "DiceLoss":
            dice = losses.DiceLoss(mode)(logits, numbers if mode == "multiclass" else masks.float())
            value = 0.3 * dice + 0.7 * value
        return value

    return loss


@pytest.mark.parametrize(
    ("name", "mode"), [case for case in CASES if case not in (("LovaszLoss", "multilabel"), ("MCCLoss", "multilabel"))]
)
def test_the_same_number_as_smp(make_settings: MakeSettings, name: str, mode: Mode) -> None:
    numbers: dict[str, dict[str, float]] = {
        "TverskyLoss": {"tversky_alpha": 0.3, "tversky_beta": 0.7},
        "FocalLoss": {"focal_gamma": 1.5},
        "DiceCELoss": {"dice_weight": 0.3},
        "DiceFocalLoss": {"dice_weight": 0.3, "focal_gamma": 1.5},
    }
    loss = build_loss(make_settings(loss_name=name, segmentation_mode=mode, **numbers.get(name, {})))
    logits, masks = example(mode, size=16)
    value, gradient = value_and_gradient(loss, logits, masks)
    expected, expected_gradient = value_and_gradient(of_smp(name, mode), logits, masks)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize(("name", "mode"), [case for case in CASES if case[0] in OF_PIXELS])
def test_means_over_pixels_do_not_depend_on_batches(make_settings: MakeSettings, name: str, mode: Mode) -> None:
    loss = build_loss(make_settings(loss_name=name, segmentation_mode=mode))
    logits, masks = example(mode)
    masks[:, :, 0, 0] = IGNORE
    masks[0, :, 2:] = IGNORE
    parts = [(loss(logits[part], masks[part]), (masks[part] != IGNORE).sum()) for part in (slice(0, 1), slice(1, 4))]
    mean = sum(value * pixels for value, pixels in parts) / sum(pixels for _, pixels in parts)
    torch.testing.assert_close(mean, loss(logits, masks))


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_float32_under_autocast(make_settings: MakeSettings, name: str, mode: Mode) -> None:
    loss = build_loss(make_settings(loss_name=name, segmentation_mode=mode))
    logits, masks = example(mode)
    rounded = logits.detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(rounded, masks)
    torch.testing.assert_close(value, loss(rounded.float(), masks), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_perfect_logits_cost_less_than_wrong_ones(make_settings: MakeSettings, name: str, mode: Mode) -> None:
    loss = build_loss(make_settings(loss_name=name, segmentation_mode=mode))
    _, masks = example(mode)
    one_hot = masks == torch.arange(3).view(1, 3, 1, 1) if mode == "multiclass" else masks == 1
    perfect = torch.where(one_hot, 8.0, -8.0)
    assert loss(perfect, masks) < 0.05
    assert loss(-perfect, masks) > 0.5
