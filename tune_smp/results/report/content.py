"""The content of the page, in its order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tune_smp.choices.schedulers import SCHEDULERS
from tune_smp.choices.states import SEARCH_STATES, TRIAL_STATES, trial_state
from tune_smp.data.view_gains import WITHIN
from tune_smp.errors import listing
from tune_smp.results.leaderboard import number, whole_number
from tune_smp.results.report import figures, numbers
from tune_smp.results.report.commands import NextCommand, again, has_model, next_commands
from tune_smp.results.report.facts import Facts, mapping, text
from tune_smp.results.report.final import FinalRow, final_rows, final_words, refit_words
from tune_smp.results.report.pictures import ExamplePicture, Shown, shown
from tune_smp.results.report.tables import (
    Difference,
    Failure,
    TrialTable,
    ViewRow,
    differences,
    failures,
    trial_table,
    view_rows,
)
from tune_smp.texts import counted, duration

_UNFINISHED = "not at its end: still at work, or stopped without a chance to say so"


@dataclass(frozen=True, slots=True)
class Bar:
    """A share in [0, 1] with its name; ``share`` None: there is none."""

    name: str
    share: float | None
    shown: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with its legend, (class of the swatch, words) each, and what is to be known of it."""

    title: str
    svg: Markup
    legend: tuple[tuple[str, str], ...]
    remark: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One flag as it was; ``given``: the user set it."""

    flag: str
    value: str
    given: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the template shows; every string is plain text, which the template escapes."""

    command: str
    name: str
    state: str
    went_well: bool
    metric: str
    best: str
    where: str  # of the best: its trial and epoch
    comparison: str
    reason: str
    key_facts: tuple[tuple[str, str], ...]
    model: str
    optimism: str
    unreadable: str
    commands: tuple[NextCommand, ...]
    again: str
    final: tuple[FinalRow, ...]
    final_words: str
    refit: str
    differences: tuple[Difference, ...]
    plots: tuple[Plot, ...]
    importances: tuple[Bar, ...]
    table: TrialTable | None
    failures: tuple[Failure, ...]
    pictures: tuple[Shown, ...]
    class_iou: tuple[Bar, ...]
    views: tuple[ViewRow, ...]
    views_remark: str
    space: tuple[tuple[str, str], ...]
    space_name: str
    space_description: str
    settings: tuple[Setting, ...]
    used: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


def page_of(facts: Facts, examples: Sequence[ExamplePicture]) -> Page:
    """Make sense of the facts."""
    space = mapping(facts.settings.get("space"))
    states = SEARCH_STATES if facts.is_search else {name: state.headline for name, state in TRIAL_STATES.items()}
    return Page(
        command="search" if facts.is_search else "train",
        name=facts.folder.path.name or str(facts.folder.path),
        state=states.get(facts.state, _UNFINISHED if facts.state == "unfinished" else facts.state),
        went_well=trial_state(facts.state).is_final,
        metric=facts.metric,
        best=numbers.metric(facts.best),
        where=_where(facts),
        comparison=_comparison(facts),
        reason=text(facts.summary.get("reason")),
        key_facts=tuple(_key_facts(facts)),
        model=str(facts.folder.model) if has_model(facts) else "",
        optimism=_optimism(facts),
        unreadable=listing(facts.unreadable),
        commands=next_commands(facts),
        again=again(facts),
        final=final_rows(facts),
        final_words=final_words(facts),
        refit=refit_words(facts),
        differences=differences(facts),
        plots=tuple(_search_plots(facts) if facts.is_search else _train_plots(facts)),
        importances=_bars(facts.summary.get("importances"), numbers.percent, by_share=True),
        table=trial_table(facts) if facts.is_search else None,
        failures=failures(facts),
        pictures=tuple(map(shown, examples)),
        views=view_rows(facts),
        views_remark=_views_remark(mapping(facts.preprocessing.get("views"))),
        class_iou=_bars(facts.summary.get("class_iou"), numbers.metric, by_share=False),
        space=tuple(_space(space)),
        space_name=text(space.get("name")),
        space_description=text(space.get("description")),
        settings=_settings(facts),
        used=tuple((name, numbers.setting(value)) for name, value in mapping(facts.settings.get("used")).items()),
        versions=tuple((name, str(version)) for name, version in mapping(facts.settings.get("versions")).items()),
    )


def _where(facts: Facts) -> str:
    parts = [f"trial {facts.best_row.number}"] if facts.is_search and facts.best_row else []
    parts += [f"epoch {facts.best_epoch}"] if facts.best_epoch is not None else []
    return ", ".join(parts)


def _comparison(facts: Facts) -> str:
    """The best beside the default configuration, in words."""
    if not facts.is_search or facts.best is None:
        return ""
    if facts.default is None:
        return "The default configuration (trial 0) has no score to compare with."
    if facts.best_row is not None and facts.best_row.is_default:
        return "No trial was better than the default configuration (trial 0)."
    beyond = numbers.gain(facts.best - facts.default)
    return f"{beyond} against the default configuration (trial 0), which reached {numbers.metric(facts.default)}."


def _key_facts(facts: Facts) -> list[tuple[str, str]]:
    epochs, seconds = whole_number(facts.summary.get("epochs")), number(facts.summary.get("seconds"))
    saved = whole_number(facts.summary.get("epochs_saved"))
    exported = number(facts.summary.get("evaluated_metric"))
    at_half, thresholds = number(facts.summary.get("metric_at_half")), _thresholds(facts)
    if epochs is None and facts.history is not None:
        epochs = len(facts.history)
    counts = mapping(facts.summary.get("trials")) or Counter(row.state for row in facts.trials)
    found: list[tuple[str, str | None]] = [
        ("trials", _trials(counts) if facts.is_search and counts else None),
        ("epochs", f"{epochs:,}" if epochs is not None else None),
        ("epochs saved by stopping early and pruning", f"{saved:,}" if saved else None),
        ("time", duration(seconds) if seconds is not None else None),
        (
            f"{facts.metric} measured again, with the exported model",
            numbers.metric(exported) if exported is not None else None,
        ),
        (f"{facts.metric} of pixels above the threshold 0.5", numbers.metric(at_half) if thresholds else None),
        ("best thresholds", thresholds),
        ("ensemble", _ensemble(mapping(facts.summary.get("ensemble")), facts.metric)),
        ("validation images", f"{facts.validation_images:,}" if facts.validation_images else None),
    ]
    return [(name, value) for name, value in found if value]


def _thresholds(facts: Facts) -> str:
    """``0: 0.42, 1: 0.37``: of each class; nothing in multiclass mode, and in folders of earlier versions."""
    found = {name: number(value) for name, value in mapping(facts.summary.get("thresholds")).items()}
    named = [f"{value:.2f}" if len(found) == 1 else f"{name}: {value:.2f}" for name, value in found.items() if value]
    return ", ".join(named)


def _ensemble(record: Mapping[str, Any], metric: str) -> str:
    """What averaging several trials' nets gave; nothing where it was not tried."""
    value, single, low = (number(record.get(name)) for name in ("metric", "single", "low"))
    members, cost = record.get("members"), number(record.get("cost"))
    if value is None or single is None or low is None or cost is None or not isinstance(members, list):
        return ""
    shares = [(whole_number(mapping(row).get("trial")), number(mapping(row).get("weight"))) for row in members]
    trials = ", ".join(f"{trial} × {weight:.3g}" for trial, weight in shares if trial is not None and weight)
    gain = f"{metric} {numbers.metric(value)}, {numbers.gain(value - single)} against the best trial alone"
    at_least = f"in nine of ten resamplings of the images at least {numbers.gain(low)}"
    if record.get("won") is True:
        return f"trials {trials}: {gain} ({at_least}); prediction takes {cost:.1f} times as long"
    return f"not exported: trials {trials} had {gain} ({at_least})"


def _views_remark(views: Mapping[str, Any]) -> str:
    images = whole_number(views.get("images"))
    return (
        f"Measured on {counted(images, 'validation image')} on a {text(views.get('device'))}. Marked is the cheapest "
        f"whose metric is within {WITHIN:g} of the best: predict --testTimeAugmentation auto takes it."
        if images
        else ""
    )


def _trials(counts: Mapping[str, Any]) -> str:
    known = {state: count for state, value in counts.items() if (count := whole_number(value))}
    parts = ", ".join(f"{count:,} {state.replace('_', ' ')}" for state, count in known.items())
    return f"{sum(known.values()):,} ({parts})" if known else "0"


def _optimism(facts: Facts) -> str:
    if facts.best is None:
        return ""
    images = counted(facts.validation_images, "validation image") if facts.validation_images else ""
    these = f"the same {images}" if images else "the same validation images"
    chosen = "trial and epoch shown as best were" if facts.is_search else "epoch shown as best was"
    final = final_rows(facts)
    less = f"about {final[0].mean}, the mean of the final," if final else "somewhat less"
    return (
        f"Scores here are optimistic: the {chosen} chosen on {these} that give the score. "
        f"Expect {less} on new images, and keep a set of images aside for a score to publish."
    )


def _search_plots(facts: Facts) -> list[Plot]:
    plots = []
    best = facts.best_row.number if facts.best_row else None
    legend = [("best", f"best: trial {best}")] if best is not None else []
    legend += [("default", "default: trial 0")] if best != 0 and facts.default_row else []
    if any(row.best_metric is not None for row in facts.trials):
        svg = figures.best_so_far(facts.trials, metric=_printable(facts.metric), default=facts.default)
        marks = (("best", "best so far"), ("other dot", "one trial"))
        default = (("default", "default: trial 0"),) if facts.default is not None else ()
        plots.append(Plot("Progress of the search", svg, (*marks, *default), ""))
    if facts.curves:
        svg = figures.learning_curves(
            facts.curves, facts.trials, column=facts.metric_column, metric=_printable(facts.metric), best=best
        )
        scheduler = SCHEDULERS.get(str(facts.values.get("scheduler")), SCHEDULERS["none"])
        bar = (("other bar", f"pruned by {scheduler.pruned_by}"),) if scheduler.pruned_by else ()
        ends = (("other dot", "ran to its end"), *bar, ("other cross", "failed, diverged"))
        plots.append(Plot("Learning curves", svg, (*legend, *ends), _curves_remark(facts, best)))
    return plots


def _curves_remark(facts: Facts, best: int | None) -> str:
    count = len(figures.drawn(facts.trials, facts.curves, best))
    if count < len(facts.curves):
        return f"{count:,} of {len(facts.curves):,} trials are drawn, evenly spaced over the ranking."
    missing = len(facts.trials) - len(facts.curves)
    return f"Without a curve, since no epoch was recorded: {counted(missing, 'trial')}." if missing else ""


def _train_plots(facts: Facts) -> list[Plot]:
    if facts.history is None:
        return []
    svg = figures.training_curves(
        facts.history, column=facts.metric_column, metric=_printable(facts.metric), best_epoch=facts.best_epoch
    )
    legend = [("other dashed", "training loss"), ("ink", "validation loss"), ("best", f"validation {facts.metric}")]
    legend += [("best dotted", f"best epoch: {facts.best_epoch}")] if facts.best_epoch is not None else []
    return [Plot("Course of the training", svg, tuple(legend), "")]


def _printable(name: str) -> str:
    """A name for a figure, which is XML and has no place for control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in name)[:40]


def _bars(values: Any, show: Any, *, by_share: bool) -> tuple[Bar, ...]:
    shares = {name: number(value) for name, value in mapping(values).items()}
    bars = [
        Bar(
            name,
            None if share is None else min(max(share, 0.0), 1.0),
            numbers.MISSING if share is None else show(share),
        )
        for name, share in shares.items()
    ]
    return tuple(sorted(bars, key=lambda bar: -(bar.share or 0.0)) if by_share else bars)


def _space(space: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what was searched and what was held fixed, a line per flag, from the records that the search wrote."""
    rows = space.get("flags")
    found = [mapping(row) for row in rows] if isinstance(rows, list) else []
    return [
        (
            text(row.get("flag")),
            text(row.get("values"))
            + (" (fixed)" if row.get("kind") == "fixed" else "")
            + (f", where {when}" if (when := text(row.get("when"))) else ""),
        )
        for row in sorted(found, key=lambda row: row.get("kind") == "fixed")
    ]


def _settings(facts: Facts) -> tuple[Setting, ...]:
    """The user's own first."""
    given = set(facts.given)
    rows = [Setting(str(flag), numbers.setting(value), flag in given) for flag, value in facts.values.items()]
    return tuple(sorted(rows, key=lambda row: not row.given))
