"""Whole runs of tiny models on small real files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typing_extensions import override

from tests.training.best import best_weights
from tune_smp.choices.metrics import METRICS
from tune_smp.choices.optimizers import OPTIMIZERS
from tune_smp.data.labels import Mode
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.errors import DataError
from tune_smp.settings.run import RunSettings
from tune_smp.training import checkpoint
from tune_smp.training.feed import VALIDATED_AT_ONCE
from tune_smp.training.metrics import metrics_from_counts
from tune_smp.training.run import TrainingRun
from tune_smp.training.run_state import EpochReport, RunState
from tune_smp.training.validation import Validation

MakeSettings = Callable[..., RunSettings]
MakeStore = Callable[[Mode], ImageStore]
Regions = tuple[Region, ...]
MODES: tuple[Mode, ...] = ("binary", "multilabel", "multiclass")


def history(run: TrainingRun) -> list[dict[str, Any]]:
    """All but the time it took; NaN as text, which equals itself."""
    return [
        {name: "nan" if value in (math.nan,) else value for name, value in row.items() if name != "seconds"}
        for row in run.history
    ]


def run_epochs(run: TrainingRun, count: int) -> TrainingRun:
    for _ in range(count):
        run.run_epoch()
    return run


def stored(run: TrainingRun, path: Path) -> RunState:
    """The state, through a file."""
    checkpoint.save(run.state_dict(), path)
    return checkpoint.load(path)


def assert_same_tensors(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("mode", MODES)
def test_it_learns(make_settings: MakeSettings, make_store: MakeStore, regions: Regions, mode: Mode) -> None:
    ignore_value = 9 if mode == "multiclass" else None
    settings = make_settings(segmentation_mode=mode, ignore_value=ignore_value, max_epochs=5, steps_per_epoch=6)
    run = run_epochs(TrainingRun(settings, make_store(mode), regions), 5)
    first, last = run.history[0], run.history[-1]
    assert last["train_loss"] < first["train_loss"]
    assert last["best_metric"] > first["best_metric"]
    assert last["stop"] == "completed"
    assert [row["epoch"] for row in run.history] == [1, 2, 3, 4, 5]
    assert len(last["class_iou"]) == make_store(mode).class_map.classes


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "LBFGS", "SparseAdam"])
def test_stopped_stored_and_resumed_is_the_same_run(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path, optimizer: str
) -> None:
    settings = make_settings(optimizer_name=optimizer, batch_size=3, augmentation="strong", steps_per_epoch=2)
    store = make_store("binary")
    straight = run_epochs(TrainingRun(settings, store, regions), 4)

    first = run_epochs(TrainingRun(settings, store, regions), 2)
    torch.manual_seed(99)  # what the rest of the process draws is no concern of the run
    second = TrainingRun(settings, store, regions)
    second.load_state_dict(stored(first, tmp_path / "checkpoint.pth"))
    run_epochs(second, 2)

    assert history(second) == history(straight)
    assert_same_tensors(second.model.state_dict(), straight.model.state_dict())
    assert_same_tensors(best_weights(second), best_weights(straight))


@pytest.mark.parametrize("mode", MODES)
def test_a_run_of_an_earlier_version_is_judged_at_a_half_to_its_end(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path, mode: Mode
) -> None:
    settings, store = make_settings(segmentation_mode=mode), make_store(mode)
    state = stored(run_epochs(TrainingRun(settings, store, regions), 1), tmp_path / "checkpoint.pth")
    for row in state["history"]:
        del row["thresholds"]  # type: ignore[misc]
    report = TrainingRun(settings, store, regions, state=state).run_epoch()
    assert report["metric"] == report["val_iou"]
    assert set(report["thresholds"]) <= {0.5}
    assert len(report["thresholds"]) == (0 if mode == "multiclass" else store.class_map.classes)


class Scripted(TrainingRun):
    """A run whose validations are given: with the running statistics, then with those of now, and so on."""

    def __init__(self, found: Sequence[tuple[float, float]], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._found = iter(found)

    @override
    def validate(self, thresholds: Sequence[float] | None = None) -> Validation:
        loss, metric = next(self._found)
        return replace(super().validate(thresholds), loss=loss, metric=metric)


def test_a_model_with_dropout_is_resumed_as_it_was(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path
) -> None:
    """While statistics are taken anew, dropout draws numbers: those of the epoch, whatever was drawn before."""
    settings, store = make_settings(model_name="DeepLabV3Plus", steps_per_epoch=2), make_store("binary")
    rising = [(0.5, metric / 10) for metric in range(10)]  # statistics of now are always better
    straight = Scripted(rising, settings, store, regions)
    assert any(isinstance(layer, nn.Dropout) for layer in straight.model.modules())
    run_epochs(straight, 2)

    first = run_epochs(Scripted(rising, settings, store, regions), 1)
    torch.manual_seed(99)
    second = Scripted(rising[2:], settings, store, regions)
    second.load_state_dict(stored(first, tmp_path / "checkpoint.pth"))
    run_epochs(second, 1)

    assert second.best_epoch == 2
    assert_same_tensors(best_weights(second), best_weights(straight))


@pytest.mark.parametrize(
    ("found", "counts", "stop"),
    [
        ([(0.5, 0.2), (0.6, 0.3)], (0.5, 0.3), None),
        ([(0.5, 0.3), (0.4, 0.2)], (0.5, 0.3), None),
        ([(math.nan, 0.9), (0.4, 0.2)], (0.4, 0.2), None),
        ([(0.5, 0.2), (math.nan, 0.9)], (0.5, 0.2), None),
        ([(math.nan, 0.2), (math.inf, 0.9)], (math.nan, 0.2), "diverged"),
    ],
)
def test_which_of_two_validations_counts(
    make_settings: MakeSettings,
    make_store: MakeStore,
    regions: Regions,
    found: Sequence[tuple[float, float]],
    counts: tuple[float, float],
    stop: str | None,
) -> None:
    """Loss and metric: the better metric, and the loss of the running statistics, as far as they are finite."""
    report = Scripted(found, make_settings(), make_store("binary"), regions).run_epoch()
    assert (report["val_loss"], report["metric"]) == pytest.approx(counts, nan_ok=True)
    assert report["stop"] == stop


def test_state_given_to_the_constructor_is_the_same_as_loaded(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path
) -> None:
    # The earlier model may be gone by the time a run is resumed, and the hub may be out of reach.
    settings, store = make_settings(batch_size=None), make_store("binary")
    first = run_epochs(TrainingRun(settings, store, regions), 1)
    gone = make_settings(batch_size=None, pretrained_model=tmp_path / "gone")
    second = TrainingRun(gone, store, regions, state=stored(first, tmp_path / "checkpoint.pth"))
    unreachable = make_settings(encoder_base_variant_weights="ResNet,resnet18,imagenet")
    with pytest.raises(DataError, match="resnet18"):
        TrainingRun(unreachable, store, regions, state=first.state_dict())
    assert second.batch_size == first.batch_size
    run_epochs(first, 2)
    run_epochs(second, 2)
    assert history(second) == history(first)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    def losses(seed: int) -> list[float]:
        run = run_epochs(TrainingRun(make_settings(seed=seed), make_store("binary"), regions), 2)
        return [row["train_loss"] for row in run.history]

    assert losses(0) == losses(0)
    assert losses(0)[0] != losses(1)[0]


def test_the_callers_random_numbers_stay_as_they_were(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_epochs(TrainingRun(make_settings(batch_size=None), make_store("binary"), regions), 1)
    assert torch.equal(torch.rand(3), expected)


def test_the_best_epoch_is_kept(make_settings: MakeSettings, make_store: MakeStore, regions: Regions) -> None:
    # So many steps that the statistics of batch normalisation are those of the weights.
    settings = make_settings(learning_rate=0.05, max_epochs=4, steps_per_epoch=50)
    run = TrainingRun(settings, make_store("binary"), regions)
    weights = {}
    while run.stop is None:
        report = run.run_epoch()
        weights[report["epoch"]] = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        metrics = [row["metric"] for row in run.history]
        assert report["best_metric"] == max(metrics)
        assert report["best_epoch"] == metrics.index(max(metrics)) + 1  # the first of equals
        assert_same_tensors(best_weights(run), weights[report["best_epoch"]])
        state = run.state_dict()
        assert state["best_model"] is None or report["best_epoch"] < report["epoch"]
        assert all(tensor.is_contiguous() for tensor in (state["best_model"] or {}).values())  # safetensors asks for it


def test_an_early_epoch_is_judged_by_the_better_statistics(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    run = TrainingRun(make_settings(max_epochs=4, steps_per_epoch=3), make_store("binary"), regions)
    chosen = []
    while run.stop is None:
        report = run.run_epoch()
        lagging = run.validate()
        assert report["metric"] >= lagging.metric
        if report["best_epoch"] == report["epoch"]:
            chosen.append(run.state_dict()["best_model"] is not None)
            exported = TrainingRun(run.settings, make_store("binary"), regions, state=run.state_dict())
            exported.model.load_state_dict(best_weights(run))
            assert exported.validate().metric == report["metric"]
        parameters = dict(run.model.named_parameters())
        assert_same_tensors({name: best_weights(run)[name] for name in parameters}, parameters) if chosen[-1] else None
    assert any(chosen)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.key)
def test_the_metric_of_the_settings_decides(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, metric: Any
) -> None:
    report = TrainingRun(make_settings(metric_name=metric.name), make_store("binary"), regions).run_epoch()
    at_half = dict[str, Any](report)[f"val_{metric.key}"]
    assert report["metric"] == report["best_metric"]
    assert len(report["thresholds"]) == 1
    if report["thresholds"] == (0.5,):
        assert report["metric"] == at_half
    else:
        assert metric.has_best_threshold
        assert report["metric"] > at_half


def test_scores_do_not_depend_on_the_batch_size(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    def report(batch_size: int) -> EpochReport:
        # Steps too small to see: all runs validate the same weights.
        settings = make_settings(
            segmentation_mode="multiclass",
            ignore_value=9,
            batch_size=batch_size,
            learning_rate=1e-30,
            loss_name="SoftCrossEntropyLoss",
            steps_per_epoch=1,
            optimizer_name="SGD",
        )
        run = TrainingRun(settings, make_store("multiclass"), regions)
        for layer in run.model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 0.0  # running statistics, too
        run.run_epoch()
        return run.history[0]

    one, three, eight = report(1), report(3), report(8)
    for name in ("val_iou", "val_fscore", "val_accuracy", "val_recall", "val_precision", "val_loss"):
        assert one[name] == pytest.approx(three[name], abs=2e-4), name
        assert one[name] == pytest.approx(eight[name], abs=2e-4), name


def test_early_stopping_looks_at_the_validation_loss(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    settings = make_settings(max_epochs=50, patience=2, min_delta=10.0)  # no fall is ever large enough
    run = TrainingRun(settings, make_store("binary"), regions)
    assert [run.run_epoch()["stop"] for _ in range(3)] == [None, None, "early_stopped"]
    with pytest.raises(RuntimeError, match="early_stopped"):
        run.run_epoch()


def test_a_resumed_run_is_asked_again_whether_it_is_over(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    run = run_epochs(TrainingRun(make_settings(max_epochs=1), make_store("binary"), regions), 1)
    assert run.stop == "completed"
    longer = TrainingRun(make_settings(max_epochs=2), make_store("binary"), regions, state=run.state_dict())
    assert longer.stop is None
    assert longer.run_epoch()["stop"] == "completed"


def test_divergence_is_told_within_the_epoch(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path
) -> None:
    run = TrainingRun(make_settings(), make_store("binary"), regions)
    good = run.run_epoch()
    weights = best_weights(run)
    run.model.register_forward_hook(lambda _model, _images, logits: logits * math.nan)
    bad = run.run_epoch()
    assert any(tensor.isnan().any() for tensor in run.model.state_dict().values())
    assert (bad["stop"], bad["epoch"]) == ("diverged", 2)
    assert math.isnan(bad["train_loss"])
    assert math.isnan(bad["metric"])
    assert math.isnan(bad["val_iou"])
    assert (bad["best_epoch"], bad["best_metric"]) == (good["epoch"], good["metric"])
    assert_same_tensors(best_weights(run), weights)
    state = stored(run, tmp_path / "checkpoint.pth")
    assert state["best_model"] is not None
    assert_same_tensors(state["best_model"], weights)
    resumed = TrainingRun(make_settings(max_epochs=9), make_store("binary"), regions, state=state)
    assert resumed.stop == "diverged"


def test_divergence_in_the_first_epoch_leaves_no_best(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    settings = make_settings(learning_rate=1e30, gradient_clip=0, optimizer_name="SGD", warmup_fraction=0.0)
    run = TrainingRun(settings, make_store("binary"), regions)
    report = run.run_epoch()
    assert report["stop"] == "diverged"
    assert report["best_epoch"] == 0
    assert math.isnan(report["best_metric"])
    assert best_weights(run) == {}


@pytest.mark.parametrize("batch_size", [1, 5])
def test_batches_that_do_not_divide_the_tiles(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, batch_size: int
) -> None:
    settings = make_settings(batch_size=batch_size, model_name="DeepLabV3Plus", steps_per_epoch=2)
    report = TrainingRun(settings, make_store("binary"), regions).run_epoch()
    assert math.isfinite(report["val_loss"])
    assert report["batch_size"] == batch_size


def test_learning_rate_of_the_report(make_settings: MakeSettings, make_store: MakeStore, regions: Regions) -> None:
    settings = make_settings(schedule="linear", warmup_fraction=0.0, learning_rate=1.0, max_epochs=2, steps_per_epoch=4)
    run = TrainingRun(settings.with_changes(gradient_clip=1e-9), make_store("binary"), regions)
    rates = [run.run_epoch()["learning_rate"] for _ in range(2)]
    assert rates == pytest.approx([1 - 3 / 8, 1 - 7 / 8])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_states_of_all_optimizers_are_plain_data(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path, optimizer: str
) -> None:
    settings = make_settings(optimizer_name=optimizer, steps_per_epoch=1, batch_size=2)
    run = run_epochs(TrainingRun(settings, make_store("binary"), regions), 1)
    state = stored(run, tmp_path / "checkpoint.pth")
    again = TrainingRun(settings, make_store("binary"), regions, state=state)
    assert history(again) == history(run)
    assert again.run_epoch()["epoch"] == 2


def test_a_state_of_another_model_is_refused(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    store = make_store("binary")
    state = TrainingRun(make_settings(), store, regions).state_dict()
    other = TrainingRun(make_settings(model_name="FPN"), store, regions)
    with pytest.raises(DataError, match=r"Linknet with tu-test_efficientnet.*FPN with tu-test_efficientnet"):
        other.load_state_dict(state)


def test_notes_survive_a_checkpoint(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path
) -> None:
    store = make_store("binary")
    run = TrainingRun(make_settings(), store, regions)
    limited = run.model.forward

    def forward(images: torch.Tensor) -> torch.Tensor:
        if run.model.training and len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        logits: torch.Tensor = limited(images)
        return logits

    run.model.forward = forward  # a device on which more than two tiles do not fit
    run.run_epoch()
    assert "pieces of 2" in run.notes[0]
    again = TrainingRun(make_settings(), store, regions, state=stored(run, tmp_path / "checkpoint.pth"))
    assert again.notes == run.notes
    assert again.run_epoch()["batch_size"] == 4


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("most", [2, 99])
def test_validating_several_batches_at_once_finds_the_same(
    make_settings: MakeSettings,
    make_store: MakeStore,
    regions: Regions,
    monkeypatch: pytest.MonkeyPatch,
    mode: Mode,
    most: int,
) -> None:
    """As on a GPU; also on one on which no more than ``most`` tiles fit at once."""
    settings, store = make_settings(segmentation_mode=mode, batch_size=2), make_store(mode)
    run = TrainingRun(settings, store, regions)
    one_by_one = run.validate()
    tiles = [len(batch) for batch in run.feed.validation()]
    assert len(tiles) > 3, "or nothing is put together"

    monkeypatch.setitem(VALIDATED_AT_ONCE, "cpu", 3)
    together = TrainingRun(settings, store, regions)
    together.load_state_dict(run.state_dict())
    seen: list[int] = []
    attempts: list[int] = []
    whole = together.model.forward

    def forward(images: torch.Tensor) -> torch.Tensor:
        if len(images) > most:
            attempts.append(len(images))
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(len(images))
        logits: torch.Tensor = whole(images)
        return logits

    together.model.forward = forward
    found = together.validate()
    together.validate()

    assert attempts == ([6] if most < 6 else []), "what did not fit once is not tried again"
    assert max(seen) == min(most, 6)
    assert sum(seen) == 2 * sum(tiles)
    assert found.loss == pytest.approx(one_by_one.loss, rel=1e-5)
    assert found.metrics.iou == pytest.approx(one_by_one.metrics.iou, abs=1e-3)
    assert found.thresholds == one_by_one.thresholds


def test_pixels_reach_the_model_normalised(
    make_settings: MakeSettings, make_store: MakeStore, regions: Regions
) -> None:
    store = make_store("binary")
    run = TrainingRun(make_settings(normalization="zscore", augmentation="none"), store, regions)
    seen: list[torch.Tensor] = []
    run.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    run.run_epoch()
    pixels = torch.cat([images.flatten() for images in seen])
    assert pixels.dtype == torch.float32
    assert abs(pixels.mean().item()) < 0.3
    assert 0.6 < pixels.std().item() < 1.4
    raw = np.unique(store.image(0))
    assert raw.max() > 50


@pytest.mark.parametrize("mode", ["binary", "multiclass", "multilabel"])
def test_the_pixels_of_each_image_add_up_to_the_metric_of_the_best_epoch(
    mode: Mode, make_settings: MakeSettings, make_store: MakeStore, regions: Regions, tmp_path: Path
) -> None:
    run = TrainingRun(make_settings(segmentation_mode=mode, ignore_value=None), make_store(mode), regions)
    while run.stop is None:
        run.run_epoch()
    weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    run.count_images()
    checkpoint.save(run.state_dict(), tmp_path / "state.pth")
    counts = checkpoint.load(tmp_path / "state.pth")["image_counts"]
    assert counts is not None
    assert len(counts) == sum(region.subset == "validation" for region in regions)
    together = np.array(counts).sum(axis=0).tolist()
    assert metrics_from_counts(together, mode).iou == pytest.approx(run.best_metric, abs=1e-6)
    assert all(torch.equal(weights[name], tensor) for name, tensor in run.model.state_dict().items())
