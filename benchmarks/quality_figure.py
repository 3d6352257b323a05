"""Draw docs/quality-time.svg: validation IoU of nets against CPU seconds, from the recorded learning curves.

Each line is one net of ``record_curves.py`` with the same numbers besides, the mean of five collections and of the
seeds that are recorded; the metric is the best so far. Only the default of ``quick`` has numbers of its own.

    python -m benchmarks.quality_figure
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.curves import Row, read_rows
from benchmarks.record_curves import RECORDED, SECONDS, recorded_space, table_of

mpl.use("svg")
from matplotlib import pyplot as plt

FIGURE = Path(__file__).parents[1] / "docs" / "quality-time.svg"
# Number of a configuration in the tables → the net.
NETS: Mapping[int, str] = {
    13: "Unet, mobilenetv3_small_100, decoder 32",
    1: "Unet, mobilenetv3_small_100, decoder 64",
    14: "Unet, mobilenetv3_small_100, decoder 128",
    17: "Unet, regnetx_002, decoder 64",
    18: "Unet, regnetx_002, decoder 64, depth 4",
    15: "Unet, resnet18, decoder 64, depth 3",
    16: "Unet, resnet18, decoder 64, depth 4",
    19: "FPN, regnetx_002",
    0: "the default of quick (resnet18, decoder 256)",
}
GRID = np.arange(2.0, SECONDS + 1.0, 1.0)  # CPU seconds


def at(row: Row, seconds: float) -> float:
    """The best metric so far at this time, in the mean of the seeds; 0 before the first epoch's end."""
    reached = [[best for end, best in zip(run.seconds, run.best, strict=True) if end <= seconds] for run in row.runs]
    return float(np.mean([values[-1] if values else 0.0 for values in reached]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=2)
    seeds = parser.parse_args().seeds
    space = recorded_space(Path(), RECORDED[0])
    tables = [{row.number: row for row in read_rows(table_of(name), space, seeds=seeds)} for name in RECORDED]
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for number, name in NETS.items():
        values = [np.mean([at(table[number], seconds) for table in tables]) for seconds in GRID]
        axes.plot(GRID, values, label=name, linestyle="--" if number == 0 else "-")
        print(f"| {name} | {values[8]:.3f} | {values[18]:.3f} | {values[-1]:.3f} |")
    axes.set(xlabel="CPU seconds, training and validation", ylabel="validation IoU, best so far", ylim=(0.0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    plt.rcParams["svg.hashsalt"] = "tune-smp"
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
