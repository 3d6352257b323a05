"""The final of a search, and the refit of a search and of a train, from the command line to what predict takes."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tests.end_to_end.sessions import end_in_order, family_of
from tune_smp.data.preprocessing import read_preprocessing
from tune_smp.inference.model_folder import open_model
from tune_smp.results.folder import read_csv, read_json
from tune_smp.results.leaderboard import read_trials

Arguments = Callable[..., Sequence[str]]
Command = Callable[..., subprocess.CompletedProcess[str]]
Finished = tuple[Path, subprocess.CompletedProcess[str]]
Reader = Callable[[Path], Any]

# Four trials, and half of all runs for the final: each of the four once more.
FINAL = ("--numTrials=4", "--finalists=0.5")


@pytest.fixture(scope="module")
def with_final(
    tmp_path_factory: pytest.TempPathFactory, tune_smp: Command, nuclei: Path, arguments_of_search: Arguments
) -> Finished:
    """A search with a final of one round and a refit."""
    output = tmp_path_factory.mktemp("final") / "out"
    done = tune_smp(*arguments_of_search(nuclei, output, *FINAL))
    assert done.returncode == 0, done.stdout + done.stderr
    return output, done


def test_the_final_decides(with_final: Finished, search_folder: Reader) -> None:
    output, done = with_final
    folder = search_folder(output)
    folder.assert_consistent(8)
    rows, summary = folder.rows, folder.summary
    repeated = {int(row["finalist_of"]): row for row in rows.values() if row["finalist_of"]}
    assert sorted(repeated) == [0, 1, 2, 3]
    for number, row in repeated.items():
        assert (row["learningRate"], row["optimizerName"]) == tuple(
            rows[number][flag] for flag in ("learningRate", "optimizerName")
        )
    standings = {row["trial"]: row["mean"] for row in summary["final"]["standings"]}
    assert standings == {number: float(row["best_metric"]) for number, row in repeated.items()}
    winner = max(standings, key=lambda number: (standings[number], -number))
    runs = [rows[winner], repeated[winner]]
    best = max(runs, key=lambda row: float(row["best_metric"]))
    assert summary["best_trial"] == int(best["trial"])
    assert summary["evaluated_metric"] == pytest.approx(float(best["best_metric"]), abs=1e-6)
    assert f"final: trial {winner} has IoU {standings[winner]:.4f} in the mean of 1 fresh seed" in done.stdout
    assert "the best trials and the default, on fresh seeds: 4 runs" in done.stdout


def test_how_sure_it_is_comes_from_each_image(with_final: Finished) -> None:
    """The gain is the difference of the two means, as whole validation sets are counted; the interval is around it."""
    final = read_json(with_final[0] / "summary.json")["final"]
    means = {row["trial"]: row["mean"] for row in final["standings"]}
    winner = final["standings"][0]["trial"]
    if winner == 0:
        assert final["gain"] is None
        return
    assert final["gain"]["mean"] == pytest.approx(means[winner] - means[0], abs=1e-6)
    assert final["gain"]["low"] <= final["gain"]["mean"] <= final["gain"]["high"]
    validation = [row for row in read_csv(with_final[0] / "split.csv") if row["subset"] == "validation"]
    assert final["images"] == len(validation)


def test_the_winner_is_trained_on_all_images_beside_the_proved_model(with_final: Finished) -> None:
    output, done = with_final
    summary = read_json(output / "summary.json")
    assert summary["refit"]["model"] == str(output / "refit" / "model")
    assert summary["refit"]["images"] == 10
    assert "refit: the best settings once more, on all 10 images:" in done.stdout
    trained_on = {row["image"] for row in read_csv(output / "refit" / "split.csv") if row["subset"] == "train"}
    assert trained_on == {row["image"] for row in read_csv(output / "split.csv")}
    proved, refit = (read_preprocessing(output / name) for name in ("model", "refit/model"))
    assert (refit.architecture, refit.encoder, refit.tile_size) == (proved.architecture, proved.encoder, 64)
    assert refit.thresholds == proved.thresholds, "its own were found on images that it has seen"
    assert refit.metric == {"name": "IoU", "proved": summary["final"]["standings"][0]["mean"]}
    card = (output / "refit/model/README.md").read_text("utf-8")
    assert "10 for training, none kept back" in card
    assert re.search(r"not measured: .* reached 0\.\d{4} on the others \(mean of 1 run\)", card)
    assert not list((output / "refit").glob("trials/**/checkpoint_*"))


def test_predict_takes_the_refit_of_the_folder_and_the_proved_model_when_it_is_named(with_final: Finished) -> None:
    output, _ = with_final
    assert open_model(output).path == output / "refit" / "model"
    assert open_model(output / "model").path == output / "model"


def test_the_table_names_the_runs_of_the_final(with_final: Finished) -> None:
    from tune_smp.results.folder import RunFolder

    rows = read_trials(RunFolder(with_final[0]))
    assert sorted(row.finalist_of for row in rows if row.finalist_of is not None) == [0, 1, 2, 3]
    report = (with_final[0] / "report.html").read_text("utf-8")
    assert "Final" in report


@pytest.mark.timeout(600)  # three programs, one after the other, each with a bound of its own
def test_wherever_the_driver_dies_the_final_and_the_refit_are_resumed(
    nuclei: Path,
    tmp_path: Path,
    arguments_of_search: Arguments,
    environment: dict[str, str],
    search_folder: Reader,
    tune_smp: Command,
) -> None:
    """SIGKILL in the final, SIGTERM in the refit."""
    output = tmp_path / "out"

    def begun(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tune_smp", *words],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(program: subprocess.Popen[str], there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 150
        while not there():
            assert time.monotonic() < deadline
            assert program.poll() is None, program.communicate()
            time.sleep(0.02)

    histories = output / "trials" / "histories"
    program = begun(*arguments_of_search(nuclei, output, *FINAL))
    wait_for(program, lambda: len(list(histories.glob("*.csv"))) > 4)
    family = family_of(program)
    program.kill()
    program.communicate()
    for child in family:
        if child.is_running():
            child.kill()
    folder = search_folder(output)
    assert len(folder.study) == 8, "the final was planned"

    program = begun("resume", str(output))
    wait_for(program, (output / "refit" / "history.csv").exists)
    assert len(list(histories.glob("*.csv"))) == 8
    _, errors = end_in_order(program, signal.SIGTERM)
    if program.returncode != 0:  # the refit is short, and may have come to its end first
        assert program.returncode == 130, errors
        assert f"resume with: tune-smp resume {output}" in errors
        assert folder.summary["state"] == "interrupted"
        assert folder.summary["evaluated_metric"] is not None, "the proved model is there already"
        done = tune_smp("resume", output)
        assert done.returncode == 0, done.stderr
    folder.assert_consistent(8)
    assert (folder.summary["state"], folder.summary["refit"]["images"]) == ("completed", 10)
    assert len(folder.summary["final"]["standings"]) == 4
    epochs = [int(row["epoch"]) for row in read_csv(output / "refit" / "history.csv")]
    assert epochs == list(range(1, len(epochs) + 1)), "neither gaps nor doubles"


def test_a_train_can_have_a_refit_too(
    nuclei: Path, tmp_path: Path, arguments_of_train: Arguments, tune_smp: Command
) -> None:
    """For as many steps as its best epoch had; predict of the folder takes it."""
    output, masks = tmp_path / "out", tmp_path / "masks"
    flags = ("--maxEpochs", "3", "--stepsPerEpoch", "4", "--refit", "--learningRate", "0.01")
    done = tune_smp(*arguments_of_train(nuclei, output, *flags))
    assert done.returncode == 0, done.stdout + done.stderr
    summary = read_json(output / "summary.json")
    settings = read_json(output / "refit" / "settings.json")["settings"]["values"]
    assert (settings["maxEpochs"], settings["stepsPerEpoch"]) == (summary["best_epoch"], 4)
    assert (settings["batchSize"], settings["refit"]) == (4, False)
    if summary["refit"] is None:
        assert "note: the refit is left out" in done.stdout
        return
    images = nuclei / "images"
    done = tune_smp("predict", "--model", output, "--imagesDir", images, "--outputDir", masks, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert f"the model that was measured: {output / 'model'}" in done.stdout
    assert {path.name for path in masks.iterdir()} == {f"{path.stem}.ome.tif" for path in images.iterdir()}
    assert np.unique(tifffile.imread(next(masks.iterdir()))).size <= 2
