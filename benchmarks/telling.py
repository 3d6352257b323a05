"""Does it help to tell Optuna that a pruned trial was pruned? Two real searches that differ in nothing else.

Ray's own OptunaSearch tells a trial that the scheduler ended as COMPLETE, with its last value; tune-smp tells PRUNED.
Both searches here are `tune-smp search` in a small form of the space ``quick`` (tiles of 64 px, 10 steps an epoch),
from one seed; the second one's study is told in Ray's way. Seconds don't matter, epochs do.

    python benchmarks/telling.py --data NUCLEI [--trials 24] [--seeds 1]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tune_smp import workflows
from tune_smp.choices import states
from tune_smp.choices.states import TRIAL_STATES, OptunaState
from tune_smp.results.folder import RunFolder
from tune_smp.settings.search import SearchSettings
from tune_smp.tuning.study import records_in
from tune_smp.tuning.trial_record import TrialRecord

TELLINGS: tuple[OptunaState, ...] = ("PRUNED", "COMPLETE")
BUDGETS = (16, 24, 32, 48, 64, 96)
"""Epochs of all trials, after which the best metric is looked at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="the folder of nuclei-binary")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    lines = []
    for seed in range(arguments.seeds):
        for told in TELLINGS:
            rows = {**TRIAL_STATES, "pruned": dataclasses.replace(TRIAL_STATES["pruned"], in_optuna=told)}
            states.TRIAL_STATES = rows
            with tempfile.TemporaryDirectory() as folder:
                records = searched(arguments.data.resolve(), Path(folder) / "out", trials=arguments.trials, seed=seed)
            lines.append(f"seed {seed}, told as {told.lower():9} {described(records)}")
    print("\n".join(lines))


def searched(data: Path, output: Path, *, trials: int, seed: int) -> list[TrialRecord]:
    """The trials of one search, in the order of their numbers."""
    flags = {
        "imagesDir": data,
        "labelsDir": data,
        "imagesPattern": "nuclei_{i:d+}.tif",
        "labelsPattern": "nuclei_{i:d+}_mask.tif",
        "segmentationMode": "binary",
        "searchSpace": "quick",
        "trainFraction": 0.95,  # ten images validate: most of the time would else go there
        "tileSize": 64,
        "stepsPerEpoch": 10,
        "cpusPerTrial": 1,
        "numTrials": trials,
        "dashboard": False,
        "seed": seed,
        "outputDir": output,
    }
    workflows.search(SearchSettings.from_flags(flags))
    return records_in(RunFolder(output).study)


def described(records: Sequence[TrialRecord]) -> str:
    """How the trials ended, and the best metric after growing numbers of epochs, trial after trial."""
    best = [(sum(row.epochs for row in records[: n + 1]), max_metric(records[: n + 1])) for n in range(len(records))]
    after = " ".join(f"{n}:{max([found for epochs, found in best if epochs <= n], default=0):.4f}" for n in BUDGETS)
    states = ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in records).items())
    return f"best {best[-1][1]:.4f} in {best[-1][0]} epochs ({states}); best after epochs {after}"


def max_metric(records: Sequence[TrialRecord]) -> float:
    return max((row.best_metric or 0.0 for row in records), default=0.0)


if __name__ == "__main__":
    main()
