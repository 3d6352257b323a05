"""What a person sees while a search runs."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from tests.epochs import epoch_result
from tests.tuning.records import EPOCH, FLAGS, record
from tune_smp.tuning.display import Display, RunDisplay, RunningTrial, SearchState, running_row
from tune_smp.tuning.lines import (
    counts_line,
    epoch_line,
    epochs_line,
)

NAN = float("nan")


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """The lines that a terminal shows of what was written, as far as a live display needs it.

    What has scrolled out at the top stays among the lines, out of the cursor's reach.
    """

    def __init__(self, written: str, *, height: int = 30) -> None:
        self.height = height
        self.lines = [""]
        self.row = 0
        for part in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
            self._take(part)

    def _take(self, part: str) -> None:
        if part == "\n":
            self.row += 1
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif part == "\x1b[1A":
            self.row = max(self.row - 1, len(self.lines) - self.height, 0)
        elif part == "\x1b[2K":
            self.lines[self.row] = ""
        elif part[0] not in "\r\x1b":
            self.lines[self.row] += part

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("TERM", "xterm-256color")
    return io.StringIO()


def on_terminal(stream: io.StringIO, *, height: int = 30, **more: Any) -> Display:
    console = Console(file=stream, force_terminal=True, width=80, height=height)
    return Display(console, metric_name="IoU", **{"num_trials": 70, **more})


def off_terminal(stream: io.StringIO, **more: Any) -> Display:
    console = Console(file=stream, force_terminal=False, width=40)
    return Display(console, metric_name="IoU", **{"num_trials": 4, **more})


def screen(progress: Display, stream: io.StringIO) -> str:
    """What the terminal shows after the next time that the display is drawn."""
    assert progress._live is not None
    progress._live.refresh()
    return Screen(stream.getvalue()).text


# --- what is known of the trials


@given(st.lists(st.integers(1, 30), max_size=20))
def test_a_trial_has_as_many_epochs_as_its_last_one_says(epochs: list[int]) -> None:
    trial = RunningTrial(record(1, "running"), since=0.0)
    for epoch in epochs:
        trial = trial.after(epoch, metric=0.1, best_metric=epoch / 100)
        assert trial.record.epochs == epoch
        assert trial.record.best_metric == epoch / 100


def test_a_row_of_a_running_trial() -> None:
    trial = RunningTrial(record(3, "running"), since=0.0)
    assert running_row(trial, curve=True)[:5] == ("3", "0/10", "-", "-", "")
    trial = trial.after(1, metric=0.5, best_metric=0.5).after(2, metric=NAN, best_metric=0.5)
    assert running_row(trial, curve=True) == (
        "3",
        "2/10",
        "nan",
        "0.5000",
        "▁ ",
        "FPN resnet18,random Adam lr 3.1e-03",
    )
    assert running_row(trial, curve=False)[4] == ""


def test_a_trial_that_was_interrupted_earlier_goes_on_from_its_epochs() -> None:
    earlier = [record(0, "completed", 0.5), record(1, "interrupted", 0.3, 0.6), record(2, "running", 0.1)]
    state = SearchState(num_trials=5, earlier=earlier)
    assert [trial.number for trial in state.ended] == [0]
    assert state.standing() == "best 0.6000 (trial 1, +0.1000 over the default)"

    state.start(1, FLAGS, max_epochs=20, now=0.0)
    assert running_row(state.running[1], curve=True)[:4] == ("1", "2/20", "-", "0.6000")
    assert epochs_line(state.records) == "4 epochs"

    state.end_epoch(1, 3, metric=0.7, best_metric=0.7)
    assert epochs_line(state.records) == "5 epochs"


def test_a_trial_keeps_its_epochs_while_its_worker_is_replaced() -> None:
    state = SearchState(num_trials=5)
    state.start(1, FLAGS, max_epochs=20, now=0.0)
    state.end_epoch(1, 1, metric=0.7, best_metric=0.7)
    state.restart(1)
    state.start(1, FLAGS, max_epochs=20, now=50.0)
    number, epochs, *_, flags = running_row(state.running[1], curve=True)
    assert (number, epochs) == ("1", "1/20")
    assert flags.startswith("(worker died, resuming) FPN")
    assert state.running[1].since == 0.0

    state.end_epoch(1, 1, metric=0.7, best_metric=0.7)
    assert running_row(state.running[1], curve=True)[-1].startswith("FPN")


def test_a_default_that_failed_or_still_runs_is_no_measure() -> None:
    state = SearchState(num_trials=5, earlier=[record(4, "completed", 0.8), record(0, "failed", 0.5)])
    assert state.standing() == "best 0.8000 (trial 4)"
    state.start(0, {}, max_epochs=5, now=0.0)
    assert state.standing() == "best 0.8000 (trial 4)"
    state.end(record(0, "pruned", 0.7), now=1.0)
    assert state.standing() == "best 0.8000 (trial 4, +0.1000 over the default)"


def test_the_time_left_counts_what_runs_at_a_time() -> None:
    state = SearchState(num_trials=8)
    for number in (0, 1):
        state.start(number, FLAGS, max_epochs=5, now=0.0)
    assert state.seconds_left(50.0) is None
    for number in (0, 1):
        state.end(record(number, "completed", 0.5, seconds=60.0), now=100.0)
    # 6 trials of 100 s, two at a time
    assert state.seconds_left(100.0) == pytest.approx(300.0)


def test_trials_of_an_earlier_session_tell_the_time_left_too() -> None:
    earlier = [record(0, "completed", 0.5, seconds=60.0), record(1, "pruned", 0.5, seconds=40.0)]
    assert SearchState(num_trials=4, earlier=earlier).seconds_left(7.0) == pytest.approx(100.0)


def test_late_news_of_a_trial_that_ended_disturb_nothing() -> None:
    state = SearchState(num_trials=2, earlier=[record(1, "pruned", 0.5)])
    state.end_epoch(1, 2, metric=0.9, best_metric=0.9)
    state.restart(1)
    assert state.standing() == "best 0.5000 (trial 1)"
    assert not state.running


# --- off a terminal


def test_a_time_budget_has_no_number_of_trials(stream: io.StringIO, clock: Clock) -> None:
    assert counts_line([record(0)], running=2, num_trials=None) == "1 trial ended (1 completed), 2 running"
    with off_terminal(stream, clock=clock, time_budget_s=220.0, num_trials=None) as progress:
        for number in (0, 1):
            progress.started(number, FLAGS, 10)
            clock.now += 100.0
            progress.trial_ended(record(number, "pruned", 0.5, seconds=90.0))
    assert "\n2 trials ended (2 pruned)  best 0.5000 (trial 0, the default)  2 epochs, 18 saved" in stream.getvalue()
    assert " of " not in stream.getvalue()


def test_off_a_terminal_every_trial_that_ends_has_its_line(stream: io.StringIO) -> None:
    with off_terminal(stream) as progress:
        for number, metric in enumerate((0.5, 0.75)):
            progress.started(number, FLAGS, 10)
            progress.epoch_ended(number, epoch_result(1, metric))
            progress.trial_ended(record(number, "completed", metric))
        progress.trial_ended(record(2, "failed", reason="[bold]no[/bold] :smile: memory"))
    flags = "FPN ResNet,resnet18,random Adam lr 3.1e-03"
    best_now = "best 0.7500 (trial 1, +0.2500 over the default)"
    assert stream.getvalue().splitlines() == [
        f"trial 0 completed after 1 epoch  IoU 0.5000  best 0.5000 (trial 0, the default)  {flags}",
        f"trial 1 completed after 1 epoch  IoU 0.7500  {best_now}  {flags}",
        f"trial 2 failed before its first epoch ended: [bold]no[/bold] :smile: memory  {best_now}  {flags}",
    ]


def test_off_a_terminal_progress_comes_every_thirty_seconds_at_most(stream: io.StringIO, clock: Clock) -> None:
    with off_terminal(stream, clock=clock, time_budget_s=1000.0) as progress:
        progress.started(0, FLAGS, 100)
        for epoch in range(1, 91):
            clock.now += 1.0
            progress.epoch_ended(0, epoch_result(epoch))
    lines = stream.getvalue().splitlines()
    assert lines == [
        f"0 of 4 trials ended, 1 running, 3 to go  best 0.5000 (trial 0, the default)  {epochs} epochs"
        for epochs in (30, 60, 90)
    ]


def test_the_line_of_progress_tells_the_time_left_within_the_budget(stream: io.StringIO, clock: Clock) -> None:
    with off_terminal(stream, clock=clock, time_budget_s=220.0) as progress:
        for number in (0, 1):
            progress.started(number, FLAGS, 10)
            clock.now += 100.0
            progress.trial_ended(record(number, "pruned", 0.5, seconds=90.0))
    assert stream.getvalue().splitlines()[-1] == (
        "2 of 4 trials ended (2 pruned), 2 to go  best 0.5000 (trial 0, the default)"
        "  2 epochs, 18 saved by pruning and early stopping  about 20 s left of the time budget"
    )


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = io.StringIO()
    with on_terminal(stream) as progress:
        progress.trial_ended(record(0, "completed", 0.5))
    assert stream.getvalue().startswith("trial 0 completed after 1 epoch")


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_breaks_where_only_ascii_can_be_shown(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), force_terminal=terminal, width=80)
    with Display(console, metric_name="IoU", num_trials=3) as progress:
        progress.started(0, {**FLAGS, "modelName": "é" * 60}, 10)
        progress.epoch_ended(0, epoch_result())
        progress.trial_ended(record(1, "failed", reason="tif \udce9 \x1b[2J é"))
        if progress._live:
            progress._live.refresh()
    shown = raw.getvalue().decode("ascii")
    assert "tif ? ?[2J \\xe9" in shown


# --- on a terminal


def test_the_display_tells_the_whole_story(stream: io.StringIO, clock: Clock) -> None:
    with on_terminal(stream, clock=clock, dashboard_url="http://127.0.0.1:8265") as progress:
        for number in range(3):
            progress.started(number, FLAGS, 10)
            progress.epoch_ended(number, epoch_result(1, 0.5, best_metric=0.5 + number / 10))
        clock.now += 60.0
        progress.trial_ended(record(0, "completed", 0.55))
        progress.trial_ended(record(1, "pruned", 0.6))
        shown = screen(progress, stream).splitlines()
    assert shown == [
        "IoU        best 0.7000 (trial 2, +0.1500 over the default)",
        "           FPN resnet18,random Adam lr 3.1e-03",
        "search     2 of 70 trials ended (1 completed, 1 pruned), 1 running, 67 to go",
        "spent      3 epochs, 9 saved by pruning and early stopping",
        "time       1 min, about 22 min left",
        "dashboard  http://127.0.0.1:8265",
        "",
        "trial  epoch     IoU    best",
        "    2   1/10  0.5000  0.7000  ▁         FPN resnet18,random Adam lr 3.1e-03",
        "",
        "trial 0 completed after 1 epoch  IoU 0.5500  FPN ResNet,resnet18,random Adam lr…",
        "trial 1 pruned after 1 epoch  IoU 0.6000  FPN ResNet,resnet18,random Adam lr 3.…",
    ]


def test_of_many_running_trials_the_first_ten_are_shown(stream: io.StringIO) -> None:
    with on_terminal(stream) as progress:
        for number in reversed(range(64)):
            progress.started(number, {**FLAGS, "modelName": "A[bold]rchitecture" * 9}, 100)
            progress.epoch_ended(number, epoch_result(99))
        shown = screen(progress, stream).splitlines()
    rows = [line for line in shown if " 99/100 " in line]
    assert [int(row.split()[0]) for row in rows] == list(range(10))
    assert "and 54 more running" in shown
    assert "A[bold]rch" in rows[0]
    assert max(map(cell_len, shown)) <= 80


@pytest.mark.parametrize("height", [30, 8])
def test_the_terminal_is_left_clean(stream: io.StringIO, height: int) -> None:
    with on_terminal(stream, height=height) as progress:
        for number in range(20):
            progress.started(number, FLAGS, 10)
        progress.trial_ended(record(3, "failed", reason="no memory"))
        before = screen(progress, stream)
        assert "20 running" not in before
        assert "19 running" in before
        assert len(before.splitlines()) <= height
    after = Screen(stream.getvalue(), height=height)
    assert after.text.strip() == ""
    assert after.row == 0


def test_the_display_is_drawn_without_being_asked(stream: io.StringIO) -> None:
    with on_terminal(stream) as progress:
        assert progress._live is not None
        assert progress._live.auto_refresh
        assert progress._live.refresh_per_second <= 4
    assert "no epoch has ended" in stream.getvalue()


# --- a single run


def test_off_a_terminal_a_run_is_a_plain_line_per_epoch(stream: io.StringIO, clock: Clock) -> None:
    console = Console(file=stream, force_terminal=False, width=60)
    with RunDisplay(console, metric_name="IoU", num_trials=1, clock=clock) as progress:
        progress.started(0, {}, 10)
        clock.now += 100
        progress.epoch_ended(0, EPOCH)
        progress.trial_ended(record(0, "completed", 0.72, flags={}))
    assert stream.getvalue() == epoch_line(EPOCH, metric_name="IoU", last_epoch=14) + "\n"


def test_on_a_terminal_a_run_shows_its_epochs_and_the_time_left(stream: io.StringIO, clock: Clock) -> None:
    console = Console(file=stream, force_terminal=True, width=80, height=30)
    with RunDisplay(console, metric_name="IoU", num_trials=1, clock=clock, dashboard_url="http://x") as progress:
        progress.started(0, {}, 10)
        clock.now += 60.0
        progress.epoch_ended(0, EPOCH)
        shown = screen(progress, stream).splitlines()
    assert shown[-4:] == [
        "IoU        best 0.7200  ▁",
        "epoch      3 of 10, at most",
        "time       1 min, about 7 min left",
        "dashboard  http://x",
    ]
    assert shown[0].startswith("epoch 7/14  train_loss 0.4123")
