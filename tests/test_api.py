"""The Python API: results, arrays, listeners; and that the code of docs/python.md and of the notebook runs."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from rich.console import Console
from typing_extensions import override

import tune_smp
from tune_smp.data.synthetic import write_nuclei
from tune_smp.errors import DataError, SettingsError
from tune_smp.workflows.printing import output, printing_to

TINY = {
    "encoder_base_variant_weights": "Test,tu-test_efficientnet,random",
    "tile_size": 64,
    "batch_size": 4,
    "max_epochs": 2,
    "steps_per_epoch": 3,
    "device": "cpu",
    "dashboard": False,
}


class Heard(tune_smp.Listener):
    """What a listener heard."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.ending = ""

    @override
    def epoch_ended(self, number: int, result: tune_smp.tuning.listeners.EpochResult) -> None:
        self.epochs.append(result["epoch"])

    @override
    def search_ended(self, ending: str) -> None:
        self.ending = ending


def flags_of(folder: Path) -> dict[str, Any]:
    return {
        "images_dir": folder / "images",
        "labels_dir": folder / "labels",
        "images_pattern": "nuclei_{i:d+}.tif",
        "labels_pattern": "nuclei_{i:d+}.tif",
        "segmentation_mode": "binary",
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[tune_smp.Result, Heard]:
    """A run of two epochs, and what a listener heard of it."""
    folder = tmp_path_factory.mktemp("api")
    write_nuclei(folder, count=6, size=(96, 96), seed=3)
    heard = Heard()
    flags = {**flags_of(folder), **TINY, "output_dir": folder / "out", "cache_dir": folder / "cache"}
    return tune_smp.train(**flags, listeners=[heard]), heard


def test_a_result_says_what_is_in_the_folder(trained: tuple[tune_smp.Result, Heard]) -> None:
    result, heard = trained
    assert (result.state, result.metric, heard.epochs, heard.ending) == ("completed", "IoU", [1, 2], "completed")
    assert result.model is not None
    assert (result.model / "model.safetensors").is_file()
    assert result.report.is_file()
    epochs = result.history()
    assert list(epochs["epoch"]) == [1, 2]
    assert result.best_metric == pytest.approx(epochs["val_metric"].max(), abs=1e-9)
    assert result.trials().empty
    shown = result._repr_html_()
    assert f"<th>best IoU</th><td>{result.best_metric:.4f}</td>" in shown
    with pytest.raises(AttributeError):
        result.summary = None  # type: ignore[misc, assignment]


def test_nothing_is_printed_but_to_a_console(
    trained: tuple[tune_smp.Result, Heard], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = trained[0].output_dir.parent
    findings = tune_smp.check(**flags_of(data), cache_dir=data / "cache")
    assert (findings.pairs, findings.channels) == (6, 1)
    assert any("value 255" in note for note in findings.notes)
    assert capsys.readouterr() == ("", "")
    with (tmp_path / "printed").open("w") as file:
        tune_smp.check(**flags_of(data), cache_dir=data / "cache", console=Console(file=file))
    assert "no problems found" in (tmp_path / "printed").read_text()
    assert capsys.readouterr() == ("", "")


def test_arrays_and_files_give_the_masks_of_predict(trained: tuple[tune_smp.Result, Heard], tmp_path: Path) -> None:
    result, _ = trained
    images = result.output_dir.parent / "images"
    summary = tune_smp.predict(model=result.output_dir, images_dir=images, output_dir=tmp_path / "masks", device="cpu")
    assert len(summary.outputs) == 6
    model = result.load(device="cpu")
    path = sorted(images.iterdir())[0]
    pixels, mask = tifffile.imread(path), tifffile.imread(tmp_path / "masks" / f"{path.stem}.ome.tif")
    assert {0, 255} >= set(np.unique(mask).tolist())
    for image in (pixels, pixels[None], path, str(path), pixels.astype(np.float64), pixels.astype(np.int64)):
        labels = model.predict(image)
        assert labels.shape == (96, 96)
        np.testing.assert_array_equal(labels, mask)
    planes = model.predict(np.stack([pixels[None], 255 - pixels[None]]))
    assert planes.shape == (2, 96, 96)
    np.testing.assert_array_equal(planes[0], mask)
    probabilities = model.predict(pixels, output="probabilities")
    assert (probabilities.shape, probabilities.dtype) == ((1, 96, 96), np.dtype(np.float32))
    (threshold,) = model.preprocessing.class_thresholds
    np.testing.assert_array_equal(probabilities[0] > threshold, mask > 0)


@pytest.mark.parametrize("shape", [(96,), (3, 96, 96), (2, 3, 96, 96), (1, 1, 1, 96, 96), (0, 96)])
def test_arrays_that_are_no_images_are_named(trained: tuple[tune_smp.Result, Heard], shape: tuple[int, ...]) -> None:
    model = tune_smp.load(trained[0].output_dir, device="cpu")
    named = re.escape(f"shape {shape} is no image for a model of 1 channels")
    fitting = re.escape("(H, W), (1, H, W) or (Z, 1, H, W)")
    words = f"{named}\n.*{fitting}"
    with pytest.raises(DataError, match=words):
        model.predict(np.zeros(shape, np.uint8))


def test_pixels_that_are_no_numbers_are_refused(trained: tuple[tune_smp.Result, Heard]) -> None:
    model = trained[0].load(device="cpu")
    for pixels in (np.full((64, 64), np.nan), np.full((64, 64), 1e300), np.full((64, 64), "a")):
        with pytest.raises(DataError):
            model.predict(pixels)


def test_resuming_what_is_finished_gives_nothing(trained: tuple[tune_smp.Result, Heard]) -> None:
    assert tune_smp.resume(trained[0].output_dir) is None


def test_settings_or_flags(trained: tuple[tune_smp.Result, Heard], tmp_path: Path) -> None:
    settings = tune_smp.RunSettings(**flags_of(tmp_path), output_dir=tmp_path / "out")
    with pytest.raises(SettingsError, match="settings and flags are given at once"):
        tune_smp.train(settings, tile_size=64)
    with pytest.raises(SettingsError, match=r"--tileSize must be(.|\n)*--outputDir is required"):
        tune_smp.train(**flags_of(tmp_path), tile_size=1)


def test_the_front_door_is_light_and_complete() -> None:
    program = """
import sys, time
started = time.perf_counter()
import tune_smp
assert time.perf_counter() - started < 0.1
assert not {"torch", "ray", "pydantic", "rich", "numpy"} & set(sys.modules)
from tune_smp import *
import tune_smp.tuning.tuner
from tune_smp import search, train
assert callable(search) and callable(train)
assert set(tune_smp.__all__) <= set(dir(tune_smp))
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_a_program_keeps_the_ray_that_it_has(trained: tuple[tune_smp.Result, Heard], tmp_path: Path) -> None:
    """Even from a thread, where Python takes no signals."""
    program = f"""
import threading, ray, tune_smp
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
found = []
flags = { ({**{k: str(v) for k, v in flags_of(trained[0].output_dir.parent).items()}, **TINY})!r}
def run():
    found.append(tune_smp.search(**{{k: v for k, v in flags.items()}}, output_dir={str(tmp_path / "found")!r},
                                 search_space="quick", num_trials=2))
thread = threading.Thread(target=run)
thread.start(); thread.join()
assert ray.is_initialized()
(result,) = found
assert len(result.trials()) == 2, result.trials()
assert len(result.history()) == 2 and len(result.history(trial=0)) == 2
assert ray.cluster_resources()["CPU"] == 1
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def run_as_a_script(code: str, folder: Path) -> str:
    write_nuclei(folder / "data", count=6, size=(96, 96), seed=3)
    script = folder / "script.py"
    script.write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_of_the_page_runs(repository: Path, tmp_path: Path) -> None:
    page = (repository / "docs" / "python.md").read_text("utf-8")
    printed = run_as_a_script("\n".join(re.findall(r"```python\n(.*?)```", page, re.S)), tmp_path)
    assert "(100, 130) uint8 (1, 100, 130)" in printed
    assert "\n6\n1\n" in f"\n{printed}"


def test_the_notebook_runs(repository: Path, tmp_path: Path) -> None:
    notebook = json.loads((repository / "examples" / "first_model.ipynb").read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in notebook["cells"]), "outputs are not committed"
    printed = run_as_a_script("\n".join(cells), tmp_path)
    assert "the best of 2 trials" in printed


def test_what_was_printed_to_is_printed_to_again(capsys: pytest.CaptureFixture[str]) -> None:
    with printing_to(None):
        output.print("nowhere")
    with contextlib.redirect_stdout(io.StringIO()) as elsewhere:
        output.print("[bold]of today[/bold] :smile:")
    assert elsewhere.getvalue() == "[bold]of today[/bold] :smile:\n"
    output.print("here")
    assert capsys.readouterr().out == "here\n"
