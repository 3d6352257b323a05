"""What a person sees while a search runs: a live display on a terminal, a plain line per ended trial elsewhere."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tune_smp.choices.states import TRIAL_STATES, trial_state
from tune_smp.search.outcome import TrialRecord, best_of

# Flags whose values speak for themselves, most telling first; after them come others by name, up to four in all.
_TELLING = ("modelName", "encoderBaseVariantWeights", "optimizerName", "learningRate", "lossName")
_FLAGS_SHOWN = 4
_RUNNING_SHOWN = 10
_ENDED_SHOWN = 3
_REASON_LENGTH = 160  # characters
_REFRESH_RATE = 4  # per second
_PROGRESS_LINE_EVERY = 30.0  # s
_SPARK = "▁▂▃▄▅▆▇█"
_SPARK_WIDTH = 8  # columns


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
        """The trial after one more epoch, or one again. Epochs that nobody told of count with this one's best."""
        kept = self.record.curve[: epoch - 1]
        record = dataclasses.replace(self.record, curve=kept + (best_metric,) * (epoch - len(kept)))
        return dataclasses.replace(self, record=record, metrics=(*self.metrics, metric), restarted=False)


class SearchState:
    """What is known of a search's trials: those that ended and those that run. Times are seconds of one clock."""

    def __init__(self, *, num_trials: int | None, earlier: Sequence[TrialRecord] = ()) -> None:
        self.num_trials = num_trials
        self.running: dict[int, RunningTrial] = {}
        self._others = {record.number: record for record in earlier}
        self._took = {record.number: record.seconds for record in earlier if trial_state(record.state).has_ended}  # s
        self._first_start: float | None = None
        self._worked = 0.0  # s that trials of this session ran before they ended

    def start(self, number: int, flags: Mapping[str, Any], *, max_epochs: int, now: float) -> None:
        """Note a trial that starts; one that was interrupted earlier goes on from its epochs."""
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
        """Trials that will not go on."""
        return [record for record in self._others.values() if trial_state(record.state).has_ended]

    @property
    def records(self) -> list[TrialRecord]:
        """Every trial, with the epochs it has so far."""
        return [*self._others.values(), *(trial.record for trial in self.running.values())]

    def standing(self) -> str:
        """The best so far, and what it is worth."""
        default = self._others.get(0)
        is_measure = default is not None and trial_state(default.state).ended_well
        return best_text(best_of(self.records), default=default.best_metric if default and is_measure else None)

    def seconds_left(self, now: float) -> float | None:
        """Time to the end of the last trial; None while it cannot be told."""
        ages = [now - trial.since for trial in self.running.values()]
        elapsed = now - (now if self._first_start is None else self._first_start)
        mean_running = (self._worked + sum(ages)) / elapsed if elapsed > 0 else 1.0
        if self.num_trials is None:
            return None
        to_go = self.num_trials - len(self.ended) - len(self.running)
        return seconds_left(list(self._took.values()), ages, to_go=to_go, mean_running=mean_running)


class SearchProgress:
    """Shows a search while it runs, from the calls that its events make.

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
        self._live = self._display() if console.is_interactive else None

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

    def __getstate__(self) -> dict[str, Any]:
        # Ray pickles its callbacks with the Tuner; a live display is nothing to keep.
        return {}

    def started(self, number: int, flags: Mapping[str, Any], max_epochs: int) -> None:
        """A trial starts, or goes on after its worker died."""
        with self._lock:
            self._state.start(number, flags, max_epochs=max_epochs, now=self._clock())
        self._print_progress()

    def epoch_ended(self, number: int, *, epoch: int, metric: float, best_metric: float) -> None:
        """A running trial ended an epoch, counted from 1."""
        with self._lock:
            self._state.end_epoch(number, epoch, metric=metric, best_metric=best_metric)
        self._print_progress()

    def requeued(self, number: int) -> None:
        """A running trial's worker died; the trial goes on from its checkpoint."""
        with self._lock:
            self._state.restart(number)
        self._print_progress()

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial ended, in whatever state."""
        with self._lock:
            self._state.end(record, now=self._clock())
            self._last_ended = (*self._last_ended, record)[-_ENDED_SHOWN:]
        if not self._live:
            line = trial_line(record, metric_name=self._metric_name, standing=self._state.standing())
            self._console.print(self._text(line), soft_wrap=True)
        self._print_progress()

    def _print_progress(self) -> None:
        now = self._clock()
        if self._live or now - self._last_progress_line < _PROGRESS_LINE_EVERY:
            return
        self._last_progress_line = now
        texts = (self._counts(), self._state.standing(), epochs_line(self._state.records), self._left(now))
        self._console.print(self._text("  ".join(filter(None, texts))), soft_wrap=True)

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
            parts: list[RenderableType] = [self._overview()]
            if self._state.running:
                parts += [Text(), self._running_table()]
            if (more := len(self._state.running) - _RUNNING_SHOWN) > 0:
                parts.append(Text(f"and {more} more running", style="dim"))
            if self._last_ended:
                lines = (trial_line(record, metric_name=self._metric_name) for record in self._last_ended)
                parts += [Text(), *(self._one_line(line, style="dim") for line in lines)]
        return Group(*parts)

    def _overview(self) -> Table:
        now = self._clock()
        found = best_of(self._state.records)
        rows = {
            self._metric_name: self._state.standing() or "no epoch has ended",
            "": flags_text(found.flags, short=True) if found else "",
            "search": self._counts(),
            "spent": epochs_line(self._state.records),
            "time": ", ".join(filter(None, (duration(now - self._began), self._left(now)))),
            "dashboard": self._dashboard_url or "",
        }
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
        table.add_column("", width=_SPARK_WIDTH, no_wrap=True)
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


def trial_line(record: TrialRecord, *, metric_name: str, standing: str = "") -> str:
    """How a trial ended, in one line.

    ``trial 7 pruned after 3 epochs  IoU 0.7012  best 0.8123 (trial 4, +0.0311 over the default)  FPN Adam lr 3.1e-03``.
    """
    after = f"after {_counted(record.epochs, 'epoch')}" if record.epochs else "before its first epoch ended"
    reason = " ".join(record.reason.split())
    reason = f"{reason[: _REASON_LENGTH - 3]}..." if len(reason) > _REASON_LENGTH else reason
    words = trial_state(record.state).words or record.state
    head = f"trial {record.number} {words} {after}{': ' if reason else ''}{reason}"
    metric = "" if record.best_metric is None else f"{metric_name} {record.best_metric:.4f}"
    return "  ".join(filter(None, (head, metric, standing, flags_text(record.flags))))


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
        f"(worker died, going on) {flags}" if trial.restarted else flags,
    )


def flags_text(flags: Mapping[str, Any], *, short: bool = False) -> str:
    """The most telling flags: ``FPN ResNet,resnet18,random Adam lr 3.1e-03``; ``short`` leaves out the family."""
    names = [name for name in _TELLING if name in flags] + sorted(set(flags) - set(_TELLING))
    return " ".join(_flag_text(name, flags[name], short=short) for name in names[:_FLAGS_SHOWN])


def _flag_text(name: str, value: Any, *, short: bool) -> str:
    if name == "learningRate" and isinstance(value, int | float):
        return f"lr {value:.1e}"
    if name == "encoderBaseVariantWeights" and short:
        return str(value).partition(",")[2] or str(value)
    if name in _TELLING:
        return str(value)
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


def best_text(found: TrialRecord | None, *, default: float | None) -> str:
    """``best 0.8123 (trial 4, +0.0311 over the default)``; ``default`` is trial 0's metric, None before its end."""
    if found is None or found.best_metric is None:
        return ""
    worth = ""
    if found.number == 0:
        worth = ", the default"
    elif default is not None and math.isfinite(default):
        worth = f", {found.best_metric - default:+.4f} over the default"
    return f"best {found.best_metric:.4f} (trial {found.number}{worth})"


def counts_line(ended: Sequence[TrialRecord], *, running: int, num_trials: int | None) -> str:
    """``3 of 40 trials ended (2 completed, 1 pruned), 4 running, 33 to go``."""
    counts = Counter(record.state for record in ended)
    states = ", ".join(f"{counts[name]} {state.words}" for name, state in TRIAL_STATES.items() if counts[name])
    trials = _counted(len(ended), "trial") if num_trials is None else f"{len(ended)} of {_counted(num_trials, 'trial')}"
    head = f"{trials} ended{f' ({states})' if states else ''}"
    to_go = 0 if num_trials is None else num_trials - len(ended) - running
    return ", ".join([head, *([f"{running} running"] if running else []), *([f"{to_go} to go"] if to_go > 0 else [])])


def epochs_line(records: Sequence[TrialRecord]) -> str:
    """Epochs that were run, and those that the stopped trials left: ``212 epochs, 118 saved by ...``."""
    saved = sum(record.epochs_saved for record in records)
    spent = _counted(sum(record.epochs for record in records), "epoch")
    return f"{spent}, {saved} saved by pruning and early stopping" if saved else spent


def seconds_left(took: Sequence[float], ages: Sequence[float], *, to_go: int, mean_running: float) -> float | None:
    """Seconds until the last trial ends; None before two have ended, and when the running ones are overdue.

    ``took`` are the seconds of ended trials, ``ages`` those of the running ones so far; ``to_go`` trials have not
    started, and ``mean_running`` run at a time, so far. Each is expected to take the mean.
    """
    known = [seconds for seconds in took if math.isfinite(seconds)]
    if len(known) < 2:
        return None
    mean = fmean(known)
    work = [mean] * to_go + [mean - age for age in ages if age < mean]
    if not any(work):
        return None
    at_a_time = min(mean_running, len(work)) if mean_running > 0 else 1.0
    return max(sum(work) / at_a_time, *work)


def left_text(seconds: float | None, *, budget: float | None) -> str:
    """``about 25 min left``, and no more than the time budget (s) leaves; nothing where ``seconds`` is None."""
    if seconds is None:
        return ""
    if budget is not None and budget < seconds:
        return f"about {duration(max(budget, 0.0))} left of the time budget"
    return f"about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds below a minute, minutes below an hour, hours and minutes above."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def spark(values: Sequence[float], *, width: int = _SPARK_WIDTH) -> str:
    """The course of the values, from their lowest to their highest, in at most ``width`` letters; a gap for NaN."""
    letters = min(width, len(values))
    # The last of each stretch, so that the newest value is always there.
    shown = [values[(place * len(values) - 1) // letters] for place in range(1, letters + 1)]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    per_unit = (len(_SPARK) - 1) / (high - low) if high > low else 0.0
    return "".join(_SPARK[round((value - low) * per_unit)] if math.isfinite(value) else " " for value in shown)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
