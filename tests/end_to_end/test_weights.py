"""Weights as a user meets them: a hub that is there or not, and a folder of the original WIPP plugin."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
from huggingface_hub import constants
from safetensors.torch import save

from tune_smp.choices.encoders import ENCODERS
from tune_smp.cli import main
from tune_smp.results.folder import read_csv, read_json
from tune_smp.training import checkpoint
from tune_smp.training.weights import WeightSet

Command = Callable[..., subprocess.CompletedProcess[str]]
Arguments = Callable[..., Sequence[str]]

ENCODER = "MobileNet,mobilenet_v2,imagenet"
TOKEN = "hf_" + "s3cr3t" * 5
SPACE = """
fixed: {maxEpochs: 1, stepsPerEpoch: 1, tileSize: 64, batchSize: 2, device: cpu}
search:
  encoderBaseVariantWeights:
    ["MobileNet,mobilenet_v2,imagenet", "ResNet,resnet18,ssl", "MobileNet,timm-mobilenetv3_small_075,imagenet"]
"""


@pytest.fixture
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of decoded images of the test's own."""
    monkeypatch.setenv("TUNE_SMP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def train(nuclei: Path, arguments_of_train: Arguments, tmp_path: Path) -> Callable[..., list[str]]:
    """The command line of a run of one step into ``tmp_path / "out"``, with these flags besides."""
    one_step = ("--maxEpochs", "1", "--stepsPerEpoch", "1", "--learningRate", "1e-12")
    return lambda *extra: list(arguments_of_train(nuclei, tmp_path / "out", *one_step, *map(str, extra)))


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize(
    ("fate", "words"),
    [("refused", "refused"), (503, "answers 503"), (429, "answers 429"), (404, "answers 404"), ("offline", "is set")],
)
def test_20_25_train_without_a_hub_ends_in_seconds_and_leaves_no_run(
    fate: Any,
    words: str,
    hub: Any,
    train: Callable[..., list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", fate == "offline")
    hub.answers = {"HEAD": fate}
    if fate == "refused":
        url = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
    started = time.monotonic()
    assert main(train("--encoderBaseVariantWeights", ENCODER, "--debug", "true")) == 5
    assert time.monotonic() - started < 20  # the images are decoded first
    printed = "".join(capsys.readouterr())
    ways_out = ("fetch-weights", "HF_HOME", "mobilenet_v2,random", str(tmp_path / "hub"))
    assert all(word in printed for word in (ENCODER, words, *ways_out))
    assert not (tmp_path / "out" / "settings.json").exists(), "nothing has begun that could be resumed"
    assert (tmp_path / "out" / "logs" / "train.log").exists()
    assert TOKEN not in printed + texts_below(tmp_path / "out")


@pytest.mark.usefixtures("own_store", "hub_cache")
def test_20_search_tells_all_that_is_missing_before_the_first_trial(
    nuclei: Path,
    arguments_of_search: Arguments,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(list(arguments_of_search(nuclei, tmp_path / "out", space=SPACE))) == 5
    error = capsys.readouterr().err
    assert error.count("problem: ") == 1
    assert all(word in error for word in (ENCODER, "ResNet,resnet18,ssl", "timm-mobilenetv3_small_075"))
    assert not (tmp_path / "out" / "settings.json").exists()


def texts_below(folder: Path) -> str:
    """Everything in a folder, whatever it is."""
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow  # fetching once and keeping secrets have tests without a training, too
def test_20_25_train_fetches_once_and_tells_no_secret(
    local_hub: Any, tune_smp: Command, train: Callable[..., list[str]], tmp_path: Path
) -> None:
    encoder = ENCODERS["mobilenet_v2"]
    state = smp.encoders.get_encoder(encoder.smp_name, weights=None).state_dict()
    files = WeightSet(encoder, "imagenet").files()
    local_hub.repositories[files.repository] = {"model.safetensors": save(state), "config.json": b"{}"}
    environment = {"HF_ENDPOINT": local_hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": TOKEN}
    arguments = train("--encoderBaseVariantWeights", ENCODER, "--debug", "true")
    done = tune_smp(*arguments, HF_HUB_OFFLINE="0", **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"fetching {ENCODER} (" in done.stdout
    assert len(local_hub.asked("GET")) == 2, "the program and its worker ask once between them"
    assert f"Bearer {TOKEN}" in {sent for _, _, sent in local_hub.requests}, "the hub itself may know it"
    trained = checkpoint.load(tmp_path / "out" / "checkpoint.pth")["model"]
    name = "features.1.conv.0.0.weight"  # at such a rate, what is found is what was fetched
    torch.testing.assert_close(trained[f"encoder.{name}"].contiguous(), state[name])
    assert TOKEN not in done.stdout + done.stderr + texts_below(tmp_path / "out")


def write_old_folder(folder: Path) -> dict[str, torch.Tensor]:
    """What the original plugin left of a Unet with resnet18 after seven epochs; the tensors."""
    folder.mkdir()
    torch.manual_seed(2)
    model = smp.Unet("resnet18", encoder_weights=None, in_channels=1, activation="sigmoid")
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.rand(2, 1, 64, 64)).mean().backward()
    optimizer.step()
    content = {
        "model_name": "Unet",
        "encoder_variant": "resnet18",
        "encoder_weights": "imagenet",
        "optimizer_name": "Adam",
        "final_epoch": 7,
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
    }
    torch.save(content, folder / "checkpoint.pth")
    torch.save(model, folder / "model.pth")
    (folder / "config.json").write_text('{"modelName": "Unet"}')
    return dict(model.state_dict())


@pytest.mark.slow
def test_21_a_folder_of_the_original_plugin_goes_on(
    tune_smp: Command, train: Callable[..., list[str]], tmp_path: Path
) -> None:
    before = write_old_folder(tmp_path / "old")
    arguments = train("--pretrainedModel", tmp_path / "old")
    named = arguments.index("--encoderBaseVariantWeights")
    del arguments[named : named + 2]
    done = tune_smp(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ResNet,resnet18,random is taken from --pretrainedModel" in done.stdout
    assert "--normalization zscore comes nearest" in done.stdout
    assert "starts anew" not in done.stdout
    assert [row["epoch"] for row in read_csv(tmp_path / "out" / "history.csv")] == ["8"]
    state = checkpoint.load(tmp_path / "out" / "checkpoint.pth")
    assert state["model"].keys() == before.keys()
    for name, tensor in before.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(state["model"][name].contiguous(), tensor, rtol=0, atol=1e-8)
    assert all(float(values["step"]) == 2 for values in state["optimizer"]["state"].values())
    assert read_json(tmp_path / "out" / "summary.json")["state"] == "completed"


@pytest.mark.usefixtures("own_store")
def test_21_a_whole_module_is_refused_with_the_way_out(
    train: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Malicious:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "executed"),)

    (tmp_path / "old").mkdir()
    torch.save(Malicious(), tmp_path / "old" / "model.pth")
    assert main(train("--pretrainedModel", tmp_path / "old")) == 3
    error = capsys.readouterr().err
    assert "the file is a whole module" in error
    assert "put the checkpoint.pth of the same run beside it" in error
    assert not (tmp_path / "executed").exists()
