"""Real collections, trained and predicted with nothing but their flags; minutes each (``make test-slow``).

Every fourth image is kept back from training and only seen by ``predict``. Asked for is the IoU of the kept-back
images together: counts are added up before they are divided.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

Command = Callable[..., subprocess.CompletedProcess[str]]
Array = npt.NDArray[np.uint8]

SMALL_NET = ("--encoderBaseVariantWeights", "MobileNet,timm-mobilenetv3_small_100,random")


@dataclass(frozen=True)
class Case:
    """A collection, the flags that it takes, and the mean IoU that a run of a few minutes must exceed."""

    name: str
    mode: str
    images_pattern: str
    labels_pattern: str
    flags: tuple[str, ...]
    least_iou: float
    ignore: int | None = None


CASES = (
    Case("nuclei-binary", "binary", "nuclei_{i:ddd}.tif", "nuclei_{i:ddd}_mask.tif", ("--maxEpochs", "4"), 0.80),
    Case(
        "nuclei-multiclass", "multiclass", "nuclei_{i:ddd}.tif", "nuclei_{i:ddd}_mask.tif", ("--maxEpochs", "6"), 0.45
    ),
    Case(
        "nuclei-multilabel",
        "multilabel",
        "nuclei_{i:ddd}.ome.tif",
        "nuclei_{i:ddd}_mask.ome.tif",
        ("--maxEpochs", "6"),
        0.45,
    ),
    Case("membrane-binary", "binary", "membrane_z{z:dd}.tif", "membrane_z{z:dd}.tif", ("--maxEpochs", "8"), 0.45),
    Case(
        "camvid-multiclass",
        "multiclass",
        "camvid_{i:ddd}.tif",
        "camvid_{i:ddd}.tif",
        ("--maxEpochs", "10", "--ignoreValue", "11"),
        0.15,
        ignore=11,
    ),
)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_real_collection_trains_and_predicts(
    case: Case, shared_data: Path, tune_smp: Command, tmp_path: Path
) -> None:
    train, unseen = _kept_back(shared_data / case.name, tmp_path)
    _run(
        tune_smp,
        *("train", "--imagesDir", train, "--labelsDir", train, "--segmentationMode", case.mode, "--tileSize", "128"),
        *("--imagesPattern", case.images_pattern, "--labelsPattern", case.labels_pattern),
        *("--outputDir", tmp_path / "out", "--dashboard", "false", *SMALL_NET, *case.flags),
    )
    _run(
        tune_smp,
        *("predict", "--model", tmp_path / "out", "--imagesDir", unseen, "--imagesPattern", case.images_pattern),
        *("--outputDir", tmp_path / "masks"),
    )

    iou, majority = _mean_iou(case, unseen, tmp_path / "masks")

    assert iou > case.least_iou
    assert iou > 1.2 * majority


def _run(tune_smp: Command, *arguments: object) -> None:
    done = tune_smp(*arguments)
    assert done.returncode == 0, done.stderr
    print(done.stdout)  # noqa: T201  pytest shows it with -s and with a failure


def _kept_back(collection: Path, folder: Path) -> tuple[Path, Path]:
    """Folders of links: three quarters of the collection, and every fourth image."""
    for kind in ("images", "labels"):
        for number, file in enumerate(sorted((collection / kind).iterdir())):
            target = folder / ("unseen" if number % 4 == 3 else "train") / kind
            target.mkdir(parents=True, exist_ok=True)
            (target / file.name).symlink_to(file)
    return folder / "train", folder / "unseen"


def _mean_iou(case: Case, unseen: Path, masks: Path) -> tuple[float, float]:
    """Mean IoU over the classes of the predictions, and of predicting the commonest class everywhere."""
    counts = np.zeros((32, 3), dtype=np.int64)  # class × (intersection, predicted, labelled)
    for label, prediction in _label_pairs(unseen, masks):
        kept = label != case.ignore if case.ignore is not None else np.ones_like(label, dtype=bool)
        for number, (ours, theirs) in enumerate(_classes(case, prediction, label)):
            counts[number] += [(ours & theirs & kept).sum(), (ours & kept).sum(), (theirs & kept).sum()]
    intersection, predicted, labelled = counts.T
    seen = labelled > 0
    iou = intersection[seen] / (predicted + labelled - intersection)[seen]
    return float(iou.mean()), _majority_iou(case, labelled[seen])


def _majority_iou(case: Case, labelled: npt.NDArray[np.int64]) -> float:
    if case.mode == "multiclass":
        return float(labelled.max() / labelled.sum() / len(labelled))
    return 0.0  # foreground is the rarer one in all of them: the majority predicts none


def _label_pairs(unseen: Path, masks: Path) -> Iterator[tuple[Array, Array]]:
    images = sorted((unseen / "images").iterdir())
    labels = sorted((unseen / "labels").iterdir())
    for image, label in zip(images, labels, strict=True):
        stem = image.name.removesuffix(".tif").removesuffix(".ome")
        yield tifffile.imread(label), tifffile.imread(masks / f"{stem}.ome.tif")


def _classes(
    case: Case, prediction: Array, label: Array
) -> Iterator[tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]]:
    """Masks of each class: prediction and label."""
    if case.mode == "binary":
        yield prediction > 0, label > 0
    elif case.mode == "multilabel":
        for ours, theirs in zip(prediction, label, strict=True):
            yield ours > 0, theirs > 0
    else:
        for value in range(11 if case.ignore else 3):
            yield prediction == value, label == value
