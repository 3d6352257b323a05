"""Models from settings, and errors of others that become ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tune_smp.errors import SettingsError
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import ModelShape, build_model, empty_model

MakeSettings = Callable[..., RunSettings]
RESNET = "ResNet,resnet18,imagenet"
TIMM = "MobileNet,timm-mobilenetv3_small_100,imagenet"


def test_weights_from_elsewhere_are_not_fetched(make_settings: MakeSettings, hub_cache: Path) -> None:
    settings = make_settings(encoder_base_variant_weights=RESNET)
    assert build_model(settings, channels=1, classes=1, load_weights=False)
    assert not hub_cache.exists()


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


def test_an_empty_model_has_the_tensors_of_a_real_one(make_settings: MakeSettings) -> None:
    settings = make_settings(encoder_base_variant_weights=TIMM.replace("imagenet", "random"))
    real = build_model(settings, channels=2, classes=3)
    empty = empty_model(ModelShape.of(settings, channels=2, classes=3))
    assert {name: tensor.shape for name, tensor in empty.state_dict().items()} == {
        name: tensor.shape for name, tensor in real.state_dict().items()
    }
    assert all(parameter.is_meta for parameter in empty.parameters())
