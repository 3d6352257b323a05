"""The page's figures. Their colours are names from ``svg.PAINTS``; legends stand in the page, beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tune_smp.choices.states import trial_state
from tune_smp.results.leaderboard import TrialRow
from tune_smp.results.report.facts import Curve
from tune_smp.results.report.svg import PAINTS, drawing, inline

MOST_CURVES = 300  # more are a grey carpet, and megabytes
MOST_POINTS = 250  # of one curve: the figure is 700 points wide

_POINTS_PER_INCH = 72
_WIDTH, _HEIGHT = 720, 250  # points
_LEFT, _RIGHT, _BOTTOM, _TOP = 52, 10, 40, 12  # points around the axes

Line = tuple[Sequence[float], Sequence[float]]


def learning_curves(
    curves: Mapping[int, Curve], trials: Sequence[TrialRow], *, column: str, metric: str, best: int | None
) -> Markup:
    """``column`` over epochs: a line per trial, the best and trial 0 in front; how each ended is a marker at its end.

    Of more than ``MOST_CURVES`` trials some are drawn, evenly spaced over the ranking.
    """
    chosen = {row.number: row for row in drawn(trials, curves, best)}
    with drawing():
        figure, axes = _panel(1)
        lines = {trial: _thinned(curves[trial]["epoch"], curves[trial][column]) for trial in chosen}
        _plot_background(axes[0], lines, chosen, front={0, best})
        if 0 in lines and best != 0:
            axes[0].plot(*lines[0], color=PAINTS["default"], linewidth=1.8, dashes=(4, 2), **_dot(lines[0]))
        if best in lines:
            axes[0].plot(*lines[best], color=PAINTS["best"], linewidth=2.2, **_dot(lines[best]))
        _label(axes[0], "epoch", f"validation {metric}")
        return inline(figure, "curves", f"Validation {metric} of each trial over its epochs")


def drawn(trials: Sequence[TrialRow], curves: Mapping[int, Curve], best: int | None) -> list[TrialRow]:
    """The trials whose curves are drawn."""
    there = [row for row in trials if row.number in curves]
    if len(there) <= MOST_CURVES:
        return there
    kept = {round(position) for position in np.linspace(0, len(there) - 1, MOST_CURVES)}
    return [row for place, row in enumerate(there) if place in kept or row.number in (0, best)]


def best_so_far(trials: Sequence[TrialRow], *, metric: str, default: float | None) -> Markup:
    """The best metric of every trial in the order in which they were started, and the best until then."""
    scored = sorted((row.number, row.best_metric) for row in trials if row.best_metric is not None)
    numbers, values = [trial for trial, _ in scored], [value for _, value in scored]
    with drawing():
        figure, (axes,) = _panel(1)
        axes.plot(numbers, values, "o", color=PAINTS["other"], markersize=_size(len(values)), markeredgewidth=0)
        if default is not None:
            axes.axhline(default, color=PAINTS["default"], linewidth=1.4, dashes=(4, 2))
        running = np.maximum.accumulate(values)
        end = max([row.number for row in trials])
        axes.step([*numbers, end], [*running, running[-1]], where="post", color=PAINTS["best"], linewidth=2.2)
        _label(axes, "trial, in the order of their start", f"best validation {metric}")
        return inline(figure, "sofar", f"Best validation {metric} of each trial, and the best until then")


def training_curves(history: Curve, *, column: str, metric: str, best_epoch: int | None) -> Markup:
    """Losses over epochs, and the metric, with the best epoch marked in both."""
    epochs = history["epoch"]
    with drawing():
        figure, (losses, scores) = _panel(2)
        for name, paint, dashes in (("train_loss", "other", (4, 2)), ("val_loss", "ink", (1, 0))):
            line = _thinned(epochs, history[name])
            losses.plot(*line, color=PAINTS[paint], linewidth=1.8, dashes=dashes, **_dot(line))
        line = _thinned(epochs, history[column])
        scores.plot(*line, color=PAINTS["best"], linewidth=2.2, **_dot(line))
        if best_epoch is not None:
            for axes in (losses, scores):
                axes.axvline(best_epoch, color=PAINTS["best"], linewidth=1, dashes=(1, 2))
            marked = [(epoch, value) for epoch, value in zip(*line, strict=True) if epoch == best_epoch]
            scores.plot(*zip(*marked, strict=True), "o", color=PAINTS["best"], markersize=7) if marked else None
        _label(losses, "epoch", "loss")
        _label(scores, "epoch", f"validation {metric}")
        return inline(figure, "training", f"Losses and validation {metric} over epochs")


def _plot_background(
    axes: Axes, lines: Mapping[int, Line], rows: Mapping[int, TrialRow], *, front: set[int | None]
) -> None:
    """All trials but those in front as one path each for line and markers: a thousand paths would be slow to show."""
    thin = 0.9 if len(lines) <= 60 else 0.6
    x, y = _joined([lines[trial] for trial in lines if trial not in front])
    axes.plot(x, y, color=PAINTS["other"], linewidth=thin, alpha=0.75 if len(lines) <= 60 else 0.5)
    for marker in ("o", "|", "x"):
        ends = [_end(line) for trial, line in lines.items() if trial not in front and _marker(rows[trial]) == marker]
        x, y = [x for x, _ in ends], [y for _, y in ends]
        size, edge = _size(len(lines)), 0.0 if marker == "o" else 1.3
        axes.plot(
            x, y, marker, color=PAINTS["other"], markersize=size if marker == "o" else size + 2, markeredgewidth=edge
        )


def _marker(row: TrialRow) -> str:
    """How a trial ended: well, pruned, or with nothing worth exporting."""
    return "x" if trial_state(row.state).went_wrong else "|" if row.state == "pruned" else "o"


def _size(count: int) -> float:
    """Of one marker of so many, in points."""
    return 4.5 if count <= 60 else 3 if count <= 300 else 2


def _joined(lines: Sequence[Line]) -> tuple[list[float], list[float]]:
    """One line with gaps."""
    x = [value for line in lines for value in (*line[0], math.nan)]
    return x, [value for line in lines for value in (*line[1], math.nan)]


def _end(line: Line) -> tuple[float, float]:
    """The last point of a line that is a number."""
    points = [(x, y) for x, y in zip(*line, strict=True) if not math.isnan(y)]
    return points[-1] if points else (math.nan, math.nan)


def _dot(line: Line) -> dict[str, Any]:
    """A single point makes no line: mark it."""
    alone = sum(not math.isnan(value) for value in line[1]) == 1
    return {"marker": "o", "markersize": 5} if alone else {}


def _thinned(x: Sequence[float], y: Sequence[float]) -> Line:
    if len(x) <= MOST_POINTS:
        return x, y
    kept = sorted({round(position) for position in np.linspace(0, len(x) - 1, MOST_POINTS)})
    return [x[place] for place in kept], [y[place] for place in kept]


def _panel(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` axes side by side, placed by hand: no renderer has to measure text, and none differs."""
    figure = Figure(figsize=(_WIDTH / _POINTS_PER_INCH, _HEIGHT / _POINTS_PER_INCH), dpi=_POINTS_PER_INCH)
    figure.patch.set_visible(False)
    each = _WIDTH / count
    bounds = [
        (
            (number * each + _LEFT) / _WIDTH,
            _BOTTOM / _HEIGHT,
            (each - _LEFT - _RIGHT) / _WIDTH,
            (_HEIGHT - _BOTTOM - _TOP) / _HEIGHT,
        )
        for number in range(count)
    ]
    return figure, [_plain(figure.add_axes(rectangle)) for rectangle in bounds]


def _plain(axes: Axes) -> Axes:
    axes.patch.set_visible(False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PAINTS["ink"])
    axes.grid(axis="y", color=PAINTS["grid"], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(color=PAINTS["ink"], labelcolor=PAINTS["ink"], length=3)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    return axes


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, color=PAINTS["ink"])
    axes.set_ylabel(y, color=PAINTS["ink"])
    axes.yaxis.set_label_coords(-38 / (axes.get_position().width * _WIDTH), 0.5)
