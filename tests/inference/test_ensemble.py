"""Two different nets as one model, through the real writer and the real reader: what it says is the mean of theirs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tune_smp.choices.views import PRESETS
from tune_smp.data.channel_statistics import image_statistics
from tune_smp.data.ensemble_record import EnsembleMember, EnsembleRecord, read_ensemble
from tune_smp.data.normalization import Normalization
from tune_smp.data.preprocessing import FILE_NAME, Preprocessing
from tune_smp.errors import DataError, SettingsError
from tune_smp.inference.array_predictor import load_predictor
from tune_smp.inference.blending import Rows
from tune_smp.inference.ensemble import averaged
from tune_smp.inference.model_folder import open_model
from tune_smp.inference.prediction import predict_folder
from tune_smp.inference.predictor import Predictor
from tune_smp.results.ensemble_export import describe_ensemble, export_ensemble, withdraw_ensemble
from tune_smp.results.onnx_export import write_onnx
from tune_smp.settings.predict import PredictSettings
from tune_smp.training.pretrained import load_exported

Make = Callable[..., Any]
WEIGHTS = (0.75, 0.25)
MINMAX, CONSTANT = Normalization("minmax", "image"), Normalization("zscore", "collection", (0.02,), (-1.5,))


def record(thresholds: tuple[float, ...] = (0.375,), **changes: Any) -> EnsembleRecord:
    members = (EnsembleMember(".", WEIGHTS[0], 4), EnsembleMember("members/1", WEIGHTS[1], 2))
    made = EnsembleRecord(members, thresholds, "IoU", metric=0.8, single=0.78, low=0.01, images=9, cost=2.5)
    return replace(made, **changes)


def save(architecture: Any, folder: Path, preprocessing: Preprocessing, seed: int) -> None:
    classes = preprocessing.class_map.classes
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = architecture("tu-test_efficientnet", encoder_weights=None, in_channels=1, classes=classes)
    net.save_pretrained(folder)
    (folder / FILE_NAME).write_text(json.dumps(preprocessing.to_json()))
    (folder / "README.md").write_text("# a model\n")


@pytest.fixture
def ensemble(tmp_path: Path, make_preprocessing: Make) -> Callable[..., Path]:
    """A model folder of a Unet on tiles of 32 px and a Linknet on tiles of 64 px, of two normalisations."""

    def make(mode: str = "binary", thresholds: tuple[float, ...] = (0.375,)) -> Path:
        first = make_preprocessing(mode, normalization=MINMAX, tile_size=32)
        second = make_preprocessing(mode, normalization=CONSTANT, tile_size=64, architecture="Linknet")
        save(smp.Unet, tmp_path / "model", first, 0)
        save(smp.Linknet, tmp_path / "second" / "model", second, 1)
        export_ensemble(tmp_path / "model", record(thresholds), {4: Path(), 2: tmp_path / "second" / "model"})
        return tmp_path / "model"

    return make


def image(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 200, shape).astype(np.uint8)


def by_hand(model: Path, pixels: NDArray[Any], **options: Any) -> NDArray[np.float32]:
    """The mean of what the two say alone."""
    alone = [load_predictor(folder, device="cpu", **options) for folder in (_alone(model), model / "members" / "1")]
    said = [one.predict(pixels, output="probabilities") for one in alone]
    return np.average(said, axis=0, weights=WEIGHTS).astype(np.float32)


def _alone(model: Path) -> Path:
    """The best trial's own files without the others."""
    copied = model.parent / "alone"
    shutil.copytree(model, copied, ignore=lambda *_: ["members", "ensemble.json"], dirs_exist_ok=True)
    return copied


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_probabilities_are_the_weighted_mean_each_net_with_its_own_normalisation_and_tiles(
    ensemble: Make, mode: str
) -> None:
    classes = {"binary": 1, "multilabel": 2, "multiclass": 0}[mode]
    model = ensemble(mode, (0.375,) * classes)
    pixels = image(90, 130)

    found = load_predictor(model, device="cpu")

    soft = found.predict(pixels, output="probabilities")
    np.testing.assert_allclose(soft, by_hand(model, pixels), atol=1e-5)
    assert (
        np.abs(soft - load_predictor(_alone(model), device="cpu").predict(pixels, output="probabilities")).max() > 1e-3
    )
    assert found.preprocessing.thresholds == (0.375,) * classes


def test_tiles_and_views_that_are_asked_for_hold_for_every_member(ensemble: Make) -> None:
    model, pixels = ensemble(), image(90, 130)
    for options in ({"tile_size": 96}, {"test_time_augmentation": "flips"}, {"overlap": 0, "batch_size": 1}):
        found = load_predictor(model, device="cpu", **options).predict(pixels, output="probabilities")
        np.testing.assert_allclose(found, by_hand(model, pixels, **options), atol=1e-5)
    plain = open_model(model).predictor()
    assert plain.with_views(PRESETS["all"]) is not plain
    with pytest.raises(SettingsError, match="multiple of 32"):
        load_predictor(model, tile_size=40)


def test_planes_are_each_normalised_by_themselves(ensemble: Make) -> None:
    model = ensemble()
    planes = np.stack([image(1, 40, 50), image(1, 40, 50, seed=1) // 8])
    found = load_predictor(model, device="cpu").predict(planes, output="probabilities")
    for plane, said in zip(planes, found, strict=True):
        np.testing.assert_allclose(said, by_hand(model, plane), atol=1e-5)


def test_predict_writes_labels_at_the_ensembles_thresholds(ensemble: Make, tmp_path: Path) -> None:
    model, pixels = ensemble(), image(70, 80)
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "0.tif", pixels)
    middle = float(np.median(by_hand(model, pixels)))
    (model / "ensemble.json").write_text(json.dumps(record((middle,)).to_json()))
    common = {"model": model, "images_dir": tmp_path / "images", "device": "cpu"}

    predict_folder(PredictSettings(**common, output_dir=tmp_path / "own"))
    predict_folder(PredictSettings(**common, output_dir=tmp_path / "given", threshold=middle * 0.9))

    own, given_one = (tifffile.imread(tmp_path / name / "0.ome.tif") > 0 for name in ("own", "given"))
    assert int(own.sum()) == pytest.approx(70 * 80 / 2, abs=20)
    np.testing.assert_array_equal(given_one, by_hand(model, pixels)[0] > middle * 0.9)


def test_one_bad_image_leaves_the_others_alone(ensemble: Make, tmp_path: Path) -> None:
    model = ensemble()
    (tmp_path / "images").mkdir()
    for number in range(3):
        tifffile.imwrite(tmp_path / "images" / f"{number}.tif", image(40, 50, seed=number).astype(np.float32))
    tifffile.imwrite(tmp_path / "images" / "1.tif", np.full((40, 50), np.nan, np.float32))
    options = {"model": model, "images_dir": tmp_path / "images", "device": "cpu", "output": "probabilities"}

    summary = predict_folder(PredictSettings(**options, output_dir=tmp_path / "out", skip_corrupt=True))

    assert summary.skipped == ("1.tif",)
    for number in (0, 2):
        said = tifffile.imread(tmp_path / "out" / f"{number}.ome.tif")
        wanted = by_hand(model, image(40, 50, seed=number).astype(np.float32))
        np.testing.assert_allclose(np.squeeze(said), np.squeeze(wanted), atol=1e-5)


def test_the_best_trial_stays_where_everybody_looks_for_it(ensemble: Make) -> None:
    model = ensemble()
    plain = smp.from_pretrained(model).eval()
    own = load_exported(model)
    pixels = torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(plain(pixels), own(pixels))
    assert read_ensemble(model) == record()
    describe_ensemble(model, record())
    card = (model / "README.md").read_text()
    assert "| `members/1` | 2 | 0.25 |" in card
    assert "+0.0200 against the best trial alone" in card
    withdraw_ensemble(model)
    assert open_model(model).members == ()
    assert sorted(path.name for path in model.iterdir()) == [
        *("README.md", "config.json", "model.safetensors", "preprocessing.json")
    ]


@pytest.mark.parametrize("mode", ["binary", "multiclass"])
def test_onnx_gives_the_ensembles_probabilities(ensemble: Make, mode: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    model = ensemble(mode, (0.375,) if mode == "binary" else ())
    assert write_onnx(model) == ""

    session = onnxruntime.InferenceSession(model / "model.onnx", providers=["CPUExecutionProvider"])
    images = np.stack([image(1, 64, 96), image(1, 64, 96, seed=1) // 3])
    members = [one.preprocessing.normalization for one in open_model(model).members]
    affine = [[norm.affine(image_statistics([pixels])) for norm in members] for pixels in images]
    scale, offset = (np.array([[pair[part] for pair in row] for row in affine], np.float32) for part in (0, 1))
    (found,) = session.run(None, {"images": images.astype(np.float32), "scale": scale, "offset": offset})

    nets = [load_exported(one.path) for one in open_model(model).members]
    for pixels, constants, said in zip(images, affine, found, strict=True):
        wanted: Any = 0
        for net, weight, (own_scale, own_offset) in zip(nets, WEIGHTS, constants, strict=True):
            with torch.inference_mode():
                logits = net(torch.from_numpy(pixels * own_scale[0] + own_offset[0])[None].float())[0]
            wanted = wanted + weight * (logits.softmax(0) if mode == "multiclass" else logits.sigmoid())
        np.testing.assert_allclose(said, wanted.numpy(), atol=1e-3)
    assert scale[0, 0, 0] != scale[1, 0, 0], "each image has constants of its own where the member wants them"
    assert scale[0, 1, 0] == scale[1, 1, 0] == np.float32(0.02)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"members": []}, "ensemble.json cannot be read"),
        ({"members": [{"folder": "../other", "weight": 1.0, "trial": 1}]}, "is no folder of a member"),
        ({"members": [{"folder": ".", "weight": 0.4, "trial": 1}]}, "must add up to 1"),
        ({"members": [{"folder": ".", "weight": -1.0, "trial": 1}]}, "a weight must be above 0"),
        ({"members": [{"folder": "members/7", "weight": 1.0, "trial": 1}]}, "there is no|lacks"),
        ({"thresholds": [0.5, 0.5]}, "other channels or classes"),
        ({"thresholds": [1.5]}, "between 0 and 1"),
        ({"thresholds": None}, "ensemble.json cannot be read"),
        ({"format_version": 9}, "format 9, this tune-smp reads up to 1"),
    ],
)
def test_an_ensemble_that_cannot_be(ensemble: Make, change: dict[str, Any], said: str) -> None:
    model = ensemble()
    (model / "ensemble.json").write_text(json.dumps({**record().to_json(), **change}))
    with pytest.raises(DataError, match=said) as told:
        open_model(model)
    assert model.name in str(told.value)


def test_a_member_of_other_classes_is_refused(ensemble: Make, make_preprocessing: Make) -> None:
    model = ensemble()
    save(smp.Linknet, model / "members" / "1", make_preprocessing("multilabel"), 1)
    with pytest.raises(DataError, match="other channels or classes"):
        open_model(model)


def cut(field: NDArray[np.float32], heights: list[int]) -> list[Rows]:
    ends = np.cumsum([0, *heights])
    return [Rows(2, int(top), field[:, top:end]) for top, end in pairwise(ends)]


@st.composite
def cuttings(draw: Any) -> tuple[int, list[list[int]]]:
    height = draw(st.integers(1, 30))
    places = draw(st.lists(st.lists(st.integers(0, height), max_size=6), min_size=1, max_size=3))
    return height, [[int(step) for step in np.diff([0, *sorted(some), height])] for some in places]


@settings(max_examples=80, deadline=None)
@given(cuttings())
def test_strips_of_any_heights_are_averaged_row_by_row(cutting: tuple[int, list[list[int]]]) -> None:
    height, heights = cutting
    fields = [np.random.default_rng(place).random((2, height, 5), np.float32) for place in range(len(heights))]
    weights = [(place + 1) / sum(range(1, len(fields) + 1)) for place in range(len(fields))]
    streams = [iter(cut(field, own)) for field, own in zip(fields, heights, strict=True)]

    strips = list(averaged(streams, weights))

    assert [strip.y for strip in strips] == list(np.cumsum([0, *(s.probabilities.shape[1] for s in strips)])[:-1])
    assert {strip.plane for strip in strips} == {2}
    whole = np.concatenate([strip.probabilities for strip in strips], axis=1)
    np.testing.assert_allclose(whole, np.average(fields, axis=0, weights=weights), atol=1e-6)


def test_the_image_is_read_once_for_all_members(ensemble: Make, make_source: Make) -> None:
    model = ensemble()
    source, alone = make_source(image(1, 1, 90, 130)), make_source(image(1, 1, 90, 130))
    list(open_model(model).predictor().predict(source))
    list(Predictor(load_exported(model), open_model(_alone(model)).preprocessing).predict(alone))
    assert source.heights == alone.heights == [90]
