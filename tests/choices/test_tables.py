"""Every row of every table: names, ranges, and what the tables say of each other."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune_smp.choices.architectures import ARCHITECTURES
from tune_smp.choices.augmentations import AUGMENTATIONS, Augmentation
from tune_smp.choices.catalogue import CATALOGUE
from tune_smp.choices.encoders import ENCODERS
from tune_smp.choices.losses import LOSSES, MODES, Loss
from tune_smp.choices.metrics import METRICS
from tune_smp.choices.normalizations import NORMALIZATIONS
from tune_smp.choices.optimizers import OPTIMIZERS, Optimizer
from tune_smp.choices.samplers import SAMPLERS
from tune_smp.choices.schedulers import SCHEDULERS
from tune_smp.choices.schedules import SCHEDULES, WARMUP_START, Schedule, learning_rate_factor
from tune_smp.results.history import COLUMNS

TABLES: dict[str, Mapping[str, Any]] = {
    "architectures": ARCHITECTURES,
    "encoders": ENCODERS,
    "losses": LOSSES,
    "metrics": METRICS,
    "optimizers": OPTIMIZERS,
    "schedules": SCHEDULES,
    "schedulers": SCHEDULERS,
    "samplers": SAMPLERS,
    "augmentations": AUGMENTATIONS,
    "normalizations": NORMALIZATIONS,
}

# The names that the WIPP plugin promises, in its order.
WIPP_NAMES = {
    "losses": "JaccardLoss DiceLoss TverskyLoss FocalLoss LovaszLoss "
    "SoftBCEWithLogitsLoss SoftCrossEntropyLoss MCCLoss DiceCELoss DiceFocalLoss",
    "metrics": "IoU Fscore Accuracy Recall Precision",
    "optimizers": "Adadelta Adagrad Adam AdamW SparseAdam Adamax ASGD LBFGS RMSprop Rprop SGD",
    "architectures": "Unet UnetPlusPlus MAnet Linknet FPN PSPNet PAN DeepLabV3 DeepLabV3Plus UPerNet Segformer DPT",
}


@pytest.mark.parametrize("subject", list(TABLES))
def test_rows_are_found_under_their_own_name(subject: str) -> None:
    table = TABLES[subject]
    assert table
    assert all(row.name == name for name, row in table.items())


@pytest.mark.parametrize("subject", list(TABLES))
def test_rows_travel_between_processes(subject: str) -> None:
    for row in TABLES[subject].values():
        assert pickle.loads(pickle.dumps(row)) == row  # noqa: S301 - our own bytes


@pytest.mark.parametrize("subject", list(TABLES))
def test_tables_cannot_be_changed(subject: str) -> None:
    with pytest.raises(TypeError):
        TABLES[subject]["new"] = None  # type: ignore[index]  # the type says so, and Python too


@pytest.mark.parametrize("subject", list(WIPP_NAMES))
def test_the_names_of_the_plugin_stay(subject: str) -> None:
    names = WIPP_NAMES[subject].split()
    assert [name for name in TABLES[subject] if name in names] == names


@pytest.mark.parametrize("subject", list(CATALOGUE))
def test_the_catalogue_is_json_and_complete(subject: str) -> None:
    records = json.loads(json.dumps(CATALOGUE[subject]()))
    assert [record["name"] for record in records] == list(TABLES[subject])
    assert len({tuple(record) for record in records}) == 1, "records of one table have the same keys"


def test_the_catalogue_tells_what_does_not_go_together() -> None:
    architectures = {record["name"]: record for record in CATALOGUE["architectures"]()}
    encoders = {record["name"]: record for record in CATALOGUE["encoders"]()}
    assert "VGG" in architectures["PAN"]["not_with"]
    assert architectures["FPN"]["not_with"] == ["ViT"]
    assert encoders["vgg16"]["not_with"] == ["PAN", "DeepLabV3", "DeepLabV3Plus", "DPT"]
    assert encoders["tu-test_efficientnet"]["not_with"] == []
    assert encoders["tu-test_efficientnet"]["weights"] == ["random"]
    assert encoders["resnet18"]["output_strides"] == [8, 16, 32]
    assert encoders["vgg16"]["output_strides"] == [32]
    assert encoders["resnext101_32x48d"]["million_parameters"] == 835.4


@pytest.mark.parametrize("loss", LOSSES.values(), ids=lambda row: row.name)
def test_losses(loss: Loss) -> None:
    assert loss.modes <= set(MODES)
    assert ("binary" in loss.modes) == (loss.name != "SoftCrossEntropyLoss")
    takes_probabilities = {"JaccardLoss", "DiceLoss", "TverskyLoss", "MCCLoss"}
    assert (loss.expects == "probabilities") == (loss.name in takes_probabilities)


def test_metric_keys_are_the_columns_of_history() -> None:
    assert {"iou", "fscore", "accuracy", "recall", "precision"} <= {row.key for row in METRICS.values()}
    assert {row.column for row in METRICS.values()} <= set(COLUMNS)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=lambda row: row.name)
def test_optimizers_are_torchs(optimizer: Optimizer) -> None:
    import inspect

    import torch

    parameters = inspect.signature(getattr(torch.optim, optimizer.name)).parameters
    assert optimizer.has_momentum == ("momentum" in parameters)
    assert optimizer.has_weight_decay == ("weight_decay" in parameters)
    assert optimizer.default_learning_rate > 0
    assert optimizer.has_momentum or optimizer.default_momentum == 0
    assert optimizer.has_weight_decay or optimizer.default_weight_decay == 0
    assert optimizer.needs_closure == (optimizer.name == "LBFGS")
    assert optimizer.sparse_gradients == (optimizer.name == "SparseAdam")


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=lambda row: row.name)
@given(progress=st.floats(0, 1), later=st.floats(0, 1))
def test_schedules_start_at_one_and_never_rise(schedule: Schedule, progress: float, later: float) -> None:
    assert schedule.factor(0.0) == 1.0
    assert 0 <= schedule.factor(progress) <= 1
    if later >= progress:
        assert schedule.factor(later) <= schedule.factor(progress)


@pytest.mark.parametrize(
    ("name", "half"), [("constant", 1), ("cosine", 0.5), ("polynomial", 0.5**0.9), ("linear", 0.5)]
)
def test_schedules_half_way(name: str, half: float) -> None:
    assert SCHEDULES[name].factor(0.5) == pytest.approx(half)


def test_the_step_schedule_falls_twice() -> None:
    factor = SCHEDULES["step"].factor
    assert [factor(progress) for progress in (0.49, 0.5, 0.74, 0.75, 1.0)] == [1.0, 0.1, 0.1, 0.01, 0.01]


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=lambda row: row.name)
@given(progress=st.floats(-1, 2), warmup=st.floats(0, 0.99))
def test_warm_up_climbs_to_the_schedule(schedule: Schedule, progress: float, warmup: float) -> None:
    factor = learning_rate_factor(schedule, progress, warmup)
    assert 0 <= factor <= 1
    assert math.isclose(learning_rate_factor(schedule, warmup, warmup), 1.0)
    if 0 < progress < warmup:
        assert math.isclose(factor, WARMUP_START + (1 - WARMUP_START) * progress / warmup)
    if warmup > 0:
        assert learning_rate_factor(schedule, 0.0, warmup) == WARMUP_START


def test_no_warm_up_is_the_plain_schedule() -> None:
    assert learning_rate_factor(SCHEDULES["linear"], 0.25, 0.0) == 0.75


@pytest.mark.parametrize("row", AUGMENTATIONS.values(), ids=lambda row: row.name)
def test_augmentation_strengths_make_sense(row: Augmentation) -> None:
    low, high = row.scale
    assert 0 < low <= 1 <= high
    assert 0 <= row.rotate_degrees <= 180
    assert 0 <= row.contrast < 1
    assert min(row.shear_degrees, row.brightness, row.gamma, row.noise) >= 0


def test_augmentations_grow_from_none_to_strong() -> None:
    none, light, medium, strong = AUGMENTATIONS.values()
    assert none == Augmentation("none", none.summary)
    assert light.flip
    assert light.quarter_turns
    for strength in ("rotate_degrees", "shear_degrees", "brightness", "contrast", "gamma", "noise"):
        assert getattr(light, strength) <= getattr(medium, strength) <= getattr(strong, strength)


def test_tables_are_made_fast() -> None:
    program = "import time; t = time.process_time(); import tune_smp.choices.catalogue; print(time.process_time() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(runs) < 0.1  # about 0.02 s on an idle machine
