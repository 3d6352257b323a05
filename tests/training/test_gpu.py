"""What only a GPU shows. Run with ``pytest -m gpu`` where there is one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tune_smp.choices.augmentations import AUGMENTATIONS
from tune_smp.choices.losses import LOSSES
from tune_smp.choices.optimizers import OPTIMIZERS
from tune_smp.data.labels import Mode
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.errors import ResourceError
from tune_smp.settings.run import RunSettings
from tune_smp.training import checkpoint
from tune_smp.training.losses import build_loss
from tune_smp.training.metrics import PixelCounts
from tune_smp.training.run import TrainingRun
from tune_smp.training.step import Tiles

MakeSettings = Callable[..., RunSettings]
MakeStore = Callable[[Mode], ImageStore]
Regions = tuple[Region, ...]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.fixture
def little_memory() -> Iterator[Callable[[int], None]]:
    """Limits what this process may take of the GPU, in MiB."""

    def limit(mebibytes: int) -> None:
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(mebibytes * 2**20 / total)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16"])
def test_every_format_trains_and_resumes(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path, precision: str
) -> None:
    settings = make_settings(device="gpu", precision=precision, max_epochs=4, steps_per_epoch=6)
    run = TrainingRun(settings, make_store("binary"), regions)
    reports = [run.run_epoch() for _ in range(3)]
    assert all(math.isfinite(report["val_loss"]) for report in reports)
    assert reports[-1]["train_loss"] < reports[0]["train_loss"]
    checkpoint.save(run.state_dict(), tmp_path / "checkpoint.pth")
    again = TrainingRun(settings, make_store("binary"), regions, state=checkpoint.load(tmp_path / "checkpoint.pth"))
    assert next(again.model.parameters()).is_cuda
    assert again.run_epoch()["stop"] == "completed"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_makes_a_step(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, optimizer: str
) -> None:
    settings = make_settings(device="gpu", optimizer_name=optimizer, steps_per_epoch=2)
    assert math.isfinite(TrainingRun(settings, make_store("binary"), regions).run_epoch()["train_loss"])


@pytest.mark.parametrize("mode", ["binary", "multilabel", "multiclass"])
def test_the_same_losses_and_counts_as_on_the_cpu(make_settings: MakeSettings, mode: Mode) -> None:
    logits = torch.randn(4, 1 if mode == "binary" else 3, 32, 32)
    masks = torch.randint(0, 3 if mode == "multiclass" else 2, (4, 3 if mode == "multilabel" else 1, 32, 32))
    masks = masks.to(torch.uint8)
    masks[:, :, :5] = 255
    there, here = (PixelCounts(mode, logits.shape[1], torch.device(name)) for name in ("cuda", "cpu"))
    there.add_logits(logits.cuda(), masks.cuda())
    here.add_logits(logits, masks)
    # A sigmoid may differ in its last bit, and a pixel at the edge of a bin fall beside it.
    assert (there.counts.cpu() - here.counts).abs().sum() <= 4
    assert there.at() == here.at()
    for row in LOSSES.values():
        if mode in row.modes:
            loss = build_loss(make_settings(loss_name=row.name, segmentation_mode=mode))
            torch.testing.assert_close(loss(logits.cuda(), masks.cuda()).cpu(), loss(logits, masks))


@pytest.mark.parametrize("loss", ["JaccardLoss", "FocalLoss", "SoftBCEWithLogitsLoss", "LovaszLoss", "MCCLoss"])
def test_a_step_never_waits_for_the_device(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, loss: str
) -> None:
    settings = make_settings(device="gpu", precision="float32", loss_name=loss)
    run = TrainingRun(settings, make_store("binary"), regions)
    images = torch.rand(4, 1, 64, 64, device="cuda")
    tiles = Tiles(images, (images > 0.5).to(torch.uint8), has_ignored=False)
    run.step(tiles)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run.step(tiles)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_the_feed_never_waits_for_the_device(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, augmentation: str
) -> None:
    settings = make_settings(device="gpu", augmentation=augmentation, steps_per_epoch=3)
    run = TrainingRun(settings, make_store("binary"), regions)
    list(run.feed.training(1))
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(run.feed.training(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(batches) == 3 and all(tiles.images.is_cuda and tiles.masks.is_cuda for tiles in batches)


def test_the_batch_size_is_bounded_by_use_and_by_memory(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, little_memory: Callable[[int], None]
) -> None:
    settings = make_settings(device="gpu", batch_size=None, steps_per_epoch=2, tile_size=256, model_name="Unet")
    assert TrainingRun(settings, make_store("binary"), regions).batch_size == 64
    little_memory(1500)
    small = TrainingRun(settings, make_store("binary"), regions)
    assert small.batch_size < 64
    assert small.run_epoch()["stop"] is None
    assert small.notes == ()


def test_out_of_memory_is_met_by_pieces(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, little_memory: Callable[[int], None]
) -> None:
    settings = make_settings(
        device="gpu", precision="float32", batch_size=64, steps_per_epoch=2, tile_size=256, model_name="Unet"
    )
    little_memory(3000)
    run = TrainingRun(settings, make_store("binary"), regions)
    report = run.run_epoch()
    assert report["batch_size"] == 64
    assert "out of memory: a batch of 64 tiles is now worked off in pieces" in run.notes[0]
    little_memory(300)
    with pytest.raises(ResourceError, match="out of memory"):
        TrainingRun(settings, make_store("binary"), regions).run_epoch()
