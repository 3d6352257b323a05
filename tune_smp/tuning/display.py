"""The display of trials while they run: one live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from tune_smp.choices.states import trial_state
from tune_smp.texts import counted, duration
from tune_smp.tuning.lines import (
    SPARK_WIDTH,
    best_text,
    counts_line,
    epoch_line,
    epochs_line,
    flags_text,
    left_text,
    seconds_left,
    spark,
    trial_line,
)
from tune_smp.tuning.listeners import EpochResult, Listener
from tune_smp.tuning.trial_record import TrialRecord, best_of, of_the_search

_RUNNING_SHOWN = 10
_ENDED_SHOWN = 3
_REFRESH_RATE = 4  # per second
_PROGRESS_LINE_EVERY = 30.0  # s


@dataclasses.dataclass(frozen=True, slots=True)
class RunningTrial:
    """A trial that runs, with the metric of each epoch of this session.

    ``since`` is the clock's time at its start (s); ``restarted`` holds from its worker's death to the next epoch's end.
    """

    record: TrialRecord
    since: float
    metrics: tuple[float, ...] = ()
    restarted: bool = False

    def after(self, epoch: int, *, metric: float, best_metric: float) -> RunningTrial:
        """The trial after one more epoch, or one again. Epochs that were not reported count with this one's best."""
        kept = self.record.curve[: epoch - 1]
        record = dataclasses.replace(self.record, curve=kept + (best_metric,) * (epoch - len(kept)))
        return dataclasses.replace(self, record=record, metrics=(*self.metrics, metric), restarted=False)


class SearchState:
    """The trials of a search as the display knows them: ended and running ones. Times are seconds of one clock."""

    def __init__(self, *, num_trials: int | None, earlier: Sequence[TrialRecord] = ()) -> None:
        self.num_trials = num_trials
        self.running: dict[int, RunningTrial] = {}
        self._others = {record.number: record for record in earlier}
        self._took = {record.number: record.seconds for record in earlier if trial_state(record.state).has_ended}  # s
        self._first_start: float | None = None
        self._worked = 0.0  # s that trials of this session ran before they ended

    def start(self, number: int, flags: Mapping[str, Any], *, max_epochs: int, now: float) -> None:
        """Note a trial that starts; one that was interrupted earlier keeps its epochs."""
        self._first_start = now if self._first_start is None else self._first_start
        if number in self.running:  # once more, after its worker died
            return
        before = self._others.pop(number, None)
        record = TrialRecord(number, "running", dict(flags), max_epochs, curve=before.curve if before else ())
        self.running[number] = RunningTrial(record, since=now)

    def end_epoch(self, number: int, epoch: int, *, metric: float, best_metric: float) -> None:
        """Note an epoch. One of a trial that has ended is late, and no reason to disturb a search."""
        if number in self.running:
            self.running[number] = self.running[number].after(epoch, metric=metric, best_metric=best_metric)

    def restart(self, number: int) -> None:
        """Note that a running trial's worker died."""
        if number in self.running:
            self.running[number] = dataclasses.replace(self.running[number], restarted=True)

    def leave_running(self) -> None:
        """Note that the trials under way were left where they are."""
        for number, trial in self.running.items():
            self._others[number] = dataclasses.replace(trial.record, state="interrupted")
        self.running.clear()

    def end(self, record: TrialRecord, *, now: float) -> None:
        """Note how a trial ended."""
        ended = self.running.pop(record.number, None)
        wall = now - ended.since if ended else 0.0
        self._worked += wall
        self._others[record.number] = record
        if trial_state(record.state).has_ended:
            # Its epochs alone leave out the time to build a model; the wall leaves out the epochs before a resume.
            self._took[record.number] = max(wall, record.seconds)

    @property
    def ended(self) -> list[TrialRecord]:
        """Trials that have ended for good."""
        return [record for record in self._others.values() if trial_state(record.state).has_ended]

    @property
    def records(self) -> list[TrialRecord]:
        """Every trial, with the epochs it has so far."""
        return [*self._others.values(), *(trial.record for trial in self.running.values())]

    def standing(self) -> str:
        """The best of the search so far, and what it is worth."""
        default = self._others.get(0)
        is_measure = default is not None and trial_state(default.state).ended_well
        return best_text(
            best_of(of_the_search(self.records)), default=default.best_metric if default and is_measure else None
        )

    def seconds_left(self, now: float) -> float | None:
        """Time to the end of the last trial; None while it is unknown."""
        ages = [now - trial.since for trial in self.running.values()]
        elapsed = now - (now if self._first_start is None else self._first_start)
        mean_running = (self._worked + sum(ages)) / elapsed if elapsed > 0 else 1.0
        if self.num_trials is None:
            return None
        to_go = self.num_trials - len(self.ended) - len(self.running)
        return seconds_left(list(self._took.values()), ages, to_go=to_go, mean_running=mean_running)


def running_row(trial: RunningTrial, *, curve: bool) -> tuple[str, ...]:
    """Number, epochs, metric, best, curve and flags of a trial that runs."""
    record = trial.record
    flags = flags_text(record.flags, short=True)
    return (
        str(record.number),
        f"{record.epochs}/{record.max_epochs}",
        f"{trial.metrics[-1]:.4f}" if trial.metrics else "-",
        "-" if record.best_metric is None else f"{record.best_metric:.4f}",
        spark(trial.metrics) if curve else "",
        f"(worker died, resuming) {flags}" if trial.restarted else flags,
    )


class Display(Listener):
    """Shows trials while they run.

    On a terminal one display is redrawn in place, and gone at the end. Elsewhere every trial that ends has its line,
    and a line of progress comes at most every 30 s, never one per epoch. ``num_trials`` counts the ``earlier`` ones,
    of a search that is resumed, too; None where time alone ends it. ``time_budget_s`` runs from the ``with`` on;
    ``clock`` gives seconds.
    """

    def __init__(
        self,
        console: Console,
        *,
        metric_name: str,
        num_trials: int | None,
        earlier: Sequence[TrialRecord] = (),
        dashboard_url: str | None = None,
        time_budget_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._metric_name = metric_name
        self._dashboard_url = dashboard_url
        self._time_budget_s = time_budget_s
        self._clock = clock
        self._state = SearchState(num_trials=num_trials, earlier=earlier)
        self._last_ended: tuple[TrialRecord, ...] = ()
        self._began = self._last_progress_line = clock()
        self._closed = False
        # rich draws in a thread of its own; a signal may come in the middle of one of our calls.
        self._lock = threading.RLock()
        # A dumb terminal cannot draw over what stands there, so that it gets the plain lines.
        self._live = self._display() if console.is_interactive and not console.quiet else None

    def _display(self) -> Live:
        return Live(console=self._console, get_renderable=self._view, refresh_per_second=_REFRESH_RATE, transient=True)

    def __enter__(self) -> Self:
        self._began = self._last_progress_line = self._clock()
        if self._live:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # rich draws a last time, uncropped: what is taller than the terminal could not be wiped away again.
        self._closed = True
        if self._live:
            self._live.stop()

    @override
    def started(self, number: int, flags: Mapping[str, Any], max_epochs: int) -> None:
        with self._lock:
            self._state.start(number, flags, max_epochs=max_epochs, now=self._clock())
        self._print_progress()

    @override
    def epoch_ended(self, number: int, result: EpochResult) -> None:
        with self._lock:
            epoch, metric, best_metric = result["trial_epoch"], result["metric"], result["best_metric"]
            self._state.end_epoch(number, epoch, metric=metric, best_metric=best_metric)
        self._print_progress()

    @override
    def requeued(self, number: int) -> None:
        with self._lock:
            self._state.restart(number)
        self._print_progress()

    @override
    def trial_ended(self, record: TrialRecord, traceback: str = "") -> None:
        with self._lock:
            self._state.end(record, now=self._clock())
            self._last_ended = (*self._last_ended, record)[-_ENDED_SHOWN:]
        if not self._live:
            self._print(trial_line(record, metric_name=self._metric_name, standing=self._state.standing()))
        self._print_progress()

    def final_begins(self, runs: int) -> None:
        """The search has ended, and its best trials and the default are run again."""
        with self._lock:
            self._state.leave_running()
            self._state.num_trials = len(self._state.ended) + runs
        self._print(f"final: the best trials and the default, on fresh seeds: {counted(runs, 'run')}")

    def _print(self, line: str) -> None:
        self._console.print(self._text(line), soft_wrap=True)

    def _print_progress(self) -> None:
        now = self._clock()
        if self._live or now - self._last_progress_line < _PROGRESS_LINE_EVERY:
            return
        self._last_progress_line = now
        texts = (self._counts(), self._state.standing(), epochs_line(self._state.records), self._left(now))
        self._print("  ".join(filter(None, texts)))

    def _counts(self) -> str:
        return counts_line(self._state.ended, running=len(self._state.running), num_trials=self._state.num_trials)

    def _left(self, now: float) -> str:
        budget = None if self._time_budget_s is None else self._time_budget_s - (now - self._began)
        return left_text(self._state.seconds_left(now), budget=budget)

    def _view(self) -> Group:
        """The live display at this moment."""
        if self._closed:
            return Group()
        with self._lock:
            parts: list[RenderableType] = [self._grid(self._search_rows())]
            if self._state.running:
                parts += [Text(), self._running_table()]
            if (more := len(self._state.running) - _RUNNING_SHOWN) > 0:
                parts.append(Text(f"and {more} more running", style="dim"))
            if self._last_ended:
                lines = (trial_line(record, metric_name=self._metric_name) for record in self._last_ended)
                parts += [Text(), *(self._one_line(line, style="dim") for line in lines)]
        return Group(*parts)

    def _search_rows(self) -> dict[str, str]:
        now = self._clock()
        found = best_of(self._state.records)
        return {
            self._metric_name: self._state.standing() or "no epoch has ended",
            "": flags_text(found.flags, short=True) if found else "",
            "search": self._counts(),
            "spent": epochs_line(self._state.records),
            "time": ", ".join(filter(None, (duration(now - self._began, rough=True), self._left(now)))),
            "dashboard": self._dashboard_url or "",
        }

    def _grid(self, rows: Mapping[str, str]) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0), expand=True)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(ratio=1, overflow="fold")  # an address that is cut off cannot be copied
        for label, text in rows.items():
            if text:
                table.add_row(label, self._text(text, style="bold" if label == self._metric_name else ""))
        return table

    def _running_table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=True)
        for title in ("trial", "epoch", self._metric_name, "best"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("", width=SPARK_WIDTH, no_wrap=True)
        table.add_column("", ratio=1)
        for _, trial in sorted(self._state.running.items())[:_RUNNING_SHOWN]:
            table.add_row(*map(self._one_line, running_row(trial, curve=not self._console.options.ascii_only)))
        return table

    def _one_line(self, text: str, *, style: str = "") -> Text:
        shown = self._text(text, style=style)
        # rich marks a cut with a letter beyond ASCII.
        shown.no_wrap, shown.overflow = True, "crop" if self._console.options.ascii_only else "ellipsis"
        return shown

    def _text(self, text: str, *, style: str = "") -> Text:
        """Text as it stands: no markup, no emoji codes, nothing that the terminal would obey or cannot show."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in text)
        encoding = self._console.encoding
        return Text(shown.encode(encoding, "backslashreplace").decode(encoding), style=style)


class RunDisplay(Display):
    """Shows a single run: every epoch has its line, above the display of a terminal too.

    ``time_budget_s`` is the run's own, of which earlier sessions have spent a part.
    """

    _run_seconds = math.nan  # of all sessions, at the end of the last epoch

    @override
    def epoch_ended(self, number: int, result: EpochResult) -> None:
        super().epoch_ended(number, result)
        self._run_seconds = result["run_seconds"]
        if number in self._state.running:
            last_epoch = result["epochs_before"] + self._state.running[number].record.max_epochs
            self._print(epoch_line(result, metric_name=self._metric_name, last_epoch=last_epoch))

    @override
    def trial_ended(self, record: TrialRecord, traceback: str = "") -> None:
        with self._lock:
            self._state.end(record, now=self._clock())

    def _print_progress(self) -> None:
        """Every epoch has its own line."""

    def _view(self) -> Group:
        with self._lock:
            return Group() if self._closed else Group(self._grid(self._run_rows()))

    def _run_rows(self) -> dict[str, str]:
        now = self._clock()
        trial = next(iter(self._state.running.values()), None)
        if trial is None:
            return {"time": duration(now - self._began, rough=True)}
        epochs, most = trial.record.epochs, trial.record.max_epochs
        pace = (now - trial.since) / len(trial.metrics) if trial.metrics else None
        seconds = None if pace is None else pace * (most - epochs)
        if pace is not None and self._time_budget_s is not None:
            seconds = max(self._time_budget_s - self._run_seconds, 0.0)
        left = left_text(seconds, budget=None)
        curve = "" if self._console.options.ascii_only else spark(trial.metrics)
        return {
            self._metric_name: "  ".join(filter(None, (best_text(trial.record, default=None, named=False), curve))),
            "epoch": f"{epochs} of {most}, at most",
            "time": ", ".join(filter(None, (duration(now - self._began, rough=True), left))),
            "dashboard": self._dashboard_url or "",
        }
