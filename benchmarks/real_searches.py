"""Real searches against the default trained for the same time, on images that neither has seen.

Every fourth image is kept back. On the others, ``tune-smp search --searchSpace quick --resource seconds`` has so many
minutes, and then the default of that space, trial 0 of the search, is trained by ``tune-smp train --timeBudget`` for as
long. What each delivers (``predict`` with the output folder), and the search's own proved model, segments the images
kept back. Nothing else should run on the machine. What is recorded already is not run again.

    python -m benchmarks.real_searches --data COLLECTIONS --work FOLDER [--minutes 10] [--collections a,b] [--seeds 0,1]
    python -m benchmarks.real_searches --report

``data/real_searches.json`` has a record for each search and each default: collection, seed, minutes, the commit of the
program (none in the oldest), and for each model its pixels (tp, fp, fn, tn) of each class, image by image. Records of
one commit belong together: ``--commit`` names the earlier one whose records are completed, where nothing has changed
since that counts, or that of a copy that is no repository.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Any

import numpy as np
import torch

import tune_smp
from benchmarks.kept_back import COLLECTIONS, data_flags
from tune_smp.choices.metrics import METRICS
from tune_smp.data.labels import Mode
from tune_smp.data.opening import find_collection, open_store
from tune_smp.data.store.image_store import ImageStore
from tune_smp.settings.run import RunSettings
from tune_smp.training.metrics import PixelCounts, metrics_from_counts
from tune_smp.training.paired_gain import SAMPLES, gain_samples
from tune_smp.tuning.first_points import default_values
from tune_smp.tuning.space import values_by_flag
from tune_smp.tuning.space_file import read_space

RECORDS = Path(__file__).parent / "data" / "real_searches.json"
SPACE = "quick"
DEFAULT, PROVED, DELIVERED = "default", "proved", "delivered"
MODELS = (DEFAULT, PROVED, DELIVERED)
COMMANDS = ("search", "train")
KEY = ("command", "collection", "seed", "minutes", "commit")

Record = Mapping[str, Any]


def default_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """Trial 0 of the space under these flags, as flags of ``train``; of the epochs the time says how many."""
    space = read_space(SPACE).with_flags({flag: value for flag, value in given.items() if flag != "timeBudget"})
    flags = {**space.fixed, **values_by_flag(default_values(space))}
    return {flag: value for flag, value in flags.items() if flag not in ("stepsPerEpoch", "maxEpochs", "patience")}


def kept_back(store: ImageStore) -> list[int]:
    """Every fourth pair, by name."""
    order = sorted(range(len(store)), key=lambda pair: store.pairs[pair].name)
    return [pair for place, pair in enumerate(order) if place % 4 == 3]


def copy_others(store: ImageStore, kept: Sequence[int], folder: Path) -> None:
    """The files of all pairs but those kept back."""
    for number, pair in enumerate(store.pairs):
        if number not in kept:
            for name, paths in (("images", pair.images), ("labels", pair.labels)):
                (folder / name).mkdir(parents=True, exist_ok=True)
                for path in paths:
                    copyfile(path, folder / name / path.name)


def counts_on(model: Path, store: ImageStore, kept: Sequence[int]) -> list[list[list[int]]]:
    """The pixels of each image kept back, as ``predict`` would segment it."""
    predictor = tune_smp.load(model, device="cpu")
    preprocessing = predictor.preprocessing
    found = []
    for pair in kept:
        probabilities = torch.from_numpy(predictor.predict(store.image(pair), output="probabilities"))[None]
        counts = PixelCounts(preprocessing.segmentation_mode, preprocessing.class_map.classes)
        counts.add_probabilities(probabilities, torch.from_numpy(store.mask(pair).copy())[None])
        found.append(counts.at(preprocessing.thresholds))
    return found


def run(command: str, flags: Mapping[str, Any]) -> float:
    """Seconds that a command took."""
    began = time.monotonic()
    words = [f"--{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in flags.items()]
    subprocess.run([sys.executable, "-m", "tune_smp", command, *words], check=True)
    return round(time.monotonic() - began, 1)


def measure(data: Path, work: Path, command: str, collection: str, seed: int, minutes: float, commit: str) -> Record:
    """One search, or one default, from the images to the pixels of those kept back."""
    everything = RunSettings.from_flags({**data_flags(data / collection, collection), "outputDir": work / "none"})
    store = open_store(everything, find_collection(everything))
    kept = kept_back(store)
    place = work / f"{collection}-{seed}-{command}"
    rmtree(place, ignore_errors=True)
    copy_others(store, kept, place / "data")
    common = {"seed": seed, "dashboard": False, "device": "cpu", "timeBudget": f"{minutes:g}m"}
    given = {**data_flags(place / "data", collection), **common}
    output = place / "output"
    if command == "search":
        seconds = run(command, {**given, "searchSpace": SPACE, "resource": "seconds", "outputDir": output})
        models = {PROVED: output / "model", DELIVERED: output}
    else:
        given = {**given, "outputDir": output}
        seconds = run(command, {**default_flags(given), **given})
        models = {DEFAULT: output}
    summary = json.loads((output / "summary.json").read_text("utf-8"))
    return {
        **{"command": command, "collection": collection, "seed": seed, "minutes": minutes, "commit": commit},
        "seconds": seconds,
        **{name: summary[name] for name in ("best_metric", "trials", "epochs", "final")},
        "counts": {name: counts_on(model, store, kept) for name, model in models.items()},
    }


def pairs(records: Sequence[Record]) -> list[Record]:
    """The searches and the defaults of the same collection, seed and minutes, with the pixels of all three models."""
    of_command: dict[str, dict[tuple[Any, ...], Record]] = {command: {} for command in COMMANDS}
    for record in records:
        of_command[record["command"]][key_of(record)[1:]] = record
    searches, defaults = (of_command[command] for command in COMMANDS)
    return [
        {**search, "counts": {**search["counts"], **defaults[key]["counts"]}}
        for key, search in sorted(searches.items())
        if key in defaults
    ]


def metric_of(record: Record, model: str) -> float:
    """The IoU of a model over all images kept back."""
    counts = np.array(record["counts"][model]).sum(axis=0).tolist()
    return metrics_from_counts(counts, mode_of(record["collection"])).iou


def mode_of(collection: str) -> Mode:
    modes: Mapping[str, Mode] = {"binary": "binary", "multiclass": "multiclass", "multilabel": "multilabel"}
    return modes[collection.rpartition("-")[2]]


def gain(records: Sequence[Record], model: str) -> tuple[float, float, float]:
    """The gain over the default, in the mean of the collections, and its interval of 95 % over seeds and images."""
    by_collection: dict[str, list[Record]] = {}
    for record in records:
        by_collection.setdefault(record["collection"], []).append(record)
    means, samples = [], []
    for collection, rows in by_collection.items():
        ours, theirs = ([row["counts"][name] for row in rows] for name in (model, DEFAULT))
        samples.append(gain_samples(ours, theirs, METRICS["IoU"], mode_of(collection)))
        means.append(np.mean([metric_of(row, model) - metric_of(row, DEFAULT) for row in rows]))
    low, high = np.percentile(np.mean(samples, axis=0), [2.5, 97.5])
    return float(np.mean(means)), float(low), float(high)


def report(records: Sequence[Record]) -> None:
    """Print a line for each search, and the mean gain with its intervals."""
    print(f"{'collection':<20} seed  {'default':>8} {'proved':>8} {'delivered':>9}")
    for row in records:
        values = [metric_of(row, model) for model in MODELS]
        print(f"{row['collection']:<20} {row['seed']:>4}  {values[0]:8.4f} {values[1]:8.4f} {values[2]:9.4f}")
    for model in (PROVED, DELIVERED) if records else ():
        mean, low, high = gain(records, model)
        gains = np.array([metric_of(row, model) - metric_of(row, DEFAULT) for row in records])
        drawn = np.random.default_rng(0).choice(gains, size=(SAMPLES, len(gains))).mean(axis=1)
        print(f"{model}: better in {(gains > 0).sum()} of {len(gains)}, by {mean:+.4f} in the mean of the collections")
        print(f"  95 % interval over images and seeds {low:+.4f} to {high:+.4f}", end=", ")
        print("over the searches {:+.4f} to {:+.4f}".format(*np.percentile(drawn, [2.5, 97.5])))


def key_of(record: Record) -> tuple[Any, ...]:
    return tuple(record.get(name, "") for name in KEY)


def head() -> str:
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.check_output(words, cwd=Path(__file__).parent, text=True).strip()


def recorded() -> list[Record]:
    found: list[Record] = json.loads(RECORDS.read_text("utf-8")) if RECORDS.exists() else []
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--collections", default=",".join(COLLECTIONS))
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--commit", help="whose records are completed; default: the newest of this repository")
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    if arguments.report:
        found = pairs(recorded())
        for commit in sorted({record.get("commit", "") for record in found}):
            print(f"\n{commit or 'before commits were recorded'}")
            report([record for record in found if record.get("commit", "") == commit])
        return
    commit = arguments.commit or head()
    for seed in map(int, arguments.seeds.split(",")):
        for collection in arguments.collections.split(","):
            for command in arguments.commands.split(","):
                key = (command, collection, seed, arguments.minutes, commit)
                if key not in map(key_of, recorded()):
                    record = measure(arguments.data.absolute(), arguments.work.absolute(), *key)
                    RECORDS.write_text(json.dumps([*recorded(), record]) + "\n", "utf-8")
            report(pairs(recorded()))


if __name__ == "__main__":
    main()
