"""Adding a loss, a format, a scheduler, a sampler, a tracker: by registration, as CONTRIBUTING.md says, and no more."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from ray.tune.schedulers import FIFOScheduler
from torch import nn
from typing_extensions import override

from tests.epochs import epoch_result
from tune_smp.choices import losses, samplers, schedulers
from tune_smp.choices.losses import Loss
from tune_smp.choices.schedulers import SchedulerChoice
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.reading import formats
from tune_smp.data.reading.image_reader import ImageFormat, ImageInfo, ImageReader
from tune_smp.data.store.build import StoreRequest, build_store
from tune_smp.data.store.image_store import ImageStore
from tune_smp.training import losses as recipes
from tune_smp.tuning import pruning
from tune_smp.tuning.listeners import EpochResult, Listener
from tune_smp.tuning.trial_record import TrialRecord


class RawReader(ImageReader):
    """Files of a made-up format: the letters RAW1, height and width in a byte each, and the pixels."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        height, width = content[4], content[5]
        self._pixels = np.frombuffer(content[6:], np.uint8).reshape(height, width)
        super().__init__(path, ImageInfo(1, height, width, 1, np.dtype(np.uint8)))

    @override
    def close(self) -> None:
        pass

    @override
    def _region(self, plane: int, y: slice, x: slice) -> NDArray[Any]:
        return self._pixels[None, y, x]


def test_a_format_is_a_reader_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = ImageFormat("raw", (".raw1",), lambda path, _: RawReader(path), (b"RAW1",))
    monkeypatch.setitem(formats.FORMATS, "raw", row)
    pixels = np.random.default_rng(0).integers(0, 255, (4, 2, 40, 50), dtype=np.uint8)
    for number, (image, label) in enumerate(pixels):
        for kind, content in (("images", image), ("labels", (label > 127).astype(np.uint8))):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"{number}.raw1").write_bytes(b"RAW1" + bytes(content.shape) + content.tobytes())
    collection = find_pairs(tmp_path, tmp_path, images_pattern=".*", labels_pattern=".*")
    assert [pair.name for pair in collection.pairs] == [f"{number}.raw1" for number in range(4)]
    (tmp_path / "store").mkdir()
    build_store(tmp_path / "store", request=StoreRequest(collection, "binary"))
    store = ImageStore.open(tmp_path / "store")
    for number, (image, label) in enumerate(pixels):
        np.testing.assert_array_equal(store.image(number)[0], image)
        np.testing.assert_array_equal(store.mask(number)[0], label > 127)


class BrierLoss(nn.Module):
    def forward(self, probabilities: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return ((probabilities - masks) ** 2).mean()


def test_a_loss_is_a_row_and_a_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Loss("BrierLoss", "mean squared error of probabilities", expects="probabilities")
    monkeypatch.setattr(losses, "LOSSES", {**losses.LOSSES, "BrierLoss": row})
    recipe = recipes._Recipe(lambda _: BrierLoss(), "probabilities")
    monkeypatch.setattr(recipes, "_RECIPES", {**recipes._RECIPES, "BrierLoss": recipe})
    loss = recipes.build_loss(SimpleNamespace(segmentation_mode="binary", loss_name="BrierLoss"))  # type: ignore[arg-type]
    masks = torch.ones(1, 1, 4, 4, dtype=torch.uint8)
    assert float(loss(torch.zeros(1, 1, 4, 4), masks)) == pytest.approx(0.25)


def test_a_scheduler_is_a_row_and_a_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    class Patient(FIFOScheduler):
        pass

    row = SchedulerChoice("patient", "waits", "nobody")
    monkeypatch.setattr(schedulers, "SCHEDULERS", {**schedulers.SCHEDULERS, "patient": row})
    monkeypatch.setitem(pruning.BUILDERS, "patient", lambda *_: Patient())
    built = pruning.build_scheduler("patient", most_epochs=9, grace_period=1, reduction_factor=3.0)
    assert type(built) is Patient


def test_every_row_has_its_builder() -> None:
    from tune_smp.tuning.sampler import build_sampler

    assert pruning.BUILDERS.keys() == schedulers.SCHEDULERS.keys()
    for name in samplers.SAMPLERS:
        build_sampler(name, seed=0, concurrency=2)


def test_a_tracker_overrides_what_it_wants_to_hear() -> None:
    class Tracker(Listener):
        def __init__(self) -> None:
            self.seen: list[tuple[int, int]] = []

        @override
        def epoch_ended(self, number: int, result: EpochResult) -> None:
            self.seen.append((number, result["epoch"]))

    tracker = Tracker()
    tracker.started(0, {}, 3)
    tracker.epoch_ended(0, epoch_result())
    tracker.requeued(0)
    tracker.trial_ended(TrialRecord(0, "completed", {}, 3), "")
    tracker.stopping()
    tracker.search_ended("completed")
    assert tracker.seen == [(0, 1)]
