"""``tune-smp train`` from the command line to the exported model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tune_smp.cli import main
from tune_smp.results.folder import read_csv, read_json

Arguments = Callable[..., Sequence[str]]
Command = Callable[..., subprocess.CompletedProcess[str]]
Undisturbed = tuple[Path, subprocess.CompletedProcess[str]]


def test_every_file_of_the_interface_is_there(undisturbed: Undisturbed) -> None:
    output, _ = undisturbed
    for name in (
        *("model/config.json", "model/model.safetensors", "model/preprocessing.json", "model/README.md"),
        *("checkpoint.pth", "history.csv", "settings.json", "split.csv", "summary.json", "logs/train.log", "trials"),
    ):
        assert (output / name).exists(), name
    assert not list(output.glob("**/checkpoint_*")), "Ray's checkpoints are worth nothing once the best is exported"
    assert not list(output.glob("**/.*.tmp"))


def test_one_plain_line_per_epoch(undisturbed: Undisturbed) -> None:
    _, done = undisturbed
    lines = [line for line in done.stdout.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert done.stderr == ""


def test_what_ran_is_recorded_and_reported(undisturbed: Undisturbed) -> None:
    output, _ = undisturbed
    used = read_json(output / "settings.json")["used"]
    decided = {name: used.pop(name) for name in ("threads", "batchSize")}
    assert decided["threads"] >= 1
    assert used == {
        **{"stepsPerEpoch": 12, "tileSize": 64, "learningRate": 1e-3, "weightDecay": 0.0},
        **{"device": "cpu", "precision": "float32"},
    }
    report = (output / "report.html").read_text("utf-8")
    assert f"<code>batchSize</code></td><td>{decided['batchSize']}</td>" in report
    assert f"what runs: batchSize {decided['batchSize']}, stepsPerEpoch 12" in (output / "logs/train.log").read_text()


def test_the_best_row_of_the_history_is_the_summary(undisturbed: Undisturbed) -> None:
    output, _ = undisturbed
    rows = read_csv(output / "history.csv")
    summary = read_json(output / "summary.json")
    best = max(rows, key=lambda row: float(row["val_metric"]))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3, 4]
    assert summary["state"] == "completed"
    assert summary["epochs"] == 4
    assert summary["best_epoch"] == int(best["epoch"])
    assert summary["best_metric"] == pytest.approx(float(best["val_metric"]), rel=1e-9)
    assert summary["trials"] == {"completed": 1}


def test_the_split_names_every_image_once(undisturbed: Undisturbed) -> None:
    output, _ = undisturbed
    rows = read_csv(output / "split.csv")
    assert len({row["image"] for row in rows}) == len(rows) == 10
    assert sum(row["subset"] == "train" for row in rows) == 7


REEVALUATE = """
import json, socket, sys
sys.modules["tune_smp"] = None  # the exported folder stands alone

def refuse(*args, **kwargs):
    raise OSError("no network")

socket.socket.connect = refuse
socket.create_connection = refuse
import numpy, segmentation_models_pytorch, torch
torch.set_num_threads(int(sys.argv[4]))  # another number adds in another order
model = segmentation_models_pytorch.from_pretrained(sys.argv[1]).eval()
with torch.inference_mode():
    logits = model(torch.from_numpy(numpy.load(sys.argv[2])))
numpy.save(sys.argv[3], logits.numpy())
"""


def test_the_exported_model_loads_anywhere_with_the_logits_of_the_best_epoch(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    import numpy as np
    import segmentation_models_pytorch as smp
    import torch

    from tune_smp.training import checkpoint

    output, _ = undisturbed
    images = np.random.default_rng(0).normal(size=(2, 1, 64, 96)).astype(np.float32)
    np.save(tmp_path / "images.npy", images)
    subprocess.run(
        [
            sys.executable,
            "-c",
            REEVALUATE,
            str(output / "model"),
            str(tmp_path / "images.npy"),
            str(tmp_path / "l.npy"),
            str(torch.get_num_threads()),
        ],
        check=True,
        cwd=tmp_path,
    )

    state = checkpoint.load(output / "checkpoint.pth")
    live = smp.Unet("tu-test_efficientnet", encoder_weights=None, in_channels=1, classes=1).eval()
    live.load_state_dict(state["best_model"] or state["model"])
    with torch.inference_mode():
        expected = live(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "l.npy"), expected, rtol=1e-5, atol=1e-6)


def test_the_exported_model_scores_what_the_run_said(undisturbed: Undisturbed) -> None:
    from tune_smp.data.split import read_split
    from tune_smp.data.store.image_store import open_or_build
    from tune_smp.settings.run import RunSettings
    from tune_smp.training.run import TrainingRun

    output, _ = undisturbed
    settings = RunSettings.from_json(read_json(output / "settings.json")["settings"])
    again = settings.with_changes(pretrained_model=output / "model", max_epochs=1)
    assert again.pretrained_model is not None
    from tune_smp.data.pairing.collection import find_pairs

    collection = find_pairs(
        settings.images_folder,
        settings.labels_folder,
        images_pattern=settings.images_pattern,
        labels_pattern=settings.labels_pattern,
    )
    store = open_or_build(collection, mode="binary")
    run = TrainingRun(again, store, read_split(output / "split.csv", store.keys))
    validation = run.validate()
    summary = json.loads((output / "summary.json").read_text())
    assert validation.metric == pytest.approx(summary["best_metric"], abs=1e-6)
    assert validation.metrics.iou == pytest.approx(summary["metric_at_half"], abs=1e-6)
    assert list(summary["thresholds"].values()) == list(validation.thresholds)
    record = json.loads((output / "model" / "preprocessing.json").read_text())
    assert record["thresholds"] == list(validation.thresholds)


def test_what_views_gain_is_measured_shown_and_taken(
    undisturbed: Undisturbed, tune_smp: Command, nuclei: Path, tmp_path: Path
) -> None:
    import numpy as np
    import tifffile

    output, _ = undisturbed
    views = read_json(output / "model" / "preprocessing.json")["views"]
    assert (views["metric"], views["images"], views["device"]) == ("IoU", 3, "cpu")
    assert list(views["presets"]) == ["none", "flips", "all"]
    plain = views["presets"]["none"]["metric"]
    assert plain == pytest.approx(read_json(output / "summary.json")["best_metric"], abs=0.1), (
        "the same model and images"
    )
    card, report = (output / "model" / "README.md").read_text(), (output / "report.html").read_text()
    for name, score in views["presets"].items():
        assert f"| {name} | {score['metric']:.4f} |" in card
        assert f'<code>{name}</code></td><td class="number">{score["metric"]:.4f}</td>' in report
    assert f"`auto` takes\n`{views['recommended']}`" in card

    def predicted(*words: str) -> tuple[np.ndarray, str]:
        folder = tmp_path / (words[-1] if words else "default")
        done = tune_smp(
            *("predict", "--model", output, "--imagesDir", nuclei, "--imagesPattern", "nuclei_000.tif"),
            *("--outputDir", folder, "--device", "cpu", "--output=probabilities", *words),
        )
        assert done.returncode == 0, done.stderr
        return tifffile.imread(folder / "nuclei_000.ome.tif"), done.stdout

    default, said = predicted()
    auto, said_of_auto = predicted("--testTimeAugmentation", "auto")
    taken, _ = predicted("--testTimeAugmentation", views["recommended"])
    np.testing.assert_array_equal(auto, taken)
    recommended = views["presets"][views["recommended"]]["metric"]
    assert ("note: --testTimeAugmentation" in said) == (recommended - plain > 0.002)
    assert "note: --testTimeAugmentation" not in said_of_auto
    assert np.array_equal(default, auto) == (views["recommended"] == "none")


def test_a_finished_run_is_kept(
    undisturbed: Undisturbed, tune_smp: Command, nuclei: Path, arguments_of_train: Arguments
) -> None:
    output, _ = undisturbed
    refused = tune_smp(*arguments_of_train(nuclei, output))
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    again = tune_smp("resume", output)
    assert again.returncode == 0
    assert "nothing to resume" in again.stdout


def test_40_a_run_that_counts_epochs_is_given_no_time(
    undisturbed: Undisturbed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(undisturbed[0]), "--timeBudget", "10m"]) == 2
    error = capsys.readouterr().err
    assert "started without --timeBudget: it has a number of epochs" in error
    assert "--timeBudget 10m" in error


def test_predict_writes_masks_with_the_labels_own_values(
    undisturbed: Undisturbed, tune_smp: Command, nuclei: Path, tmp_path: Path
) -> None:
    import numpy as np
    import tifffile

    output, _ = undisturbed
    masks = tmp_path / "masks"
    done = tune_smp(
        *("predict", "--model", output, "--imagesDir", nuclei, "--imagesPattern", "nuclei_{i:d+}.tif"),
        *("--outputDir", masks, "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in masks.glob("*.tif")) == [f"nuclei_{i:03d}.ome.tif" for i in range(10)]
    for path in sorted((nuclei / "images").iterdir()):
        mask = tifffile.imread(masks / f"{path.stem}.ome.tif")
        assert mask.shape == tifffile.imread(path).shape
        assert set(np.unique(mask)) <= {0, 255}


@pytest.mark.slow
def test_a_new_run_goes_on_from_an_earlier_one(
    undisturbed: Undisturbed, tune_smp: Command, nuclei: Path, arguments_of_train: Arguments, tmp_path: Path
) -> None:
    output, _ = undisturbed
    arguments = list(arguments_of_train(nuclei, tmp_path / "out", "--maxEpochs", "1", "--stepsPerEpoch", "2"))
    # Neither architecture nor encoder is named: the earlier run's are taken, and that is told.
    named = arguments.index("--encoderBaseVariantWeights")
    del arguments[named : named + 2]

    done = tune_smp(*arguments, "--pretrainedModel", output)

    assert done.returncode == 0, done.stderr
    assert "Test,tu-test_efficientnet,random is taken from --pretrainedModel" in done.stdout
    assert "epoch 5/5" in done.stdout
    assert [row["epoch"] for row in read_csv(tmp_path / "out" / "history.csv")] == ["5"]


def test_an_earlier_run_of_another_architecture_is_refused(
    undisturbed: Undisturbed, tune_smp: Command, nuclei: Path, arguments_of_train: Arguments, tmp_path: Path
) -> None:
    output, _ = undisturbed
    arguments = arguments_of_train(nuclei, tmp_path / "out", "--modelName", "Linknet", "--pretrainedModel", str(output))
    refused = tune_smp(*arguments)
    assert refused.returncode == 3
    assert "Unet with tu-test_efficientnet" in refused.stderr
    assert "Linknet" in refused.stderr


@pytest.mark.slow
def test_onnx_comes_last_and_ends_for_padding_by_size_too(
    nuclei: Path, tune_smp: Command, arguments_of_train: Arguments, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    encoder = "MobileNet,timm-mobilenetv3_small_100,random"
    more = ("--encoderBaseVariantWeights", encoder, "--maxEpochs=1", "--stepsPerEpoch=1", "--exportOnnx")
    done = tune_smp(*arguments_of_train(nuclei, tmp_path / "out", *more))
    assert done.returncode == 0, done.stderr
    model = tmp_path / "out" / "model"
    exported = model / "model.onnx"
    assert onnxruntime.InferenceSession(exported).get_inputs()[0].shape[1] == 1
    for name in ("model/model.safetensors", "summary.json", "report.html"):
        assert (tmp_path / "out" / name).stat().st_mtime_ns < exported.stat().st_mtime_ns, name
