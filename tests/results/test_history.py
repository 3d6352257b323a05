"""history.csv grows by a row per epoch, and an epoch that is run again replaces the lost one."""

from __future__ import annotations

from pathlib import Path

from tests.epochs import epoch_result
from tune_smp.results.folder import read_csv
from tune_smp.results.history import COLUMNS, History
from tune_smp.tuning.listeners import EpochResult


def _row(epoch: int, loss: float) -> EpochResult:
    return epoch_result(epoch, train_loss=loss)


def _losses(path: Path) -> dict[int, float]:
    return {int(row["epoch"]): float(row["train_loss"]) for row in read_csv(path)}


def test_every_row_is_on_disk_at_once(tmp_path: Path) -> None:
    history = History(tmp_path / "history.csv")
    for epoch in (1, 2, 3):
        history.add(_row(epoch, 1 / epoch))
        assert _losses(history.path) == {done: 1 / done for done in range(1, epoch + 1)}
    assert tuple(read_csv(history.path)[0]) == COLUMNS


def test_an_epoch_run_again_replaces_what_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    history = History(path)
    for epoch in (1, 2, 3):
        history.add(_row(epoch, 1.0))

    resumed = History(path)
    resumed.add(_row(2, 0.25))

    assert _losses(path) == {1: 1.0, 2: 0.25}


def test_a_history_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("epoch,train_loss,val_iou\n1,0.5,0.25\n")
    History(path).add(_row(2, 0.25))
    first, second = read_csv(path)
    assert (first["val_iou"], first["val_metric"], first["thresholds"]) == ("0.25", "", "")
    assert (second["val_metric"], second["thresholds"]) == ("0.5", "0.5")
