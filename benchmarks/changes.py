"""One change at a time to a sensible run, at equal CPU time: what the space of the recorded curves does not hold.

Runs are those of ``record_curves.py`` (`SECONDS` of CPU time, one thread, every fourth image kept back), on five
collections and three seeds.

    python -m benchmarks.changes --data COLLECTIONS [--part 0/2]
    python -m benchmarks.changes --report
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.ablations import show
from benchmarks.kept_back import COLLECTIONS
from benchmarks.record_curves import SENSIBLE, record
from tune_smp.tuning.space import Scalar

TABLE = Path(__file__).parent / "data" / "changes.csv"
COLUMNS = ("change", "collection", "seed", "steps", "kept_half", "kept")
SEEDS = range(3)
CHANGES: Mapping[str, Mapping[str, Scalar]] = {
    "nothing": {},
    "--lossName DiceFocalLoss": {"lossName": "DiceFocalLoss"},
    "--decoderAttention scse": {"decoderAttention": "scse"},
}


def report() -> None:
    """Print paired differences to the run without a change, with intervals over collections and seeds."""
    kept = {(row["change"], row["collection"], row["seed"]): float(row["kept"]) for row in rows()}
    for change in CHANGES:
        runs = [(name, "", seed) for other, name, seed in kept if other == change != "nothing"]
        show(change, runs, lambda run, change=change: kept[change, run[0], run[2]] - kept["nothing", run[0], run[2]])  # type: ignore[misc]


def rows() -> Sequence[Mapping[str, str]]:
    if not TABLE.exists():
        return []
    with TABLE.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add(row: Mapping[str, object]) -> None:
    """Append a row in one write."""
    is_new = not TABLE.exists()
    with TABLE.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="the folder of the collections")
    parser.add_argument("--part", default="0/1", help="this process and how many there are: 0/2")
    parser.add_argument("--report", action="store_true", help="print what the table says")
    arguments = parser.parse_args()
    if arguments.report:
        report()
        return
    part, parts = map(int, arguments.part.split("/"))
    torch.set_num_threads(1)
    jobs = [(change, name, seed) for seed in SEEDS for name in COLLECTIONS for change in CHANGES]
    for change, name, seed in jobs[part::parts]:
        if (change, name, str(seed)) not in {(row["change"], row["collection"], row["seed"]) for row in rows()}:
            found = record(arguments.data.resolve(), name, {**SENSIBLE, **CHANGES[change]}, seed)
            add({"change": change, "collection": name, **found})


if __name__ == "__main__":
    main()
