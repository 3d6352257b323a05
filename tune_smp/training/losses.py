"""Losses from settings, and one rule for ignored pixels that holds for every one of them.

Every loss is one of smp's, or a sum of two, and takes logits. Three things are added here:

* Ignored pixels (255) are taken out *before* smp sees anything: the pixels that remain are laid out as one long image
  (1, K, P, 1). smp's losses sum over batch and pixels together, so they give the same value for the same pixels in any
  layout. smp's own ``ignore_index`` means something else in each loss (BCE divides by the ignored pixels too, Focal
  fails in multilabel mode).
* Multilabel is the mean over channels of the binary loss of each channel, so that a pixel can be ignored in one
  channel and count in another. That is what smp computes for Jaccard, Dice, Tversky, Focal and BCE; for Lovasz and MCC
  smp would throw the pixels of all channels together.
* Multiclass masks are given as one-hot float32 where smp would make int64 of them: the same number in half the time.

Batches: Focal, BCE and cross-entropy are means over pixels, so the mean over a data set, weighted by pixels, does not
depend on the batch size. Jaccard, Dice, Tversky, Lovasz and MCC are quotients of sums over a batch: their mean over a
data set does depend on how it is cut into batches, by their nature. Compare them at one batch size only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own habit
from torch import Tensor, nn

from tune_smp.data.labels import IGNORE
from tune_smp.settings.run import RunSettings

# smp's "multilabel" does what its "binary" does, for any number of channels.
_CHANNELS = "multilabel"


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How smp's loss is made and what it takes: logits or probabilities, masks as class numbers or one-hot."""

    make: Callable[[RunSettings], nn.Module]
    takes: Literal["logits", "probabilities"]
    masks: Literal["one-hot", "class numbers"] = "one-hot"


class _WithDice(nn.Module):
    """A weighted sum of smp's Dice loss and another of its losses. ``exclusive``: a pixel is of one class."""

    def __init__(self, other: nn.Module, dice_weight: float, *, exclusive: bool) -> None:
        super().__init__()
        self.dice = smp.losses.DiceLoss(_CHANNELS, from_logits=False)
        self.other = other
        self.dice_weight = dice_weight
        self.exclusive = exclusive

    def forward(self, logits: Tensor, masks: Tensor) -> Tensor:
        """``logits`` (N, K, H, W), ``masks`` likewise, one-hot."""
        dice: Tensor = self.dice(_probabilities(logits, exclusive=self.exclusive), masks)
        # smp's cross-entropy and focal loss of exclusive classes take class numbers.
        other: Tensor = self.other(logits, masks.argmax(dim=1) if self.exclusive else masks)
        return self.dice_weight * dice + (1 - self.dice_weight) * other


def _dice_with(make: Callable[[RunSettings], nn.Module], *, exclusive: bool = False) -> _Recipe:
    return _Recipe(lambda settings: _WithDice(make(settings), settings.dice_weight, exclusive=exclusive), "logits")


def _focal(settings: RunSettings) -> nn.Module:
    loss: nn.Module = smp.losses.FocalLoss(_CHANNELS, gamma=settings.focal_gamma)
    return loss


def _focal_of_classes(settings: RunSettings) -> nn.Module:
    loss: nn.Module = smp.losses.FocalLoss("multiclass", gamma=settings.focal_gamma)
    return loss


def _binary_cross_entropy(_: RunSettings) -> nn.Module:
    loss: nn.Module = smp.losses.SoftBCEWithLogitsLoss(ignore_index=None)
    return loss


def _cross_entropy(_: RunSettings) -> nn.Module:
    loss: nn.Module = smp.losses.SoftCrossEntropyLoss(smooth_factor=0.0, ignore_index=None)
    return loss


_RECIPES: Mapping[str, _Recipe] = {
    "JaccardLoss": _Recipe(lambda _: smp.losses.JaccardLoss(_CHANNELS, from_logits=False), "probabilities"),
    "DiceLoss": _Recipe(lambda _: smp.losses.DiceLoss(_CHANNELS, from_logits=False), "probabilities"),
    "TverskyLoss": _Recipe(
        lambda settings: smp.losses.TverskyLoss(
            _CHANNELS, from_logits=False, alpha=settings.tversky_alpha, beta=settings.tversky_beta
        ),
        "probabilities",
    ),
    "FocalLoss": _Recipe(_focal, "logits"),
    "LovaszLoss": _Recipe(lambda _: smp.losses.LovaszLoss("binary"), "logits"),
    "SoftBCEWithLogitsLoss": _Recipe(_binary_cross_entropy, "logits"),
    "MCCLoss": _Recipe(lambda _: smp.losses.MCCLoss(), "probabilities"),
    "DiceCELoss": _dice_with(_binary_cross_entropy),
    "DiceFocalLoss": _dice_with(_focal),
}

# Where several exclusive classes need another loss than several channels do.
_MULTICLASS_RECIPES: Mapping[str, _Recipe] = {
    "LovaszLoss": _Recipe(lambda _: smp.losses.LovaszLoss("multiclass"), "logits", "class numbers"),
    "SoftCrossEntropyLoss": _Recipe(_cross_entropy, "logits", "class numbers"),
    "DiceCELoss": _dice_with(_cross_entropy, exclusive=True),
    "DiceFocalLoss": _dice_with(_focal_of_classes, exclusive=True),
}


def build_loss(settings: RunSettings) -> SegmentationLoss:
    """The loss of these settings."""
    multiclass = settings.segmentation_mode == "multiclass"
    recipes = {**_RECIPES, **_MULTICLASS_RECIPES} if multiclass else _RECIPES
    recipe = recipes[settings.loss_name]
    return SegmentationLoss(recipe.make(settings), recipe, by_channel=not multiclass)


class SegmentationLoss:
    """A loss of logits and masks that leaves ignored pixels out. Always computed in float32."""

    def __init__(self, criterion: nn.Module, recipe: _Recipe, *, by_channel: bool) -> None:
        self.criterion = criterion
        self.recipe = recipe
        self.by_channel = by_channel

    def __call__(self, logits: Tensor, masks: Tensor, *, has_ignored: bool = True) -> Tensor:
        """The loss, a scalar; 0 with gradients of 0 where every pixel is ignored.

        ``logits`` (N, K, H, W); ``masks`` (N, K, H, W) of 0 and 1, or (N, 1, H, W) class numbers, uint8 with 255 =
        ignored. ``has_ignored`` False promises that there is no 255: nothing is looked for and nothing is copied. On a
        GPU, looking makes the host wait for the device.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            if not self.by_channel:
                return self._of_pixels(logits, masks, has_ignored=has_ignored)
            channels = range(logits.shape[1])
            losses = [
                self._of_pixels(logits[:, k : k + 1], masks[:, k : k + 1], has_ignored=has_ignored) for k in channels
            ]
            return torch.stack(losses).mean()

    def _of_pixels(self, logits: Tensor, masks: Tensor, *, has_ignored: bool) -> Tensor:
        """``logits`` (N, K, H, W), ``masks`` (N, 1, H, W)."""
        if has_ignored:
            logits, masks = _valid_pixels(logits, masks)
            if masks.numel() == 0:
                return logits.sum() * 0.0
        exclusive = logits.shape[1] > 1
        inputs = logits if self.recipe.takes == "logits" else _probabilities(logits, exclusive=exclusive)
        targets = masks[:, 0].long() if self.recipe.masks == "class numbers" else _one_hot(masks, logits.shape[1])
        loss: Tensor = self.criterion(inputs, targets)
        return loss


def _valid_pixels(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """The pixels that are not ignored, as (1, K, P, 1) and (1, 1, P, 1)."""
    # index_select: a third of the time of indexing with a boolean tensor, backward included.
    valid = (masks.flatten() != IGNORE).nonzero().squeeze(1)
    pixels = logits.movedim(1, -1).reshape(-1, logits.shape[1]).index_select(0, valid)  # (P, K)
    return pixels.t()[None, :, :, None], masks.flatten().index_select(0, valid)[None, None, :, None]


def _probabilities(logits: Tensor, *, exclusive: bool) -> Tensor:
    # Through the logarithm, as smp does: gradients do not vanish at very large logits.
    return (F.log_softmax(logits, dim=1) if exclusive else F.logsigmoid(logits)).exp()


def _one_hot(masks: Tensor, classes: int) -> Tensor:
    """(N, 1, H, W) class numbers → (N, classes, H, W) float32; one channel: as it is."""
    if classes == 1:
        return masks.float()
    numbers = torch.arange(classes, device=masks.device, dtype=masks.dtype).view(1, -1, 1, 1)
    return (masks == numbers).float()
