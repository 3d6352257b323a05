"""The synthetic nuclei: what is written, that a seed decides it, and that the task is neither trivial nor hopeless."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile

from tune_smp.data.synthetic import draw_nuclei, write_nuclei


def test_writes_pairs_of_uint8_tiffs_with_equal_names(tmp_path: Path) -> None:
    write_nuclei(tmp_path, count=3, size=(64, 80), seed=1)

    names = [f"nuclei_{i:03d}.tif" for i in range(3)]
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == names
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == names
    for name in names:
        image, label = tifffile.imread(tmp_path / "images" / name), tifffile.imread(tmp_path / "labels" / name)
        assert image.shape == label.shape == (64, 80)
        assert image.dtype == label.dtype == np.uint8
        assert set(np.unique(label)) == {0, 255}


def test_several_sizes_take_turns(tmp_path: Path) -> None:
    write_nuclei(tmp_path, count=3, size=[(64, 80), (96, 48)], seed=0)

    shapes = [tifffile.imread(path).shape for path in sorted((tmp_path / "images").iterdir())]
    assert shapes == [(64, 80), (96, 48), (64, 80)]


def test_the_seed_decides_and_images_do_not_depend_on_how_many_are_made(tmp_path: Path) -> None:
    for folder, count, seed in (("first", 2, 5), ("second", 1, 5), ("third", 1, 6)):
        write_nuclei(tmp_path / folder, count=count, size=(48, 48), seed=seed)

    def first_image(folder: str) -> npt.NDArray[np.uint8]:
        return np.asarray(tifffile.imread(tmp_path / folder / "images" / "nuclei_000.tif"))

    assert np.array_equal(first_image("first"), first_image("second"))
    assert not np.array_equal(first_image("first"), first_image("third"))


@pytest.mark.parametrize("size", [(1, 1), (7, 10), (16, 400)])
def test_any_size_works(size: tuple[int, int]) -> None:
    image, label = draw_nuclei(size, seed=0)
    assert image.shape == label.shape == size


def test_a_threshold_does_not_solve_the_task_but_sees_something() -> None:
    drawn = [draw_nuclei((192, 192), seed=(0, index)) for index in range(8)]
    images = np.stack([image for image, _ in drawn])
    nuclei = np.stack([label for _, label in drawn]) > 0

    assert 0.08 < nuclei.mean() < 0.35
    best = max(_iou(images > threshold, nuclei) for threshold in range(10, 200, 4))
    assert 0.3 < best < 0.75
    # Even the best threshold of every single image, which nobody knows without the label, does not.
    chosen = np.stack([_best_threshold(image, label) for image, label in zip(images, nuclei, strict=True)])
    assert _iou(chosen, nuclei) < 0.8


def test_nuclei_are_brighter_than_their_surroundings_in_every_image() -> None:
    for index in range(6):
        image, label = draw_nuclei((192, 192), seed=(3, index))
        assert image[label > 0].mean() > 1.3 * image[label == 0].mean()
        assert image.max() > 100


def _best_threshold(image: npt.NDArray[np.uint8], nuclei: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    scores = {threshold: _iou(image > threshold, nuclei) for threshold in range(10, 200, 4)}
    best: npt.NDArray[np.bool_] = image > max(scores, key=lambda threshold: scores[threshold])
    return best


def _iou(prediction: npt.NDArray[np.bool_], nuclei: npt.NDArray[np.bool_]) -> float:
    return float((prediction & nuclei).sum() / (prediction | nuclei).sum())
