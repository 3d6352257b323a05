"""What the tests of the whole catalogue share: one step of ours, from settings, on the smallest legal tiles."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from tune_smp.choices.encoders import Encoder
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import build_model
from tune_smp.training.losses import build_loss
from tune_smp.training.optimizers import build_optimizer
from tune_smp.training.precision import Precision
from tune_smp.training.seeding import seeded
from tune_smp.training.step import Tiles, TrainingStep

CHANNELS = 3
LARGE = 60_000_000
"""Parameters from which two threads are faster than one, which has nobody to wait for."""

Train = Callable[..., nn.Module]


@pytest.fixture(scope="session", autouse=True)
def quick_collector() -> Iterator[None]:
    """What torch and timm have loaded stays: the collector need not look at it after each test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def memory_is_given_back() -> Iterator[None]:
    """The largest encoder holds 7 GB while it is trained: nothing of it may wait for the collector."""
    yield
    gc.collect()


@pytest.fixture
def train() -> Iterator[Train]:
    """Build this architecture with this encoder, make a step on each of these numbers of tiles; the trained model."""
    before = torch.get_num_threads()
    yield trained
    torch.set_num_threads(before)


def trained(architecture: str, encoder: Encoder, batches: Sequence[int], *, tile_size: int) -> nn.Module:
    """Nothing is read or written: the folders of the settings do not exist."""
    if encoder.unet_parameters < LARGE:
        torch.set_num_threads(1)
    settings = RunSettings(
        images_dir=Path("/none/images"),
        labels_dir=Path("/none/labels"),
        images_pattern=".*",
        labels_pattern=".*",
        output_dir=Path("/none/output"),
        segmentation_mode="binary",
        model_name=architecture,
        encoder_base_variant_weights=f"{encoder.family},{encoder.name},random",
        tile_size=tile_size,
        loss_name="SoftBCEWithLogitsLoss",
        # Without momentum: no further copy of 835 million numbers.
        optimizer_name="SGD",
        momentum=0.0,
        learning_rate=0.1,
        device="cpu",
    )
    with seeded(0, 0, torch.device("cpu")):
        model = build_model(settings, channels=CHANNELS, classes=1).train()
        step = TrainingStep(
            model,
            build_loss(settings),
            build_optimizer(settings, model.parameters()),
            row=settings.optimizer,
            precision=Precision(None),
            gradient_clip=settings.gradient_clip,
        )
        for count in batches:
            _one_step(step, random_tiles(count, tile_size))
    return model


def random_tiles(count: int, size: int) -> Tiles:
    """Noise in three channels, and where the first of them is bright."""
    images = torch.rand(count, CHANNELS, size, size)
    return Tiles(images.contiguous(memory_format=torch.channels_last), (images[:, :1] > 0.5).byte(), has_ignored=False)


def _one_step(step: TrainingStep, tiles: Tiles) -> None:
    """The step has a finite loss and finite gradients, and moves the model from its first layer to its last."""
    named = list(step.model.named_parameters())
    ends = [next(row for name, row in part if row.ndim == 4) for part in (named, reversed(named))]
    before = [row.detach().clone() for row in ends]
    loss = step(tiles)
    assert loss.isfinite()
    gradients = [row.grad for _, row in named if row.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients).isfinite()
    assert step.halvings == 0, step.notes
    for old, row in zip(before, ends, strict=True):
        assert not torch.equal(old, row)
        assert row.isfinite().all()
