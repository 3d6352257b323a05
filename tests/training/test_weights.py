"""Pretrained encoder weights: fetched once, found without a network, really in the encoder; or a quick no."""

from __future__ import annotations

import csv
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from tune_smp.choices.encoders import ENCODERS
from tune_smp.errors import DataError, ResourceError
from tune_smp.settings.run import RunSettings
from tune_smp.training import hub as hub_client
from tune_smp.training.builders import build_model
from tune_smp.training.weights import WeightSet, fetch_weights

MakeSettings = Callable[..., RunSettings]
OWN = "MobileNet,mobilenet_v2,imagenet"  # a class of smp's own
TIMM = "MobileNet,timm-mobilenetv3_small_075,imagenet"
WAYS_OUT = ("fetch-weights", "HF_HOME", ",random")


def weight_set(choice: str) -> WeightSet:
    _, name, weights = choice.split(",")
    return WeightSet(ENCODERS[name], weights)


def weights_of(choice: str) -> dict[str, torch.Tensor]:
    """The tensors of a published file of these weights: those of a classifier, all random."""
    encoder = weight_set(choice).encoder
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model: Any = (
            timm.create_model(encoder.smp_name.removeprefix("tu-"))
            if encoder.through_timm
            else smp.encoders.get_encoder(encoder.smp_name, weights=None)
        )
        return {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in model.state_dict().items()}


def publish(hub: Any, *choices: str) -> None:
    for choice in choices:
        files = {"model.safetensors": save(weights_of(choice)), "config.json": json.dumps({"mean": [0]}).encode()}
        hub.repositories[weight_set(choice).files().repository] = files


def encoder_tensors(choice: str, make_settings: MakeSettings) -> dict[str, torch.Tensor]:
    """What is in the encoder of a model with these weights, under the names in the published file."""
    model = build_model(make_settings(encoder_base_variant_weights=choice), channels=3, classes=1)
    prefix = "encoder.model." if weight_set(choice).encoder.through_timm else "encoder."
    found = model.state_dict()
    return {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}


@pytest.mark.parametrize("choice", [OWN, TIMM])
def test_weights_are_fetched_once_and_then_load_without_a_network(
    choice: str, hub: Any, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, choice)
    assert not weight_set(choice).is_cached()
    fetch_weights([weight_set(choice)] * 2)
    fetched = hub.asked("GET")
    assert len(fetched) == (1 if choice == TIMM else 2), "each file once"
    assert weight_set(choice).is_cached()
    before = len(hub.requests)
    expected = weights_of(choice)
    for _ in range(2):
        fetch_weights([weight_set(choice)])
        found = encoder_tensors(choice, make_settings)
        assert len(found) > 100
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert len(hub.requests) == before, "nothing asks the hub for what is cached"
    assert not constants.HF_HUB_OFFLINE  # as it was


@pytest.mark.parametrize("choice", [OWN, TIMM])
def test_building_a_model_fetches_what_is_missing(choice: str, hub: Any, make_settings: MakeSettings) -> None:
    publish(hub, choice)
    found, expected = encoder_tensors(choice, make_settings), weights_of(choice)
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_a_repository_of_before_safetensors(hub: Any, make_settings: MakeSettings, tmp_path: Path) -> None:
    torch.save(weights_of(TIMM), tmp_path / "weights")
    hub.repositories[weight_set(TIMM).files().repository] = {"pytorch_model.bin": (tmp_path / "weights").read_bytes()}
    found, expected = encoder_tensors(TIMM, make_settings), weights_of(TIMM)
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("encoder", [row for row in ENCODERS.values() if row.weights], ids=lambda row: row.name)
def test_every_word_for_weights_has_files_on_the_hub(encoder: Any) -> None:
    for word in encoder.weights:
        files = WeightSet(encoder, word).files()
        if encoder.through_timm:
            assert files.repository.startswith(f"timm/{encoder.smp_name.removeprefix('tu-')}.")
            assert files.groups == (("model.safetensors", "pytorch_model.bin"),)
        else:
            # smp spells some words otherwise there: imagenet+5k, imagenet+background.
            assert files.repository == f"smp-hub/{encoder.name}.{word.replace('+', '-')}"
            assert re.fullmatch("[0-9a-f]{40}", files.revision or ""), "found in a cache without asking what is newest"


def test_the_repositories_are_those_that_were_surveyed(shared_data: Path) -> None:
    survey = shared_data.parent / "encoders.csv"
    if not survey.is_file():
        pytest.skip("the survey of the original plugin's encoders is not beside this clone")
    with survey.open(newline="") as lines:
        for row in csv.DictReader(lines):
            encoder = ENCODERS[row["old_name"]]
            for word in encoder.weights:
                assert WeightSet(encoder, word).files().repository in row["hub_repos"].split()


# A hub that does not give them


@pytest.fixture
def blackhole() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def refusal_of(*choices: str, within: float) -> str:
    started = time.monotonic()
    with pytest.raises(ResourceError) as raised:
        fetch_weights([weight_set(choice) for choice in choices])
    assert time.monotonic() - started < within
    said = str(raised.value)
    assert all(word in said for word in (*WAYS_OUT, *choices, constants.HF_HUB_CACHE))
    return said


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        (429, "too many requests (it answers 429, asks to be left alone for 77 seconds)"),
        (503, "it answers 503"),
        (401, "it answers 401: there is no such repository, or HF_TOKEN does not open it"),
        (404, "it answers 404: they are not there"),
        ("login page", "what answers there is no hub"),
    ],
)
def test_a_hub_that_refuses_is_told_in_seconds(fate: Any, words: str, hub: Any) -> None:
    publish(hub, OWN)
    hub.answers = {"HEAD": fate}
    assert words in refusal_of(OWN, within=3)
    assert not hub.asked("GET")


def test_a_repository_that_is_gone(hub: Any) -> None:
    assert "it answers 404: they are not there" in refusal_of(OWN, within=3)


def test_a_hub_that_was_only_busy_is_asked_again(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, OWN)
    hub.answers = {"HEAD": 503}
    monkeypatch.setattr(time, "sleep", lambda _: hub.answers.clear())
    fetch_weights([weight_set(OWN)])
    assert weight_set(OWN).is_cached()


def test_nothing_listens(hub_cache: Path) -> None:
    assert "Connection refused" in refusal_of(OWN, TIMM, within=3)


def test_nothing_answers(hub_cache: Path, blackhole: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", blackhole + "/{repo_id}/{revision}/{filename}")
    # Several sets: the hub is not asked for each.
    said = refusal_of(OWN, TIMM, "ResNet,resnet18,ssl", within=9)
    assert "no answer within 5 seconds" in said
    assert said.count("problem:") == 1


def test_a_name_server_that_is_silent(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit of the client's holds there."""
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: time.sleep(30))
    monkeypatch.setattr(hub_client, "ANSWER_SECONDS", 0.5)
    assert "no answer within 0.5 seconds" in refusal_of(OWN, within=4)


def test_offline_on_purpose(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal_of(OWN, TIMM, within=1)
    assert constants.HF_HUB_OFFLINE
    assert not hub.requests


def test_offline_on_purpose_is_no_hindrance_to_what_is_cached(
    hub: Any, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(hub, OWN)
    fetch_weights([weight_set(OWN)])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert encoder_tensors(OWN, make_settings)


def test_what_cannot_be_had_is_told_at_the_end_with_all_the_others(hub: Any) -> None:
    gone, also_gone = "ResNet,resnet18,imagenet", "VGG,vgg11,imagenet"
    publish(hub, OWN, TIMM)
    announced: list[tuple[str, int | None]] = []
    with pytest.raises(ResourceError) as raised:
        fetch_weights(
            [weight_set(c) for c in (gone, OWN, also_gone, TIMM)], lambda one, n: announced.append((str(one), n))
        )
    (problem,) = raised.value.problems
    assert f'2 sets of weights "{gone}", "{also_gone}"' in problem.problem
    assert f"tune-smp fetch-weights {gone} {also_gone}" in problem.fix
    assert weight_set(OWN).is_cached()
    assert weight_set(TIMM).is_cached()
    assert [name for name, _ in announced] == [OWN, TIMM]
    assert all(size is not None and size > 1e6 for _, size in announced)


@pytest.mark.parametrize(
    ("fate", "words", "seconds"),
    [
        (500, "it answers 500", 4),
        (429, "asks to be left alone for 77 seconds", 3),
        ("silent", "no answer within 5 seconds", 12),
    ],
)
def test_a_hub_that_knows_a_file_and_does_not_give_it(
    fate: Any, words: str, seconds: float, hub: Any, hub_cache: Path
) -> None:
    """As where a firewall lets the hub pass, and not the host of its large files."""
    publish(hub, OWN)
    hub.answers = {"GET": fate}
    assert words in refusal_of(OWN, within=seconds)
    assert not weight_set(OWN).is_cached()
    assert not list(hub_cache.rglob("*.incomplete"))
    hub.answers = {}
    fetch_weights([weight_set(OWN)])
    assert weight_set(OWN).is_cached()


def test_a_cache_that_cannot_be_written(hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(hub, OWN)
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(ResourceError, match="cannot be used") as raised:
        fetch_weights([weight_set(OWN)])
    assert "HF_HOME" in str(raised.value)


# What is cached and wrong


def cached_file(hub: Any, choice: str, name: str) -> Path:
    publish(hub, choice)
    fetch_weights([weight_set(choice)])
    (path,) = Path(constants.HF_HUB_CACHE).rglob(name)
    return path


@pytest.mark.parametrize("choice", [OWN, TIMM])
def test_damaged_weights_are_told_with_their_folder(choice: str, hub: Any, make_settings: MakeSettings) -> None:
    path = cached_file(hub, choice, "model.safetensors")
    path.resolve().write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="cached weights 'imagenet' of") as raised:
        encoder_tensors(choice, make_settings)
    (problem,) = raised.value.problems
    assert path.is_relative_to(problem.where)
    assert "remove the folder" in problem.fix


@pytest.mark.parametrize("kept", [0, 1000, None], ids=["empty", "cut short", "no weights"])
def test_damaged_weights_of_before_safetensors(
    kept: int | None, hub: Any, make_settings: MakeSettings, tmp_path: Path
) -> None:
    torch.save(weights_of(TIMM), tmp_path / "weights")
    content = b"<html>" * 99 if kept is None else (tmp_path / "weights").read_bytes()[:kept]
    hub.repositories[weight_set(TIMM).files().repository] = {"pytorch_model.bin": content}
    with pytest.raises(DataError, match=r"cached weights 'imagenet' of .* are damaged"):
        encoder_tensors(TIMM, make_settings)


def test_weights_of_another_encoder(hub: Any, make_settings: MakeSettings) -> None:
    path = cached_file(hub, OWN, "model.safetensors")
    path.resolve().write_bytes(save({"conv1.weight": torch.zeros(1)}))
    with pytest.raises(DataError, match="are damaged: Error"):
        encoder_tensors(OWN, make_settings)


# Secrets

TOKEN = "hf_" + "s3cr3t" * 5


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: Any, token: str) -> None:
    publish(hub, OWN)
    fetch_weights([weight_set(OWN)])
    assert {sent for _, path, sent in hub.requests if "/resolve/" in path} == {f"Bearer {token}"}
    assert {sent for _, path, sent in hub.requests if path.startswith("/large/")} == {None}


@pytest.mark.parametrize("fate", [{"HEAD": 401}, {"GET": 503}, {"HEAD": "login page"}])
def test_messages_tell_no_secret(
    fate: Any, hub: Any, token: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    publish(hub, OWN)
    hub.answers = fate
    address = hub.url.replace("//", "//me:passw0rd@")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    with pytest.raises(ResourceError) as raised:
        fetch_weights([weight_set(OWN)])
    said = str(raised.value) + str(raised.value.__cause__) + "".join(capfd.readouterr())
    assert hub.url in said
    assert not [secret for secret in (token, "passw0rd", "signed-by-the-hub") if secret in said]


def test_secrets_are_cut_out_of_any_text(token: str) -> None:
    text = f"GET https://me:passw0rd@hub/a?Signature=abc 'https://x/y?t={token}' failed, Bearer {token}"
    assert hub_client.without_secrets(text) == "GET https://hub/a 'https://x/y' failed, Bearer …"
