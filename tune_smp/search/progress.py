"""What a person sees while a run trains: a live line on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def epoch_line(result: Mapping[str, Any], *, metric_name: str, last_epoch: int) -> str:
    """One epoch in one line: ``epoch 3/10  train_loss 0.41  val_loss 0.39  IoU 0.71  best 0.71 @ 3  lr 9e-04``."""
    losses = f"train_loss {result['train_loss']:.4f}  val_loss {result['val_loss']:.4f}"
    metric = f"{metric_name} {result['metric']:.4f}  best {result['best_metric']:.4f} @ {result['best_epoch']}"
    pace = f"lr {result['learning_rate']:.1e}  {result['seconds']:.1f} s"
    return f"epoch {result['epoch']}/{last_epoch}  {losses}  {metric}  {pace}"


class EpochProgress:
    """Shows the epochs of one run as they end.

    On a terminal a bar with the time left stays below the lines.
    """

    def __init__(self, console: Console, *, metric_name: str, max_epochs: int) -> None:
        self._console = console
        self._metric_name = metric_name
        self._max_epochs = max_epochs
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs, at most"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=max_epochs)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, result: Mapping[str, Any]) -> None:
        """Show an epoch that has just ended."""
        last_epoch = result["epochs_before"] + self._max_epochs
        line = epoch_line(result, metric_name=self._metric_name, last_epoch=last_epoch)
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._bar.update(self._task, completed=result["epoch"] - result["epochs_before"])
