"""What test-time augmentation gains is measured with the model as it is exported, on images that fit the time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from torch import Tensor, nn

from tune_smp.choices.views import PRESETS
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.preprocessing import Preprocessing
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.inference import model_folder
from tune_smp.inference.view_measurement import measure_views

Make = Callable[..., Any]
SIZE = 64


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """Four images whose bright pixels are foreground."""
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(4):
        image = random.integers(0, 200, (SIZE, SIZE)).astype(np.uint8)
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image)
        tifffile.imwrite(tmp_path / "labels" / f"{number}.tif", (image > 100).astype(np.uint8))
    pattern = "{i:d+}.tif"
    found = find_pairs(tmp_path / "images", tmp_path / "labels", images_pattern=pattern, labels_pattern=pattern)
    return open_or_build(found, mode="binary", cache_dir=tmp_path / "cache")


@pytest.fixture
def regions() -> list[Region]:
    return [Region(0, 0, SIZE, 0, SIZE, "train"), *(Region(pair, 0, SIZE, 0, SIZE, "validation") for pair in (1, 2, 3))]


class Blinkered(nn.Module):
    """Sees the brightness well on the left of a tile, and less and less to the right, where it says foreground."""

    def forward(self, images: Tensor) -> Tensor:
        blind = torch.linspace(0, 1, images.shape[-1])
        return (images - 0.5) * 8 * (1 - blind) + 2 * blind


@pytest.fixture
def model(
    tmp_path: Path, export: Make, make_preprocessing: Make, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Preprocessing]:
    """A model folder whose network is Blinkered."""
    preprocessing = make_preprocessing(tile_size=SIZE)
    export(tmp_path / "model", preprocessing)
    monkeypatch.setattr(model_folder, "load_exported", lambda _: Blinkered())
    yield preprocessing


@pytest.mark.usefixtures("model")
def test_every_preset_is_measured_on_the_validation_images(
    tmp_path: Path, store: ImageStore, regions: list[Region]
) -> None:
    gains = measure_views(tmp_path, store, regions, metric_name="IoU", device="cpu", seconds=60)

    assert gains is not None
    assert (gains.metric, gains.images, gains.device) == ("IoU", 3, "cpu")
    counts = {name: [0, 0] for name in PRESETS}
    for region in regions[1:]:
        image, mask = store.image(region.pair).astype(np.float32), store.mask(region.pair)[0] > 0
        scale, offset = (constant[0] for constant in _affine(store, region.pair))
        for name, views in PRESETS.items():
            said = np.mean([_seen(image * scale + offset, *view) for view in views], axis=0) > 0.5
            counts[name][0] += int((said & mask).sum())
            counts[name][1] += int((said | mask).sum())
    for name, (both, either) in counts.items():
        assert gains.presets[name].metric == pytest.approx(both / either, abs=2e-3)
        assert gains.presets[name].seconds > 0
    assert gains.gain("all") > 0.02
    assert gains.recommended != "none"


def _affine(store: ImageStore, pair: int) -> Any:
    from tune_smp.data.normalization import affine

    return affine(store.statistics(pair), "percentile")


def _seen(image: Any, turns: int, mirrored: bool) -> Any:
    axes = (-1,) if mirrored else ()
    turned = torch.from_numpy(np.rot90(np.flip(image, axes), turns, (-2, -1)).copy())
    return np.flip(np.rot90(Blinkered()(turned[None]).sigmoid()[0].numpy(), -turns, (-2, -1)), axes)[0]


@pytest.mark.usefixtures("model")
def test_as_many_images_as_fit_the_time(tmp_path: Path, store: ImageStore, regions: list[Region]) -> None:
    def images(seconds: float, *, tick: float = 1.0) -> int | None:
        ticks = itertools.count()
        gains = measure_views(
            tmp_path, store, regions, metric_name="IoU", device="cpu", seconds=seconds, clock=lambda: next(ticks) * tick
        )
        return gains.images if gains is not None else None

    # Two looks at the clock for each of three presets, and one at the end of an image.
    assert [images(seconds) for seconds in (13, 15, 1000)] == [2, 3, 3]
    assert images(12.9) is None, "a prediction takes a second, and the presets are 13 of them"


@pytest.mark.usefixtures("model")
def test_without_validation_images_nothing_is_measured(tmp_path: Path, store: ImageStore) -> None:
    assert measure_views(tmp_path, store, [Region(0, 0, SIZE, 0, SIZE, "train")], metric_name="IoU", seconds=60) is None
