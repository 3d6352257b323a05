"""The card's code for use without tune-smp gives the masks that ``predict`` writes, from the pixels of a file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tifffile
import torch

from tests.epochs import epoch_result
from tune_smp.data.labels import Mode
from tune_smp.data.normalization import Method, Scope
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import open_or_build
from tune_smp.inference.prediction import predict_folder
from tune_smp.results.export import export_best
from tune_smp.results.folder import RunFolder
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import build_model

PATTERN = "{i:d+}.tif"
BLOCKED = "import sys; sys.modules['tune_smp'] = None\n"
SIZE = (80, 90)  # px, which the divisor does not divide


def write_images(folder: Path, mode: Mode) -> None:
    random = np.random.default_rng(0)
    channels = 3 if mode == "multiclass" else 1
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(4):
        image = random.gamma(2.0, 900.0, (*SIZE, channels)).astype(np.uint16)
        image[..., 0] += 3000
        label = np.array([0, 7, 9])[random.integers(0, 3, SIZE)].astype(np.uint8)
        if mode == "binary":
            label = ((label > 0) * 200).astype(np.uint8)
        photometric = "rgb" if channels == 3 else "minisblack"
        tifffile.imwrite(folder / "images" / f"{number}.tif", image.squeeze(), photometric=photometric)
        if mode == "multilabel":
            label = np.stack([label > 0, label > 7]).astype(np.uint8)
            tifffile.imwrite(folder / "labels" / f"{number}.tif", label, imagej=True, metadata={"axes": "CYX"})
        else:
            tifffile.imwrite(folder / "labels" / f"{number}.tif", label)


def exported(folder: Path, mode: Mode, **more: Any) -> None:
    """A model that was not trained: its logits are about 0, so that every difference shows."""
    settings = RunSettings(
        images_dir=folder,
        labels_dir=folder,
        images_pattern=PATTERN,
        labels_pattern=PATTERN,
        segmentation_mode=mode,
        encoder_base_variant_weights="Test,tu-test_efficientnet,random",
        tile_size=96,
        output_dir=folder / "out",
        **more,
    )
    collection = find_pairs(folder, folder, images_pattern=PATTERN, labels_pattern=PATTERN)
    store = open_or_build(collection, mode=mode, cache_dir=folder / "cache")
    torch.manual_seed(0)
    model = build_model(settings, channels=store.channels, classes=store.class_map.classes)
    thresholds = () if mode == "multiclass" else (0.5078125, 0.4921875)[: store.class_map.classes]
    state: Any = {"model": model.state_dict(), "best_model": None, "best_metric": 0.5, "best_epoch": 1}
    state["history"] = [epoch_result(thresholds=thresholds)]
    regions = [Region(0, 0, *SIZE[:1], 0, SIZE[1], "train"), Region(1, 0, SIZE[0], 0, SIZE[1], "validation")]
    (folder / "out").mkdir()
    export_best(RunFolder(folder / "out"), state, settings, store, regions)


def by_the_card(folder: Path) -> np.ndarray[Any, Any]:
    card = (folder / "out" / "model" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    code = code.replace("THIS_FOLDER", str(folder / "out" / "model")).replace(
        "IMAGE.tif", str(folder / "images" / "0.tif")
    )
    program = f"{BLOCKED}{code}\nnp.save({str(folder / 'mask.npy')!r}, mask)\n"
    subprocess.run([sys.executable, "-P", "-c", program], check=True, cwd=folder)
    mask: np.ndarray[Any, Any] = np.load(folder / "mask.npy")
    return mask


@pytest.mark.parametrize(
    ("mode", "method", "scope"),
    [
        ("binary", "percentile", "image"),
        ("multiclass", "zscore", "collection"),
        ("multilabel", "minmax", "image"),
        *(pytest.param("binary", method, "image", marks=pytest.mark.slow) for method in get_args(Method)),
        *(pytest.param("multiclass", method, "collection", marks=pytest.mark.slow) for method in get_args(Method)),
    ],
)
def test_the_cards_code_gives_the_mask_of_predict(tmp_path: Path, mode: Mode, method: Method, scope: Scope) -> None:
    write_images(tmp_path, mode)
    exported(tmp_path, mode, normalization=method, normalization_scope=scope)
    predict_folder(
        PredictSettings(
            model=tmp_path / "out",
            images_dir=tmp_path / "images",
            images_pattern="0.tif",
            output_dir=tmp_path / "masks",
            device="cpu",
            precision="float32",  # as the card's code computes
        )
    )
    ours = tifffile.imread(tmp_path / "masks" / "0.ome.tif")
    theirs = by_the_card(tmp_path)
    assert theirs.shape == ours.shape
    assert len(np.unique(ours)) > 1
    assert (theirs == ours).mean() > 0.999
