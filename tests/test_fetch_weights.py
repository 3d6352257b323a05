"""``tune-smp fetch-weights``: what its words mean, and what it says where the weights cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.encoders import ENCODERS, partner_encoders
from tune_smp.cli import main
from tune_smp.settings.encoder_choice import spelled
from tune_smp.tuning.space_file import read_space


def test_random_weights_and_spaces_without_others_need_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch-weights", "ResNet,resnet18,random", "quick"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        "nothing to fetch: ResNet,resnet18,random",
        "nothing to fetch: MobileNet,timm-mobilenetv3_small_100,random",
        "nothing to fetch: MobileNet,tu-mobilenetv4_conv_small_050,random",
        "nothing to fetch: RegNet(x/y),timm-regnetx_002,random",
    ], "each encoder once"


def test_words_that_are_nothing_are_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch-weights", "ResNet,resnet18,nose", "VGG,resnet18,imagenet"]) == 2
    error = capsys.readouterr().err
    assert "resnet18 has no weights 'nose'" in error
    assert 'pass "ResNet,resnet18,imagenet"' in error
    assert main(["fetch-weights", "balansed"]) == 2
    assert "did you mean 'balanced'" in capsys.readouterr().err
    assert main(["fetch-weights"]) == 2


ENCODER = "MobileNet,mobilenet_v2,imagenet"
TIMM = "MobileNet,timm-mobilenetv3_small_075,imagenet"
Publish = Callable[..., int]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """To fetch files, nothing has to be built."""
    import segmentation_models_pytorch as smp
    import timm

    for module, name in ((smp.encoders, "get_encoder"), (smp, "create_model"), (timm, "create_model")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a model is built"))


@pytest.fixture
def publish(local_hub: Any) -> Publish:
    """Put small files for these weights on the hub; how many they are. Nobody loads them here."""
    from tune_smp.training.weights import WeightSet

    def put(*choices: str) -> int:
        files = 0
        for number, choice in enumerate(choices):
            encoder = ENCODERS[choice.split(",")[1]]
            names = ["model.safetensors"] if encoder.through_timm else ["model.safetensors", "config.json"]
            repository = WeightSet(encoder, choice.split(",")[2]).files().repository
            local_hub.repositories[repository] = {name: f"{name} {number}".encode() for name in names}
            files += len(names)
        return files

    return put


def test_each_set_is_fetched_once_and_progress_is_told(
    hub: Any, publish: Publish, no_model: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = publish(ENCODER, TIMM)
    assert main(["fetch-weights", ENCODER, TIMM, ENCODER]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == [
        f"fetching {ENCODER} (0.0 MB), 1 of 2",
        f"fetching {TIMM} (0.0 MB), 2 of 2",
        "fetched 2 of 2 sets of weights: all are in the cache",
    ]
    assert len(hub.asked("GET")) == files
    hub.requests.clear()
    assert main(["fetch-weights", ENCODER, TIMM]) == 0
    assert capsys.readouterr().out.splitlines() == [f"in the cache: {ENCODER}", f"in the cache: {TIMM}"]
    assert not hub.requests, "what is cached is told without a network"


def test_an_architecture_and_a_space(
    hub: Any, publish: Publish, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    encoders = [ENCODERS[name] for name in partner_encoders(ARCHITECTURES["DPT"])]
    choices = [spelled(encoder) for encoder in encoders if encoder.weights]
    files = publish(*choices)
    started = time.monotonic()
    assert main(["fetch-weights", "DPT"]) == 0
    assert time.monotonic() - started < 60
    assert len(hub.asked("GET")) == files > 50
    told = capsys.readouterr().out
    assert f"{len(choices)} of {len(choices)}" in told
    # Encoders of the space that are among those are there already.
    balanced = read_space("balanced").encoder_choices()
    publish(*balanced)
    assert main(["fetch-weights", "balanced"]) == 0
    told = capsys.readouterr().out
    assert told.count("in the cache: ") == len(set(balanced) & set(choices))
    assert told.count("fetching ") == len(set(balanced) - set(choices))


def test_what_cannot_be_had_is_told_at_the_end(
    hub: Any, publish: Publish, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("VGG,vgg11,imagenet", TIMM)
    assert main(["fetch-weights", ENCODER, "VGG,vgg11,imagenet", "ResNet,resnet18,ssl", TIMM]) == 5
    printed = capsys.readouterr()
    assert printed.out.count("fetching ") == 2
    assert printed.err.count("problem: ") == 1
    assert f'2 sets of weights "{ENCODER}", "ResNet,resnet18,ssl" are in no cache' in printed.err
    assert "it answers 404" in printed.err
    assert main(["fetch-weights", "VGG,vgg11,imagenet", TIMM]) == 0


def test_a_hub_that_is_down_is_asked_once_for_a_hundred_sets(
    hub: Any, hub_cache: Path, no_model: None, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.answers = {"HEAD": 429}
    started = time.monotonic()
    assert main(["fetch-weights", "Unet"]) == 5
    assert time.monotonic() - started < 5
    assert len(hub.asked("HEAD")) == 1
    error = capsys.readouterr().err
    assert "too many requests" in error
    assert all(word in error for word in (str(hub_cache), "HF_HOME", "with the same words", ",random", " more are in"))


def test_offline_on_purpose_it_says_so(
    hub: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main(["fetch-weights", "ResNet,resnet18,imagenet"]) == 5
    error = capsys.readouterr().err
    assert all(word in error for word in ("resnet18", "HF_HUB_OFFLINE is set", "HF_HOME", "ResNet,resnet18,random"))
    assert not hub.requests


def test_two_processes_fetch_once(local_hub: Any, tmp_path: Path) -> None:
    """As trials on a node do, all of which find its cache empty: one fetches, the others wait."""
    local_hub.repositories["smp-hub/net"] = {"model.safetensors": b"0" * 1000, "config.json": b"{}"}
    local_hub.seconds = 2.0
    environment = {**os.environ, "HF_ENDPOINT": local_hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    both = [
        subprocess.Popen([sys.executable, "-c", TOGETHER, str(tmp_path)], env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert sorted(path.rpartition("/")[0] for path in local_hub.asked("GET")) == ["/large", "/smp-hub/net/resolve/main"]
    assert len(local_hub.asked("HEAD")) >= 4, "both asked for both"


TOGETHER = """
import os, pathlib, sys, time
from tune_smp.training.hub import HubFiles, fetch
folder = pathlib.Path(sys.argv[1])
(folder / f"ready-{os.getpid()}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
files = HubFiles("smp-hub/net", None, (("model.safetensors",), ("config.json",)))
refusal = fetch(files, lambda size: None)
sys.exit(str(refusal) if refusal or not files.are_cached() else 0)
"""
