"""The batch size where none was chosen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tune_smp.data.labels import Mode
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.settings.run import RunSettings
from tune_smp.training import batch_size
from tune_smp.training.batch_size import measure_batch_size, power_of_two, useful_batch_size
from tune_smp.training.builders import build_model
from tune_smp.training.losses import build_loss
from tune_smp.training.optimizers import build_optimizer
from tune_smp.training.precision import Precision
from tune_smp.training.run import TrainingRun
from tune_smp.training.step import Tiles, TrainingStep
from tune_smp.training.step_memory import FOLDER, StepMemory

MakeSettings = Callable[..., RunSettings]
MakeStore = Callable[[Mode], ImageStore]
TILE = Tiles(torch.rand(1, 1, 64, 64), torch.ones(1, 1, 64, 64, dtype=torch.uint8), has_ignored=True)


@pytest.mark.parametrize(
    ("tiles", "steps_per_epoch", "device", "expected"),
    [
        (10_000, None, "cuda", 64),
        (10_000, None, "cpu", 16),
        (512, None, "cuda", 32),
        (160, None, "cpu", 10),
        (3, None, "cuda", 4),  # batch normalisation wants some, and every batch is full
        (3, 40, "cpu", 16),  # the steps are fixed anyway
    ],
)
def test_useful(tiles: int, steps_per_epoch: int | None, device: str, expected: int) -> None:
    assert useful_batch_size(tiles=tiles, steps_per_epoch=steps_per_epoch, device_type=device) == expected


@given(st.integers(64, 10**6), st.sampled_from(["cpu", "cuda"]))
def test_an_epoch_keeps_its_steps(tiles: int, device: str) -> None:
    size = power_of_two(useful_batch_size(tiles=tiles, steps_per_epoch=None, device_type=device))
    assert tiles / size >= batch_size.STEPS_PER_EPOCH


@given(st.integers(-5, 10**6))
def test_power_of_two(limit: int) -> None:
    size = power_of_two(limit)
    assert size & (size - 1) == 0
    assert size <= max(1, limit) < 2 * size


def maker(settings: RunSettings) -> Callable[[nn.Module], TrainingStep]:
    def make(model: nn.Module) -> TrainingStep:
        return TrainingStep(
            model,
            build_loss(settings),
            build_optimizer(settings, model.parameters()),
            row=settings.optimizer,
            precision=Precision(None),
            gradient_clip=1.0,
        )

    return make


def test_measuring_disturbs_nothing(make_settings: MakeSettings, tmp_path: Path) -> None:
    settings = make_settings()
    model = build_model(settings, channels=1, classes=1).train()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    memory = StepMemory(tmp_path, {})
    assert measure_batch_size(maker(settings), model, tile=TILE, most=13, memory=memory) == 8
    assert torch.equal(torch.rand(2), expected)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_less_memory_means_smaller_batches(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = make_settings()
    model = build_model(settings, channels=1, classes=1)

    def size_with(megabytes: float) -> int:
        monkeypatch.setattr(batch_size, "available_memory", lambda: int(megabytes * 2**20))
        return measure_batch_size(maker(settings), model, tile=TILE, most=16, memory=StepMemory(tmp_path, {}))

    sizes = [size_with(megabytes) for megabytes in (0, 20, 60, 100_000)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert len(set(sizes)) >= 3
    assert sizes[-1] == 16


def test_what_is_known_is_not_measured_again(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = build_model(make_settings(), channels=1, classes=1)

    def measured(network: str) -> int:
        memory = StepMemory(tmp_path, {"network": network})
        return measure_batch_size(maker(make_settings()), model, tile=TILE, most=16, memory=memory)

    first = measured("this one")
    counted = Mock(wraps=batch_size._activation_bytes)
    monkeypatch.setattr(batch_size, "_activation_bytes", counted)
    assert measured("this one") == first
    assert counted.call_count == 0
    assert measured("another") == first
    assert counted.call_count == 1


def test_runs_of_one_network_share_what_was_measured_and_those_of_another_do_not(
    make_settings: MakeSettings, make_store: MakeStore, regions: tuple[Region, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store("binary")
    counted = Mock(wraps=batch_size._activation_bytes)
    monkeypatch.setattr(batch_size, "_activation_bytes", counted)

    def number_of_counts(**flags: object) -> int:
        counted.reset_mock()
        TrainingRun(make_settings(batch_size=None, **flags), store, regions)
        return int(counted.call_count)

    assert number_of_counts() == 1
    assert number_of_counts(learning_rate=0.1, seed=7) == 0
    assert number_of_counts(tile_size=96) == 1
    assert number_of_counts(optimizer_name="LBFGS", gradient_clip=0.0) == 1


def test_step_memory_knows_what_was_measured_alone(tmp_path: Path) -> None:
    memory = StepMemory(tmp_path, {"network": 1})
    memory.note_taken(4, 1000)
    for again in (memory, StepMemory(tmp_path, {"network": 1})):
        assert (again.taken(4), again.taken(8)) == (1000, None)
    assert StepMemory(tmp_path, {"network": 2}).taken(4) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"[1, 2]", b'{"4": "x"}', b"\xff"])
def test_a_damaged_note_counts_as_none(tmp_path: Path, content: bytes) -> None:
    StepMemory(tmp_path, {}).note_taken(4, 1000)
    (file,) = (tmp_path / FOLDER).iterdir()
    file.write_bytes(content)
    memory = StepMemory(tmp_path, {})
    assert memory.taken(4) is None
    memory.note_taken(4, 2000)
    assert StepMemory(tmp_path, {}).taken(4) == 2000


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / FOLDER).touch()  # a file where the folder should be: root may write anywhere else
    memory = StepMemory(tmp_path, {})
    memory.note_taken(4, 1000)
    assert memory.taken(4) == 1000


def test_activations_are_counted(make_settings: MakeSettings) -> None:
    # Each of the four ReLUs keeps its own output for the backward pass, the convolution its input too.
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.ReLU())
    step = maker(make_settings(loss_name="SoftBCEWithLogitsLoss"))(model)
    kept = batch_size._activation_bytes(step, TILE.repeated(2))
    plane = 2 * 64 * 64 * 4  # bytes of one float32 channel of two tiles
    assert 3 * plane <= kept <= 12 * plane


def test_a_run_measures_and_keeps_its_batch_size(
    make_settings: MakeSettings, make_store: MakeStore, regions: tuple[Region, ...]
) -> None:
    run = TrainingRun(make_settings(batch_size=None), make_store("binary"), regions)
    assert run.batch_size == 4  # 24 tiles: 16 steps would be of one tile
    long_epochs = TrainingRun(make_settings(batch_size=None, steps_per_epoch=9), make_store("binary"), regions)
    assert long_epochs.batch_size == 16
    state = run.state_dict()
    again = TrainingRun(make_settings(batch_size=None, steps_per_epoch=9), make_store("binary"), regions, state=state)
    assert again.batch_size == 4
