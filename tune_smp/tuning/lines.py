"""The lines about epochs, trials and searches, on the display and off a terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from tune_smp.choices.states import TRIAL_STATES, trial_state
from tune_smp.texts import counted, duration
from tune_smp.tuning.listeners import EpochResult
from tune_smp.tuning.trial_record import TrialRecord

# Flags whose values speak for themselves, most informative first; after them come others by name, up to four in all.
_TELLING = ("modelName", "encoderBaseVariantWeights", "optimizerName", "learningRate", "lossName")
_FLAGS_SHOWN = 4
_REASON_LENGTH = 160  # characters
_SPARK = "▁▂▃▄▅▆▇█"
SPARK_WIDTH = 8  # columns


def epoch_line(result: EpochResult, *, metric_name: str, last_epoch: int) -> str:
    """One epoch in one line: ``epoch 3/10  train_loss 0.41  val_loss 0.39  IoU 0.71  best 0.71 @ 3  lr 9e-04``."""
    losses = f"train_loss {result['train_loss']:.4f}  val_loss {result['val_loss']:.4f}"
    metric = f"{metric_name} {result['metric']:.4f}  best {result['best_metric']:.4f} @ {result['best_epoch']}"
    pace = f"lr {result['learning_rate']:.1e}  {result['seconds']:.1f} s"
    return f"epoch {result['epoch']}/{last_epoch}  {losses}  {metric}  {pace}"


def trial_line(record: TrialRecord, *, metric_name: str, standing: str = "") -> str:
    """How a trial ended, in one line.

    ``trial 7 pruned after 3 epochs  IoU 0.7012  best 0.8123 (trial 4, +0.0311 over the default)  FPN Adam lr 3.1e-03``.
    """
    after = f"after {counted(record.epochs, 'epoch')}" if record.epochs else "before its first epoch ended"
    reason = " ".join(record.reason.split())
    reason = f"{reason[: _REASON_LENGTH - 3]}..." if len(reason) > _REASON_LENGTH else reason
    words = trial_state(record.state).words or record.state
    head = f"trial {record.number} {words} {after}{': ' if reason else ''}{reason}"
    metric = "" if record.best_metric is None else f"{metric_name} {record.best_metric:.4f}"
    return "  ".join(filter(None, (head, metric, standing, flags_text(record.flags))))


def flags_text(flags: Mapping[str, Any], *, short: bool = False) -> str:
    """The most informative flags: ``FPN ResNet,resnet18,random Adam lr 3.1e-03``; ``short`` leaves out the family."""
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


def best_text(found: TrialRecord | None, *, default: float | None, named: bool = True) -> str:
    """``best 0.8123 (trial 4, +0.0311 over the default)``; ``default`` is trial 0's metric, None before its end.

    Where there is one trial alone, it is not ``named``.
    """
    if found is None or found.best_metric is None:
        return ""
    if not named:
        return f"best {found.best_metric:.4f}"
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
    trials = counted(len(ended), "trial") if num_trials is None else f"{len(ended)} of {counted(num_trials, 'trial')}"
    head = f"{trials} ended{f' ({states})' if states else ''}"
    to_go = 0 if num_trials is None else num_trials - len(ended) - running
    return ", ".join([head, *([f"{running} running"] if running else []), *([f"{to_go} to go"] if to_go > 0 else [])])


def epochs_line(records: Sequence[TrialRecord]) -> str:
    """Epochs that were run, and those that the stopped trials left: ``212 epochs, 118 saved by ...``."""
    saved = sum(record.epochs_saved for record in records)
    spent = counted(sum(record.epochs for record in records), "epoch")
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
        return f"about {duration(max(budget, 0.0), rough=True)} left of the time budget"
    return f"about {duration(seconds, rough=True)} left"


def spark(values: Sequence[float], *, width: int = SPARK_WIDTH) -> str:
    """The course of the values, from their lowest to their highest, in at most ``width`` letters; a gap for NaN."""
    letters = min(width, len(values))
    # The last of each stretch, so that the newest value is always there.
    shown = [values[(place * len(values) - 1) // letters] for place in range(1, letters + 1)]
    finite = [value for value in shown if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    # Dividing by the span first: the inverse of a very small one is infinite.
    shares = ((value - low) / ((high - low) or 1.0) for value in shown)
    return "".join(_SPARK[round(share * (len(_SPARK) - 1))] if math.isfinite(share) else " " for share in shares)
