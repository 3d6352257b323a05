"""Going on from an earlier run, and loading exported models."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from tests.training.best import best_weights
from tune_smp.data.labels import Mode
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.errors import DataError
from tune_smp.settings.fields import flag_name
from tune_smp.settings.run import RunSettings
from tune_smp.training import checkpoint
from tune_smp.training.builders import build_model
from tune_smp.training.pretrained import describe_pretrained, load_earlier_run, load_exported
from tune_smp.training.run import TrainingRun

MakeSettings = Callable[..., RunSettings]
MakeStore = Callable[[Mode], ImageStore]
Regions = tuple[Region, ...]


def export(run: TrainingRun, folder: Path) -> Path:
    """The run's model as smp writes it."""
    settings = run.settings
    model: Any = build_model(settings, channels=run.shape.channels, classes=run.shape.classes, load_weights=False)
    model.load_state_dict(best_weights(run))
    model.save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module")
def earlier(make_settings: MakeSettings, make_store: MakeStore, regions: Regions) -> TrainingRun:
    """A run of two epochs."""
    run = TrainingRun(make_settings(max_epochs=2, steps_per_epoch=3), make_store("binary"), regions)
    run.run_epoch()
    run.run_epoch()
    return run


@pytest.fixture(scope="module")
def written(earlier: TrainingRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its output folder."""
    folder = tmp_path_factory.mktemp("earlier")
    checkpoint.save(earlier.state_dict(), folder / "checkpoint.pth")
    export(earlier, folder / "model")
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of its output folder."""
    return Path(shutil.copytree(written, tmp_path / "earlier"))


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_checkpoint_goes_on_with_weights_optimizer_and_epochs(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, earlier: TrainingRun, folder: Path
) -> None:
    settings = make_settings(pretrained_model=folder, max_epochs=2, steps_per_epoch=3)
    run = TrainingRun(settings, make_store("binary"), regions)
    assert run.notes == ()
    assert_same(run.model.state_dict(), earlier.model.state_dict())
    moments = run.state_dict()["optimizer"]["state"]
    assert moments
    assert torch.equal(moments[0]["exp_avg"], earlier.state_dict()["optimizer"]["state"][0]["exp_avg"])
    reports = [run.run_epoch() for _ in range(2)]
    assert [report["epoch"] for report in reports] == [3, 4]
    assert [report["stop"] for report in reports] == [None, "completed"]
    assert reports[0]["learning_rate"] > reports[1]["learning_rate"]  # a schedule of its own


def test_going_on_and_resumed_is_the_same_run(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, folder: Path
) -> None:
    settings = make_settings(pretrained_model=folder, max_epochs=3, steps_per_epoch=2)
    straight = TrainingRun(settings, make_store("binary"), regions)
    first = TrainingRun(settings, make_store("binary"), regions)
    losses = [straight.run_epoch()["val_loss"] for _ in range(3)]
    halves = [first.run_epoch()["val_loss"]]
    second = TrainingRun(settings, make_store("binary"), regions, state=first.state_dict())
    halves += [second.run_epoch()["val_loss"] for _ in range(2)]
    assert halves == losses
    assert second.stop == "completed"


def test_the_exported_model_alone_gives_its_weights(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, earlier: TrainingRun, folder: Path
) -> None:
    for path in (folder / "model", folder):
        (folder / "checkpoint.pth").unlink(missing_ok=True)
        run = TrainingRun(make_settings(pretrained_model=path), make_store("binary"), regions)
        assert_same(run.model.state_dict(), best_weights(earlier))
        assert run.epoch == 0
        assert not run.state_dict()["optimizer"]["state"]


def test_another_optimizer_starts_anew_and_it_is_told(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, folder: Path
) -> None:
    settings = make_settings(pretrained_model=folder, optimizer_name="SGD")
    run = TrainingRun(settings, make_store("binary"), regions)
    assert "SGD starts anew" in run.notes[0]
    assert run.run_epoch()["epoch"] == 3


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"model_name": "FPN"}, ("Linknet with tu-test_efficientnet", "FPN with tu-test_efficientnet")),
        (
            {"encoder_base_variant_weights": "ResNet,resnet18,random"},
            ("Linknet with tu-test_efficientnet", "Linknet with resnet18"),
        ),
        ({"segmentation_mode": "multilabel"}, ("1 classes out", "2 classes out", "--replaceHead")),
    ],
)
@pytest.mark.parametrize("part", ["", "model"])
def test_another_model_is_refused_naming_both(
    make_settings: MakeSettings,
    make_store: MakeStore,
    regions: Regions,
    folder: Path,
    changes: dict[str, str],
    names: tuple[str, ...],
    part: str,
) -> None:
    settings = make_settings(pretrained_model=folder / part, **changes)
    with pytest.raises(DataError) as raised:
        TrainingRun(settings, make_store(settings.segmentation_mode), regions)
    assert all(name in str(raised.value) for name in names)
    assert str(folder) in str(raised.value)


def test_the_head_can_be_replaced(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, earlier: TrainingRun, folder: Path
) -> None:
    settings = make_settings(pretrained_model=folder, replace_head=True, segmentation_mode="multilabel")
    run = TrainingRun(settings, make_store("multilabel"), regions)
    assert "new last layer for 2 classes" in run.notes[0]
    assert "starts anew" in run.notes[1]
    own, before = run.model.state_dict(), earlier.model.state_dict()
    kept = [name for name in own if not name.startswith("segmentation_head.")]
    assert len(kept) > 50
    assert all(torch.equal(own[name], before[name]) for name in kept)
    assert own["segmentation_head.0.weight"].shape[0] == 2
    assert run.run_epoch()["epoch"] == 3


def test_describe(folder: Path) -> None:
    for path in (folder, folder / "model"):
        choice = describe_pretrained(path)
        assert choice.model_name == "Linknet"
        assert choice.encoder_base_variant_weights == "Test,tu-test_efficientnet,random"


def test_load_exported(earlier: TrainingRun, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_exported(folder / "model")
    assert not model.training
    assert_same(model.state_dict(), best_weights(earlier))
    assert model(torch.rand(1, 1, 64, 64)).shape == (1, 1, 64, 64)
    assert capfd.readouterr().out == ""


def test_weights_named_in_the_configuration_are_not_fetched(folder: Path) -> None:
    edit_config(folder / "model", encoder_weights="imagenet")
    assert load_exported(folder / "model")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda model: (model / "config.json").unlink(), "config.json is missing"),
        (lambda model: (model / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda model: (model / "config.json").write_text("{"), "cannot be read"),
        (lambda model: (model / "config.json").write_text("[]"), "does not describe a model"),
        (lambda model: (model / "config.json").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
        (lambda model: (model / "model.safetensors").write_bytes(b""), "damaged"),
        (lambda model: (model / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      "), "do not fit"),
        (lambda model: edit_config(model, _model_class="from_pretrained"), "does not describe a model"),
        (lambda model: edit_config(model, in_channels=7), "do not fit"),
        (lambda model: edit_config(model, encoder_name="tu-nothing"), "do not fit"),
        (lambda model: edit_config(model, checkpoint_path="/etc/passwd"), "does not know: checkpoint_path"),
    ],
)
def test_damaged_or_foreign_exports_are_refused(folder: Path, damage: Callable[[Path], Any], reason: str) -> None:
    damage(folder / "model")
    with pytest.raises(DataError, match=reason) as raised:
        load_exported(folder / "model")
    assert str(folder / "model") in str(raised.value)


def test_a_half_copied_export_is_refused(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, folder: Path
) -> None:
    weights = folder / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    for action in (
        lambda: load_exported(folder / "model"),
        lambda: TrainingRun(make_settings(pretrained_model=folder / "model"), make_store("binary"), regions),
    ):
        with pytest.raises(DataError, match="damaged"):
            action()


def test_weights_of_another_model_under_a_fitting_configuration(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, folder: Path
) -> None:
    other: Any = build_model(make_settings(model_name="FPN"), channels=1, classes=1)
    other.save_pretrained(folder / "other")
    shutil.copy(folder / "other" / "model.safetensors", folder / "model")
    with pytest.raises(DataError, match="weights are missing"):
        TrainingRun(make_settings(pretrained_model=folder / "model"), make_store("binary"), regions)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no model here"):
        load_earlier_run(tmp_path)


def test_a_checkpoint_that_lacks_something_is_refused(tmp_path: Path) -> None:
    checkpoint.save({"epoch": 1}, tmp_path / "checkpoint.pth")
    with pytest.raises(DataError, match="lacks something"):
        load_earlier_run(tmp_path)


SHAPES = [
    {"model_name": "Unet", "encoder_depth": 3, "decoder_channels": 128, "decoder_attention": "scse"},
    {"model_name": "Unet", "decoder_channels": 24},
    {"model_name": "FPN", "decoder_channels": 64},
    {"model_name": "Linknet", "encoder_depth": 4},
]


@pytest.mark.parametrize("changes", SHAPES, ids=str)
@pytest.mark.parametrize("part", ["checkpoint.pth", "model"])
def test_depth_and_width_come_from_the_earlier_run(
    make_settings: MakeSettings,
    make_store: MakeStore,
    regions: Regions,
    tmp_path: Path,
    changes: dict[str, Any],
    part: str,
) -> None:
    settings = make_settings(max_epochs=1, steps_per_epoch=1, **changes)
    store = make_store("binary")
    run = TrainingRun(settings, store, regions)
    run.run_epoch()
    if part == "model":
        export(run, tmp_path / "model")
    else:
        checkpoint.save(run.state_dict(), tmp_path / part)
    described = dataclasses.asdict(describe_pretrained(tmp_path))
    assert {name: described[name] for name in changes} == changes
    del described["encoder_base_variant_weights"]
    adopted = make_settings(pretrained_model=tmp_path, **described)
    # Of parameters alone: a checkpoint has the running statistics of the last step, an export those that count.
    assert_same(dict(TrainingRun(adopted, store, regions).model.named_parameters()), dict(run.model.named_parameters()))
    plain = make_settings(pretrained_model=tmp_path, model_name=changes["model_name"])
    with pytest.raises(DataError, match="this run needs") as raised:
        TrainingRun(plain, store, regions)
    for name in changes.keys() - {"model_name"}:
        assert f"--{flag_name(name)} {changes[name]}" in str(raised.value)


def test_a_decoder_that_no_flag_asks_for_is_told_by_its_tensors(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path
) -> None:
    network = smp.Unet("tu-test_efficientnet", encoder_weights=None, in_channels=1, decoder_channels=(40, 30, 20, 9, 7))
    network.save_pretrained(tmp_path)
    settings = make_settings(model_name="Unet", pretrained_model=tmp_path)
    with pytest.raises(DataError, match="have other shapes"):
        TrainingRun(settings, make_store("binary"), regions)
