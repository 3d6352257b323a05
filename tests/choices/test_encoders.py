"""The encoders: every old name, today's names, and which pairs can be built."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tune_smp.choices.architectures import ARCHITECTURES, Architecture
from tune_smp.choices.encoders import (
    ENCODERS,
    Encoder,
    find_encoder,
    partner_architectures,
    partner_encoders,
    unbuildable,
)

OLD_NAMES = 113


@pytest.fixture(scope="module")
def old_encoders(shared_data: Path) -> list[dict[str, str]]:
    """The encoders of the original plugin, as they were surveyed, where that survey is at hand."""
    survey = shared_data.parent / "encoders.csv"
    if not survey.is_file():
        pytest.skip("the survey of the original plugin's encoders is not beside this clone")
    with survey.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_old_name_is_there(old_encoders: list[dict[str, str]]) -> None:
    assert len(old_encoders) == OLD_NAMES
    for row in old_encoders:
        encoder = ENCODERS[row["old_name"]]
        assert encoder.family == row["family"]
        assert encoder.smp_name == row["name_today"]
        assert encoder.unet_parameters == int(row["unet_params"])


def test_every_old_weights_word_is_still_legal(old_encoders: list[dict[str, str]]) -> None:
    for row in old_encoders:
        assert set(row["old_weights"].split()) <= set(ENCODERS[row["old_name"]].weights)


def test_no_weights_are_promised_that_do_not_exist(old_encoders: list[dict[str, str]]) -> None:
    for row in old_encoders:
        encoder = ENCODERS[row["old_name"]]
        today = {"imagenet"} if encoder.through_timm else set(row["weights_today"].split())
        assert set(encoder.weights) <= today


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=lambda row: row.name)
def test_rows(encoder: Encoder) -> None:
    assert encoder.unet_parameters > 0
    assert "random" not in encoder.weights
    assert not any("," in word or word != word.strip() for word in (encoder.family, encoder.name, *encoder.weights))
    assert partner_architectures(encoder), "some architecture can be built with it"
    assert bool(encoder.weights) == (encoder.family != "Test")
    if encoder.tile_size is not None:
        divisors = [ARCHITECTURES[name].divisor for name in partner_architectures(encoder)]
        assert not any(encoder.tile_size % divisor for divisor in divisors)


@pytest.mark.parametrize("encoder", [row for row in ENCODERS.values() if row.weights], ids=lambda row: row.name)
def test_the_weights_are_known_to_those_who_fetch_them(encoder: Encoder) -> None:
    import segmentation_models_pytorch as smp
    import timm

    if not encoder.through_timm:
        repositories = smp.encoders.encoders[encoder.smp_name]["pretrained_settings"]
        assert all(repositories[word]["repo_id"] and repositories[word]["revision"] for word in encoder.weights)
        return
    assert len(encoder.weights) == 1, "timm takes its first set, whatever the word"
    weights = timm.get_pretrained_cfg(encoder.smp_name.removeprefix("tu-"))
    assert "/" in weights.hf_hub_id
    assert ("imagenet" in encoder.weights) == ("in1k" in weights.tag)
    if encoder.tile_size is not None:
        assert weights.input_size == (3, encoder.tile_size, encoder.tile_size)


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=lambda row: row.name)
def test_found_by_either_name(encoder: Encoder) -> None:
    assert find_encoder(encoder.name) is encoder
    assert find_encoder(encoder.smp_name) is encoder


def test_no_old_name_was_dropped() -> None:
    added_since = ("tu-", "mit_", "mobileone_")
    assert sum(not name.startswith(added_since) for name in ENCODERS) >= OLD_NAMES


def test_not_found() -> None:
    assert find_encoder("resnet35") is None


def test_pairs_by_family() -> None:
    def refusing(encoder: str) -> set[str]:
        return set(ARCHITECTURES) - set(partner_architectures(ENCODERS[encoder]))

    dilating = {"PAN", "DeepLabV3", "DeepLabV3Plus"}
    for name in ("vgg11", "vgg19_bn", "densenet121", "inceptionv4", "inceptionresnetv2", "xception"):
        assert refusing(name) == dilating | {"DPT"}
    assert refusing("mit_b0") == {"UnetPlusPlus", "Linknet", "DPT"}
    assert refusing("resnet34") == refusing("mobileone_s0") == {"DPT"}
    for name in ("swin_tiny_patch4_window7_224", "maxvit_tiny_tf_512", "pvt_v2_b2", "hrnet_w18", "sam2_hiera_tiny"):
        assert refusing(f"tu-{name}") == dilating
    for name in ("tu-vit_tiny_patch16_224", "tu-vit_small_patch16_dinov3"):
        assert refusing(name) == set(ARCHITECTURES) - {"DPT"}
    for name in ("tu-convnext_atto", "tu-convnextv2_tiny", "tu-mobilenetv4_hybrid_medium", "timm-resnest14d"):
        assert refusing(name) == set()
    assert refusing("tu-test_efficientnet") == set()


def test_partners_mirror_each_other() -> None:
    for name, architecture in ARCHITECTURES.items():
        for encoder in partner_encoders(architecture):
            assert name in partner_architectures(ENCODERS[encoder])


def test_the_reason_names_both() -> None:
    reason = unbuildable(ARCHITECTURES["PAN"], ENCODERS["vgg16"])
    assert reason is not None
    assert "PAN" in reason
    assert "VGG" in reason
    assert unbuildable(ARCHITECTURES["PAN"], ENCODERS["resnet18"]) is None


def test_surveyed_pairs(shared_data: Path) -> None:
    survey = shared_data.parent / "arch_encoder.csv"
    if not survey.is_file():
        pytest.skip("the survey of pairs is not beside this clone")
    with survey.open(newline="") as lines:
        for row in csv.DictReader(lines):
            encoder = find_encoder(row.pop("encoder"))
            assert encoder is not None
            for architecture, outcome in row.items():
                # Surveyed by old names; DPT, which looks at the name alone, takes the same encoders by today's.
                if architecture == "DPT" and encoder.name != encoder.smp_name:
                    continue
                reason = unbuildable(ARCHITECTURES[architecture], encoder)
                assert (reason is None) == outcome.startswith("ok"), (architecture, encoder.name, outcome)


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda row: row.name)
def test_the_smallest_tile_is_a_legal_tile(architecture: Architecture) -> None:
    assert architecture.min_tile_size % architecture.divisor == 0
