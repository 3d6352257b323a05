"""Going on from a folder that the original WIPP plugin wrote: its tensors, its optimizer, its epochs; or the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tune_smp.choices.encoders import ENCODERS
from tune_smp.choices.optimizers import OPTIMIZERS
from tune_smp.data.labels import Mode
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.errors import DataError
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import ModelShape, build_model
from tune_smp.training.pretrained import (
    EarlierTraining,
    adopt_weights,
    check_fits,
    describe_pretrained,
    load_earlier_run,
    optimizer_state,
)
from tune_smp.training.run import TrainingRun

MakeSettings = Callable[..., RunSettings]
MakeStore = Callable[[Mode], ImageStore]

# Architecture, encoder, and a tensor's name of then with that of today, as found in files that the plugin wrote.
NAMES = [
    ("Unet", "mobilenet_v2", "encoder.features.0.0.weight", "encoder.features.0.0.weight"),
    ("FPN", "timm-regnetx_002", "encoder.s1.b1.conv1.conv.weight", "encoder.model.s1.b1.conv1.conv.weight"),
    ("Linknet", "timm-gernet_s", "encoder.stages.0.0.conv1_kxk.bn.bias", "encoder.model.stages_0.0.conv1_kxk.bn.bias"),
    ("Unet", "timm-mobilenetv3_small_075", "encoder.model.conv_stem.weight", "encoder.model.conv_stem.weight"),
    ("DeepLabV3", "mobilenet_v2", "decoder.0.convs.0.0.weight", "decoder.aspp.convs.0.0.weight"),
    ("PSPNet", "timm-regnetx_002", "encoder.stem.conv.weight", "encoder.model.stem.conv.weight"),
]
BY_NAME = ("architecture", "encoder", "then", "today")


def name_then(name: str, encoder: str) -> str:
    """The inverse of what the program does, for these encoders."""
    for place, part in (
        ("decoder.0.", "decoder.aspp."),
        ("decoder.1.", "decoder.conv."),
        ("decoder.2.", "decoder.bn."),
    ):
        name = name.replace(part, place) if "mobilenet_v2" in encoder else name
    if "mobilenetv3" in encoder:
        return name
    return name.replace("encoder.model.", "encoder.").replace("stages_", "stages.")


def a_model(architecture: str, encoder: str, *, channels: int = 1, classes: int = 1) -> nn.Module:
    import segmentation_models_pytorch as smp

    torch.manual_seed(3)
    name = ENCODERS[encoder].smp_name
    model: nn.Module = smp.create_model(architecture, name, None, in_channels=channels, classes=classes)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) if tensor.is_floating_point() else torch.tensor(5))
    return model


def content_of(model: nn.Module, architecture: str, encoder: str, **changes: Any) -> dict[str, Any]:
    """What the plugin put into its checkpoint for this model."""
    optimizer = torch.optim.Adam(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    learnt = optimizer.state_dict()
    for values in learnt["state"].values():
        values["step"] = int(values["step"])  # as torch did then
    return {
        "model_name": architecture,
        "encoder_variant": encoder,
        "encoder_weights": "imagenet",
        "optimizer_name": "Adam",
        "final_epoch": 7,
        "model_state_dict": {name_then(name, encoder): tensor for name, tensor in model.state_dict().items()},
        "optimizer_state_dict": learnt,
        **changes,
    }


def write(folder: Path, content: Any, **how: Any) -> Path:
    """The plugin's output folder."""
    folder.mkdir(exist_ok=True)
    torch.save(content, folder / "checkpoint.pth", **how)
    (folder / "config.json").write_text('{"modelName": "Unet", "encoderBase": "ResNet"}')
    return folder


def shape_of(architecture: str, encoder: str, *, channels: int = 1, classes: int = 1) -> ModelShape:
    return ModelShape(architecture, ENCODERS[encoder].smp_name, channels, classes)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(BY_NAME, NAMES)
def test_tensors_go_where_they_belong(architecture: str, encoder: str, then: str, today: str, tmp_path: Path) -> None:
    model = a_model(architecture, encoder, channels=2, classes=3)
    content = content_of(model, architecture, encoder)
    if architecture == "PSPNet":  # encoders of then had all their stages
        content["model_state_dict"]["encoder.s4.b1.conv1.conv.weight"] = torch.rand(3, 3)
    assert then in content["model_state_dict"]
    earlier = load_earlier_run(write(tmp_path / "old", content))
    assert str(earlier.shape) == f"{architecture} with {encoder}, 2 channels in, 3 classes out"
    other = deepcopy(model)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    notes = adopt_weights(other, earlier.shape, earlier)
    assert "original WIPP plugin" in notes[0]
    assert torch.equal(other.state_dict()[today], content["model_state_dict"][then])
    assert_same(other.state_dict(), model.state_dict())
    choice = describe_pretrained(tmp_path / "old")
    assert choice.model_name == architecture
    assert choice.encoder_base_variant_weights == f"{ENCODERS[encoder].family},{encoder},random"


def test_the_older_file_format_of_torch(tmp_path: Path) -> None:
    model = a_model("Unet", "mobilenet_v2")
    content = content_of(model, "Unet", "mobilenet_v2")
    earlier = load_earlier_run(write(tmp_path / "old", content, _use_new_zipfile_serialization=False))
    assert_same(dict(earlier.weights), model.state_dict())


def test_a_run_goes_on(
    make_settings: MakeSettings, make_store: MakeStore, regions: tuple[Region, ...], tmp_path: Path
) -> None:
    encoder = "timm-mobilenetv3_small_075"
    settings = make_settings(model_name="Unet", encoder_base_variant_weights=f"MobileNet,{encoder},random")
    model = build_model(settings, channels=1, classes=1)
    folder = write(tmp_path / "old", content_of(model, "Unet", encoder))
    settings = settings.with_changes(pretrained_model=folder, optimizer_name="Adam", steps_per_epoch=1, max_epochs=2)
    run = TrainingRun(settings, make_store("binary"), regions)
    assert_same(run.model.state_dict(), model.state_dict())
    learnt = run.state_dict()["optimizer"]["state"]
    assert len(learnt) == len(list(model.parameters()))
    assert all(float(values["step"]) == 1 for values in learnt.values())
    assert not [note for note in run.notes if "starts anew" in note]
    assert [run.run_epoch()["epoch"], run.run_epoch()["epoch"]] == [8, 9]
    assert run.stop == "completed"
    assert float(run.state_dict()["optimizer"]["state"][0]["step"]) == 3
    anew = TrainingRun(settings.with_changes(optimizer_name="SGD"), make_store("binary"), regions)
    assert "SGD starts anew" in anew.notes[-1]
    assert anew.epoch == 7


class Net(nn.Module):
    """Two layers, a and b, registered in the order in which they are named here."""

    def __init__(self, *order: str) -> None:
        super().__init__()
        for name in order:
            self.add_module(name, nn.Linear(3, 4) if name == "a" else nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.get_submodule("b")(self.get_submodule("a")(x))
        return logits


@pytest.mark.parametrize("name", [row for row in OPTIMIZERS if row != "SparseAdam"])
def test_what_the_optimizer_learnt_follows_the_names(name: str) -> None:
    kind = getattr(torch.optim, name)
    then, today, inputs = Net("a", "b"), Net("b", "a"), torch.rand(5, 3)
    today.load_state_dict(then.state_dict())
    before = kind(then.parameters(), lr=0.01)
    after = kind(today.parameters(), lr=0.01)

    def step(model: nn.Module, optimizer: Any) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = model(inputs).square().mean()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimizer.step(closure)

    step(then, before)
    step(then, before)
    today.load_state_dict(then.state_dict())
    names = tuple(name for name, _ in then.named_parameters())
    state = optimizer_state(today, EarlierTraining(7, name, deepcopy(before.state_dict()), names))
    if name == "LBFGS":
        assert state is None, "it remembers all parameters in one row"
        return
    assert state is not None
    after.load_state_dict({"state": state["state"], "param_groups": after.state_dict()["param_groups"]})
    step(then, before)
    step(today, after)
    for parameter_name, parameter in today.named_parameters():
        torch.testing.assert_close(parameter, then.get_parameter(parameter_name))


def test_an_optimizer_of_another_network_is_not_taken() -> None:
    state = {"state": {0: {"step": 1, "exp_avg": torch.zeros(9)}}, "param_groups": []}
    names = tuple(name for name, _ in Net("a", "b").named_parameters())
    assert optimizer_state(Net("a", "b"), EarlierTraining(1, "Adam", state, names)) is None
    beyond = {"state": {99: {"step": 1}}, "param_groups": []}
    assert optimizer_state(Net("a", "b"), EarlierTraining(1, "Adam", beyond, names)) is None
    assert optimizer_state(Net("a", "b"), EarlierTraining(1, "Adam", {}, names)) is None


# What is refused


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """A small checkpoint of the plugin, to be spoiled."""
    return content_of(a_model("Unet", "mobilenet_v2"), "Unet", "mobilenet_v2")


def refusal(folder: Path, shape: ModelShape | None = None) -> str:
    with pytest.raises(DataError) as raised:
        earlier = load_earlier_run(folder)
        check_fits(shape or shape_of("Unet", "mobilenet_v2"), earlier, replace_head=False)
    assert str(folder) in str(raised.value)
    return str(raised.value)


def tensors(content: dict[str, Any], **changes: Tensor | None) -> dict[str, Any]:
    """The checkpoint with tensors put in, or left out where None is given."""
    kept = {**content["model_state_dict"], **{name.replace("__", "."): t for name, t in changes.items()}}
    return {**content, "model_state_dict": {name: tensor for name, tensor in kept.items() if tensor is not None}}


def test_tensors_that_do_not_fit_are_named(content: dict[str, Any], tmp_path: Path) -> None:
    spoiled = tensors(
        content,
        encoder__features__1__conv__0__0__weight=None,
        encoder__bn2__bias=torch.zeros(3),
        decoder__blocks__0__conv1__0__weight=torch.zeros(1, 2, 3, 3),
    )
    said = refusal(write(tmp_path / "old", spoiled))
    assert "1 weights are missing (encoder.features.1.conv.0.0.weight)" in said
    assert "1 weights are not of this model (encoder.bn2.bias)" in said
    assert "1 weights have other shapes (decoder.blocks.0.conv1.0.weight (1, 2, 3, 3) for (" in said


def test_networks_that_are_others_today(content: dict[str, Any], tmp_path: Path) -> None:
    dilated = {**content, "model_name": "PAN", "encoder_variant": "timm-regnetx_002"}
    assert "PAN with timm-regnetx_002 dilates its encoder otherwise today" in refusal(write(tmp_path / "a", dilated))
    for unknown in ({"encoder_variant": "resnet19"}, {"model_name": "Unet3"}):
        assert "which tune-smp does not have" in refusal(write(tmp_path / "b", {**content, **unknown}))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_state_dict": None},
        {"model_state_dict": {}},
        {"model_state_dict": {"encoder.a": 1}},
        {"model_state_dict": {1: 2}},
        {"final_epoch": "many"},
        {"optimizer_state_dict": 5},
    ],
    ids=str,
)
def test_checkpoints_that_lack_something(changes: dict[str, Any], content: dict[str, Any], tmp_path: Path) -> None:
    assert "lacks something" in refusal(write(tmp_path / "old", {**content, **changes}))


def test_other_channels_and_classes(content: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "old", content)
    for shape in (shape_of("Unet", "mobilenet_v2", channels=3), shape_of("Unet", "mobilenet_v2", classes=2)):
        said = refusal(folder, shape)
        assert "Unet with mobilenet_v2, 1 channels in, 1 classes out" in said
        assert str(shape) in said


def test_a_half_copy(content: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "old", content)
    whole = (folder / "checkpoint.pth").read_bytes()
    (folder / "checkpoint.pth").write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refusal(folder)


class Malicious:
    """Pickled code: to read it is to run it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("place", ["optimizer_state_dict", "final_epoch", "model_state_dict"])
def test_nothing_in_a_checkpoint_is_executed(place: str, content: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "old", {**content, place: Malicious(tmp_path / "executed")})
    assert "nothing in it was executed" in refusal(folder)
    assert not (tmp_path / "executed").exists()


def test_a_whole_module_is_not_opened(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    torch.save(Malicious(tmp_path / "executed"), folder / "model.pth")
    (folder / "config.json").write_text('{"modelName": "Unet"}')
    said = refusal(folder)
    assert "model.pth" in said
    assert "whole module" in said
    assert "checkpoint.pth of the same run" in said
    assert not (tmp_path / "executed").exists()
