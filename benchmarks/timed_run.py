"""What one run reaches in ten CPU minutes: ``train --timeBudget`` on membrane-binary and nuclei-binary, three seeds.

The run is the sensible one of ``record_curves.py`` with as many epochs as a time budget has, on one thread, in CPU
seconds; every fourth image is kept back.

    python -m benchmarks.timed_run --data COLLECTIONS [--part 0/2] [--change decoderChannels=32,batchSize=4]
    python -m benchmarks.timed_run --report
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

import torch

from benchmarks.record_curves import SENSIBLE, record
from benchmarks.tables import add_row, rows_of
from tune_smp.settings.run import EPOCHS_OF_A_BUDGET

TABLE = Path(__file__).parent / "data" / "timed_runs.csv"
COLUMNS = ("change", "collection", "seed", "steps", "metric", "kept_half", "kept")
COLLECTIONS = ("membrane-binary", "nuclei-binary")
SEEDS = range(3)
SECONDS = 600.0


def report() -> None:
    """Print the mean IoU on images kept back, and each seed's."""
    for change in dict.fromkeys(row["change"] for row in rows_of(TABLE)):
        for collection in COLLECTIONS:
            kept = [
                float(row["kept"])
                for row in rows_of(TABLE)
                if (row["change"], row["collection"]) == (change, collection)
            ]
            if kept:
                values = ", ".join(f"{value:.4f}" for value in kept)
                print(f"| {change or 'as it is'} | {collection} | {fmean(kept):.4f} | {values} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="the folder of the collections")
    parser.add_argument("--part", default="0/1", help="this process and how many there are: 0/2")
    parser.add_argument("--change", default="", help="flags of the run, as flag=value,flag=value")
    parser.add_argument("--report", action="store_true", help="print what the table says")
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    part, parts = map(int, arguments.part.split("/"))
    torch.set_num_threads(1)
    change = dict(pair.split("=", 1) for pair in arguments.change.split(",") if pair)
    jobs = [(name, seed) for seed in SEEDS for name in COLLECTIONS]
    for name, seed in jobs[part::parts]:
        if (arguments.change, name, str(seed)) in {
            (row["change"], row["collection"], row["seed"]) for row in rows_of(TABLE)
        }:
            continue
        point = {**SENSIBLE, "maxEpochs": EPOCHS_OF_A_BUDGET, **change}
        found = record(arguments.data.resolve(), name, point, seed, seconds=SECONDS)
        metric = max(float(value) for value in str(found["metric"]).split())
        add_row(TABLE, COLUMNS, {"change": arguments.change, "collection": name, **found, "metric": metric})


if __name__ == "__main__":
    main()
