"""What a person sees while a run trains."""

from __future__ import annotations

import io

from rich.console import Console

from tune_smp.search.progress import EpochProgress, epoch_line

RESULT = {
    "epoch": 7,
    "epochs_before": 4,
    "train_loss": 0.41234,
    "val_loss": 0.39,
    "metric": 0.7126,
    "best_metric": 0.72,
    "best_epoch": 6,
    "learning_rate": 9.1e-4,
    "seconds": 12.34,
}


def test_an_epoch_is_one_line() -> None:
    line = epoch_line(RESULT, metric_name="IoU", last_epoch=14)
    assert line == ("epoch 7/14  train_loss 0.4123  val_loss 0.3900  IoU 0.7126  best 0.7200 @ 6  lr 9.1e-04  12.3 s")


def _shown(*, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=60, highlight=False)
    with EpochProgress(console, metric_name="IoU", max_epochs=10) as progress:
        progress.show(RESULT)
    return stream.getvalue()


def test_off_a_terminal_there_is_nothing_but_plain_lines() -> None:
    assert _shown(terminal=False) == epoch_line(RESULT, metric_name="IoU", last_epoch=14) + "\n"


def test_on_a_terminal_a_bar_shows_the_epochs_of_this_run() -> None:
    shown = _shown(terminal=True)
    assert "3/10" in shown
    assert "\x1b" in shown
