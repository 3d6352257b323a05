"""Models from settings, weights from cache or hub, and errors of others that become ours."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from tune_smp.choices.encoders import ENCODERS
from tune_smp.errors import DataError, ResourceError, SettingsError
from tune_smp.settings.run import RunSettings
from tune_smp.training import weights
from tune_smp.training.builders import ModelShape, build_model
from tune_smp.training.weights import fetch_weights

MakeSettings = Callable[..., RunSettings]
RESNET = "ResNet,resnet18,imagenet"
TIMM = "MobileNet,timm-mobilenetv3_small_100,imagenet"


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub's client with nothing in it."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's address is one where nothing listens."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    url = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)


def put_into_cache(cache: Path, repository: str, revision: str, files: dict[str, bytes]) -> None:
    """Lay files out as the hub's client does."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)


def resnet_repository() -> tuple[str, str]:
    settings = smp.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
    return settings["repo_id"], settings["revision"]


@pytest.mark.parametrize("choice", [RESNET, TIMM])
def test_without_cache_and_hub_it_fails_in_seconds_with_ways_out(
    make_settings: MakeSettings, empty_cache: Path, no_hub: None, choice: str
) -> None:
    settings = make_settings(encoder_base_variant_weights=choice)
    started = time.monotonic()
    with pytest.raises(ResourceError) as raised:
        build_model(settings, channels=1, classes=1)
    assert time.monotonic() - started < 8
    said = str(raised.value)
    assert choice in said
    assert choice.replace("imagenet", "random") in said
    assert all(word in said for word in ("copy the cache", "HF_HOME", str(empty_cache), "127.0.0.1:9"))
    assert not constants.HF_HUB_OFFLINE  # as it was


def test_the_user_may_be_offline_on_purpose(
    make_settings: MakeSettings, empty_cache: Path, no_hub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ResourceError, match="offline mode is enabled"):
        build_model(make_settings(encoder_base_variant_weights=RESNET), channels=1, classes=1)
    assert constants.HF_HUB_OFFLINE


def test_cached_weights_need_no_hub(
    make_settings: MakeSettings, empty_cache: Path, no_hub: None, tmp_path: Path
) -> None:
    encoder = smp.encoders.get_encoder("resnet18", weights=None)
    state = {name: torch.full_like(tensor, 0.5) for name, tensor in encoder.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    files = {"config.json": json.dumps({"mean": [0, 0, 0]}).encode(), "model.safetensors": content}
    put_into_cache(empty_cache, *resnet_repository(), files)
    model = build_model(make_settings(encoder_base_variant_weights=RESNET), channels=3, classes=1)
    weight = model.state_dict()["encoder.layer1.0.conv1.weight"]
    assert torch.equal(weight, torch.full_like(weight, 0.5))
    fetch_weights(ENCODERS["resnet18"], "imagenet")


def test_damaged_cached_weights_are_told(make_settings: MakeSettings, empty_cache: Path, no_hub: None) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"cut short"}
    put_into_cache(empty_cache, *resnet_repository(), files)
    with pytest.raises(DataError, match="cached weights 'imagenet' of resnet18 are damaged"):
        build_model(make_settings(encoder_base_variant_weights=RESNET), channels=3, classes=1)


def test_fetch_weights_fails_as_quickly(empty_cache: Path, no_hub: None) -> None:
    for name in ("resnet18", "timm-mobilenetv3_small_100"):
        with pytest.raises(ResourceError, match=name):
            fetch_weights(ENCODERS[name], "imagenet")


def test_a_hub_that_breaks_off_is_told(
    make_settings: MakeSettings, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The hub answers the probe, and then does not: the client's own retries are cut short here.
    monkeypatch.setattr(weights, "_why_the_hub_is_silent", lambda: None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ResourceError, match="did not give them: LocalEntryNotFoundError"):
        build_model(make_settings(encoder_base_variant_weights=RESNET), channels=1, classes=1)


def test_weights_from_elsewhere_are_not_fetched(make_settings: MakeSettings, empty_cache: Path, no_hub: None) -> None:
    settings = make_settings(encoder_base_variant_weights=RESNET)
    assert build_model(settings, channels=1, classes=1, load_weights=False)
    assert not empty_cache.exists()


def test_what_smp_refuses_is_a_wrong_setting(make_settings: MakeSettings) -> None:
    # A row that promises what smp cannot do: settings let it pass.
    settings = make_settings().model_copy(update={"model_name": "PAN"})
    settings = settings.model_copy(update={"encoder_base_variant_weights": "VGG,vgg11,random"})
    with pytest.raises(SettingsError, match="cannot build PAN with vgg11") as raised:
        build_model(settings, channels=1, classes=1)
    assert "--modelName PAN" in str(raised.value)


@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (3, 2), (7, 12)])
def test_channels_in_and_classes_out(make_settings: MakeSettings, channels: int, classes: int) -> None:
    model = build_model(make_settings(), channels=channels, classes=classes)
    assert model(torch.rand(2, channels, 64, 64)).shape == (2, classes, 64, 64)


def test_convolutions_are_channels_last(make_settings: MakeSettings) -> None:
    model = build_model(make_settings(), channels=1, classes=1)
    weights_4d = [tensor for tensor in model.parameters() if tensor.ndim == 4]
    assert weights_4d
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in weights_4d)


def test_model_shape(make_settings: MakeSettings) -> None:
    settings = make_settings(encoder_base_variant_weights=TIMM)
    shape = ModelShape.of(settings, channels=2, classes=3)
    assert shape == ModelShape("Linknet", "tu-tf_mobilenetv3_small_100", 2, 3)
    assert ModelShape.from_json(shape.to_json()) == shape
    assert str(shape) == "Linknet with timm-mobilenetv3_small_100, 2 channels in, 3 classes out"


def test_the_hub_client_still_has_what_is_used_of_it() -> None:
    assert callable(huggingface_hub.get_session().head)
    assert constants.HF_HUB_OFFLINE is constants.is_offline_mode()
