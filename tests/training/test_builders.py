"""Models from settings, and errors of others that become ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tune_smp.choices.architectures import ARCHITECTURES, Architecture
from tune_smp.errors import SettingsError
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import ModelShape, NoRandomWeights, build_model, empty_model

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


def test_running_statistics_follow_at_the_usual_pace(make_settings: MakeSettings) -> None:
    model = build_model(
        make_settings(encoder_base_variant_weights="EfficientNet,efficientnet-b0,random"), channels=1, classes=1
    )
    assert {layer.momentum for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)} == {0.1}


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0", "tu-test_efficientnet"])
def test_a_model_without_random_weights_is_the_one_that_is_loaded_into_it(encoder: str) -> None:
    shape = ModelShape("Unet", encoder, channels=3, classes=2)
    original = shape.build().eval()
    before = torch.get_rng_state()
    with NoRandomWeights():
        built = shape.build()
    assert torch.equal(torch.get_rng_state(), before), "nothing was drawn"
    built.load_state_dict(original.state_dict())
    images = torch.rand(1, 3, 64, 64)
    assert torch.equal(built.eval()(images), original(images))
    assert all(torch.equal(*pair) for pair in zip(built.buffers(), original.buffers(), strict=True))


def test_sparse_gradients_meet_plain_weights_only(make_settings: MakeSettings) -> None:
    settings = make_settings(optimizer_name="SparseAdam")
    model = build_model(settings, channels=1, classes=1)
    assert all(parameter.is_contiguous() for parameter in model.parameters())


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


def shapes_of(row: Architecture) -> list[tuple[int, int | None]]:
    """Every depth of an architecture with its own width, and its own depth with a narrow decoder."""
    narrow = row.decoder_channels and max(row.channels_step, 32)
    depths = range(row.least_depth, row.encoder_depth + 1)
    return [*((depth, row.own_width(depth)) for depth in depths), (row.encoder_depth, narrow)]


@pytest.mark.parametrize("row", ARCHITECTURES.values(), ids=lambda row: row.name)
def test_every_depth_and_width_gives_a_mask_of_the_images_size(row: Architecture, make_settings: MakeSettings) -> None:
    encoder = "ViT,tu-vit_tiny_patch16_224,random" if row.timm_only else "ResNet,resnet18,random"
    settings = make_settings(model_name=row.name, encoder_base_variant_weights=encoder, tile_size=None)
    sizes = set()
    for depth, width in shapes_of(row):
        changed = settings.with_changes(encoder_depth=depth, decoder_channels=width)
        model = build_model(changed, channels=1, classes=2).eval()
        side = changed.encoder.tile_size or max(64, row.min_tile_size)
        assert model(torch.rand(1, 1, side, side)).shape == (1, 2, side, side)
        sizes.add(sum(tensor.numel() for tensor in model.parameters()))
    assert len(sizes) == len(set(shapes_of(row)))


def test_depth_and_width_of_a_unets_decoder() -> None:
    def levels(depth: int, width: int | None) -> tuple[int, ...]:
        found = ARCHITECTURES["Unet"].smp_arguments(depth=depth, width=width, attention="none")
        return tuple(found["decoder_channels"])

    assert levels(5, 256) == (256, 128, 64, 32, 16)
    assert levels(3, ARCHITECTURES["Unet"].own_width(3)) == (64, 32, 16)
    assert levels(5, 64) == (64, 32, 16, 16, 16)
    assert levels(4, 64) == (64, 32, 16, 16)


def test_attention_adds_to_the_decoder(make_settings: MakeSettings) -> None:
    settings = make_settings(model_name="Unet")
    plain, with_attention = (
        build_model(settings.with_changes(decoder_attention=attention), channels=1, classes=1)
        for attention in ("none", "scse")
    )
    added = set(with_attention.state_dict()) - set(plain.state_dict())
    assert added
    assert all(name.startswith("decoder.") for name in added)


def test_what_is_the_architectures_own_is_no_difference(make_settings: MakeSettings) -> None:
    settings = make_settings(model_name="Unet")
    spelled_out = settings.with_changes(encoder_depth=5, decoder_channels=256, decoder_attention="none")
    own, spelled = (ModelShape.of(one, channels=1, classes=1) for one in (settings, spelled_out))
    assert own == spelled
    narrow = ModelShape.of(settings.with_changes(encoder_depth=3, decoder_channels=128), channels=1, classes=1)
    assert narrow != own
    assert "encoderDepth 3, decoderChannels 128" in str(narrow)
    assert ModelShape.from_json(narrow.to_json()) == narrow


def test_the_state_of_an_older_version_says_nothing_about_depth_and_width() -> None:
    old = {"architecture": "Unet", "encoder": "resnet18", "channels": 1, "classes": 2}
    assert ModelShape.from_json(old) == ModelShape("Unet", "resnet18", 1, 2)
