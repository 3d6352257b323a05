"""model/: what is exported, and that it stands alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.epochs import epoch_result
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.preprocessing import read_preprocessing
from tune_smp.data.split import Region, split_groups, split_regions, write_split
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.data.synthetic import write_nuclei
from tune_smp.errors import SettingsError
from tune_smp.results.export import export_best
from tune_smp.results.folder import RunFolder, read_json
from tune_smp.results.onnx_export import require_onnx, write_onnx
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import build_model
from tune_smp.training.pretrained import load_exported

PATTERN = "nuclei_{i:d+}.tif"


def _settings(data: Path, output: Path, **more: Any) -> RunSettings:
    return RunSettings(
        images_dir=data / "images",
        labels_dir=data / "labels",
        images_pattern=PATTERN,
        labels_pattern=PATTERN,
        segmentation_mode="binary",
        encoder_base_variant_weights="Test,tu-test_efficientnet,random",
        tile_size=64,
        output_dir=output,
        **more,
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ImageStore, tuple[Region, ...]]:
    folder = tmp_path_factory.mktemp("export")
    write_nuclei(folder, count=4, size=(64, 64), seed=1)
    collection = find_pairs(folder / "images", folder / "labels", images_pattern=PATTERN, labels_pattern=PATTERN)
    store = open_or_build(collection, mode="binary", cache_dir=folder / "cache")
    names = [pair.name for pair in store.pairs]
    groups = split_groups(store.collection, None)
    return folder, store, split_regions(store.sizes, groups, names=names, train_fraction=0.5, seed=0)


def _state(settings: RunSettings) -> Any:
    torch.manual_seed(0)
    last, best = (build_model(settings, channels=1, classes=1) for _ in range(2))
    history = [epoch_result(1), epoch_result(2, thresholds=(0.375,))]
    weights = {"model": last.state_dict(), "best_model": best.state_dict()}
    return {**weights, "best_metric": 0.5, "best_epoch": 2, "history": history}


def test_the_best_epoch_is_exported_not_the_last(
    prepared: tuple[Path, ImageStore, tuple[Region, ...]], tmp_path: Path
) -> None:
    data, store, regions = prepared
    settings = _settings(data, tmp_path)
    state = _state(settings)
    export_best(RunFolder(tmp_path), state, settings, store, regions)

    exported = load_exported(tmp_path / "model").state_dict()
    assert all(torch.equal(exported[name], tensor) for name, tensor in state["best_model"].items())
    assert any(not torch.equal(exported[name], tensor) for name, tensor in state["model"].items())
    assert read_json(tmp_path / "model" / "config.json")["encoder_weights"] is None
    preprocessing = read_preprocessing(tmp_path / "model")
    assert preprocessing.metric == {"name": "IoU", "value": 0.5, "epoch": 2}
    assert preprocessing.thresholds == (0.375,)
    assert preprocessing.class_map.values == (0, 255)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| validation IoU | 0.5000, epoch 2; 0.5000 above probability 0.5 |" in card
    assert "| images | 2 for training, 2 kept back for validation |" in card
    assert "mit" not in card.split("---")[1].lower(), "the licence is not ours to choose"


@pytest.mark.parametrize(
    "encoder",
    [
        "MobileNet,timm-mobilenetv3_small_100,random",
        pytest.param("Test,tu-test_efficientnet,random", marks=pytest.mark.slow),
    ],
)
def test_onnx_gives_the_models_own_logits(
    prepared: tuple[Path, ImageStore, tuple[Region, ...]], tmp_path: Path, encoder: str
) -> None:
    """The first one pads by the size of the image, in a way that torch.export does not end with."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    data, store, regions = prepared
    settings = _settings(data, tmp_path).with_changes(encoder_base_variant_weights=encoder)
    export_best(RunFolder(tmp_path), _state(settings), settings, store, regions)
    assert write_onnx(tmp_path / "model") == ""

    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx", providers=["CPUExecutionProvider"])
    model = load_exported(tmp_path / "model")
    for size in ((96, 128), (32, 32), (160, 64)):
        images = torch.randn(3, 1, *size)
        (logits,) = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            expected = model(images)
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-3, atol=1e-3)


def test_what_keeps_onnx_from_being_written_is_said(
    prepared: tuple[Path, ImageStore, tuple[Region, ...]], tmp_path: Path
) -> None:
    data, store, regions = prepared
    settings = _settings(data, tmp_path)
    export_best(RunFolder(tmp_path), _state(settings), settings, store, regions)
    assert write_onnx(tmp_path / "model", seconds=0.5) == "it was not done after 0 s"
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged")
    assert "model" in write_onnx(tmp_path / "model")
    assert not list((tmp_path / "model").glob("*.onnx*"))


def test_a_missing_extra_is_found_before_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(SettingsError, match=r"ONNX needs the package onnxscript\n.*--exportOnnx\n.*tune-smp\[onnx\]"):
        require_onnx()


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_files_are_as_open_as_the_umask_has_them(
    prepared: tuple[Path, ImageStore, tuple[Region, ...]], tmp_path: Path, umask: int
) -> None:
    data, store, regions = prepared
    settings = _settings(data, tmp_path)
    before = os.umask(umask)
    try:
        export_best(RunFolder(tmp_path), _state(settings), settings, store, regions)
        write_split(tmp_path / "split.csv", regions, store.collection)
    finally:
        os.umask(before)
    files = [tmp_path / "split.csv", *(tmp_path / "model").iterdir()]
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in files} == {
        file.name: 0o666 & ~umask for file in files
    }
