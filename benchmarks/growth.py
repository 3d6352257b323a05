"""How cost grows with the work: collections of more images, images of more pixels, searches of more trials.

``collections`` writes small images and their labels, builds a store of them, opens it, and lets a fresh process cut
tiles from it as a worker does. ``image`` does the same with one large image. ``mask`` lets ``predict`` write the mask
of one, by a small network, and looks at its memory. ``trials`` runs searches whose trials do nothing
(``search_overhead.py``), and times their first and last hundred. ``workers`` lets so many at once sleep instead of
train, which a machine with two cores can do for a cluster, and compares their epochs with those of workers that nobody
keeps waiting.

    python -m benchmarks.growth collections [--counts 100,1000,10000]
    python -m benchmarks.growth image [--sides 5000,20000,40000]
    python -m benchmarks.growth mask [--sides 5000,20000,40000]
    python -m benchmarks.growth trials [--counts 100,1000,10000]
    python -m benchmarks.growth workers [--counts 1,2,4,8,32]
    python -m benchmarks.growth draw

Rows are printed and kept in results/growth.json, of which ``draw`` makes docs/growth.svg.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from typing_extensions import override

from benchmarks.machine import cpu_name
from benchmarks.search_overhead import leave_training_out, mapped_mb, ours, resident_mb
from benchmarks.squares import trained, write_images
from tune_smp.data.batches import TrainingTiles
from tune_smp.data.normalization import Normalizer
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import Region, read_split, write_split
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.results.folder import RunFolder
from tune_smp.tuning import cluster
from tune_smp.tuning.cluster import local_ray
from tune_smp.tuning.listeners import EpochResult, Listener
from tune_smp.tuning.trial_record import TrialRecord

SMALL = 128  # px, the side of the images of a collection
TILE, BATCHES, BATCH_SIZE = 128, 50, 16
OPENINGS = 5
EPOCH_S, TRIALS_OF_A_WORKER = 1.0, 8
SIZES = {"collections": "images", "image": "side", "mask": "side", "trials": "trials", "workers": "workers"}
RESULTS, FIGURE = Path(__file__).parent / "results" / "growth.json", Path(__file__).parents[1] / "docs" / "growth.svg"
SMALL_NETWORK, MASK_TILE = "MobileNet,timm-mobilenetv3_small_100,random", 512


Row: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """How rows are printed: a column for each of their values, with its title and its format."""

    titles: Mapping[str, str]
    formats: Mapping[str, str]

    def print_head(self) -> None:
        print("| " + " | ".join(self.titles.values()) + " |\n" + "|---" * len(self.titles) + "|", flush=True)

    def print_row(self, row: Row) -> None:
        print("| " + " | ".join(self.formats[name].format(row[name]) for name in self.titles) + " |", flush=True)


def table(**columns: tuple[str, str]) -> Table:
    """``columns``: title and format by the name of the value."""
    titles, formats = ({name: column[place] for name, column in columns.items()} for place in (0, 1))
    return Table(titles, formats)


COLLECTIONS = table(
    images=("images", "{:.0f}"),
    side=("of", "{:.0f} px"),
    pairing_s=("pairing", "{:.2f} s"),
    building_s=("building the store", "{:.1f} s"),
    written_mb_s=("writing it", "{:.0f} MB/s"),
    opening_ms=("opening", "{:.0f} ms"),
    opened_mb=("private memory of a worker: opened", "{:.0f} MB"),
    worker_mb=("after 50 batches", "{:.0f} MB"),
)
TABLES: Mapping[str, Table] = {
    "collections": COLLECTIONS,
    "image": COLLECTIONS,
    "mask": table(
        side=("image", "{0:.0f} × {0:.0f} px"),
        seconds=("predict", "{:.0f} s"),
        mpx_s=("megapixels a second", "{:.1f}"),
        written_mb=("its mask", "{:.0f} MB"),
        private_mb=("private memory at most", "{:.0f} MB"),
    ),
    "trials": table(
        trials=("trials that do nothing, two at once", "{:.0f}"),
        first_s=("first hundred", "{:.1f} s"),
        last_s=("last hundred", "{:.1f} s"),
        driver_ms=("driver's CPU time for each", "{:.0f} ms"),
        driver_mb=("its memory", "{:.0f} MB"),
        journal_mb=("journal", "{:.1f} MB"),
    ),
    "workers": table(
        workers=("workers that sleep a second for each epoch", "{:.0f}"),
        epochs_s=("epochs a second", "{:.1f}"),
        busy=("share of the time in which they work", "{:.0%}"),
        driver_ms=("driver's CPU time for each epoch", "{:.0f} ms"),
    ),
}


def measure_collection(folder: Path, *, count: int, side: int) -> Row:
    """What pairing, building, opening and a worker take."""
    bytes_written = write_images(folder, count=count, side=side)
    clock = time.perf_counter()
    pattern = "{i:d+}.tif"
    pairs = find_pairs(folder / "images", folder / "labels", images_pattern=pattern, labels_pattern=pattern)
    paired = time.perf_counter() - clock
    clock = time.perf_counter()
    store = open_or_build(pairs, mode="binary", cache_dir=folder / "cache")
    built = time.perf_counter() - clock
    opened = 1000 * median(_opening(store.path) for _ in range(OPENINGS))
    split = folder / "split.csv"
    regions = [Region(pair, 0, height, 0, width, "train") for pair, (height, width) in enumerate(store.sizes)]
    write_split(split, regions, store.collection)
    worker = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "worker", "--store", str(store.path), "--split", str(split)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return {
        "images": count,
        "side": side,
        "pairing_s": paired,
        "building_s": built,
        "written_mb_s": bytes_written / 1e6 / built,
        "opening_ms": opened,
        "opened_mb": float(worker[0]),
        "worker_mb": float(worker[1]),
    }


def _opening(path: Path) -> float:
    begun = time.perf_counter()
    ImageStore.open(path)
    return time.perf_counter() - begun


def measure_worker(path: Path, split: Path) -> None:
    """Print the private memory that a fresh process takes to open a store, read the split, and cut its tiles."""
    before = mapped_mb("Anonymous")
    store = ImageStore.open(path)
    regions = read_split(split, store.keys)
    opened = mapped_mb("Anonymous") - before
    for _ in batches(store, regions):
        pass
    print(opened, mapped_mb("Anonymous") - before)


def batches(store: ImageStore, regions: Sequence[Region]) -> Iterator[object]:
    return TrainingTiles(
        store=store,
        regions=regions,
        normalizer=Normalizer(store, "percentile", "image"),
        tile_size=TILE,
        batch_size=BATCH_SIZE,
        seed=0,
        steps_per_epoch=BATCHES,
        foreground_fraction=0.33,
    ).epoch(1)


def measure_mask(folder: Path, run: Path, *, side: int) -> Row:
    """How long ``predict`` takes for one large image, and the most memory that is its own alone."""
    write_images(folder, count=1, side=side)
    began = time.perf_counter()
    words = ["--model", run, "--imagesDir", folder / "images", "--imagesPattern", "{i:d+}.tif"]
    command = [sys.executable, "-m", "tune_smp", "predict", *map(str, words), "--outputDir", str(folder / "out")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        most = 0.0
        while process.poll() is None:
            with suppress(OSError, StopIteration):  # it has just ended
                most = max(most, mapped_mb("Anonymous", process.pid))
            time.sleep(0.2)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    written = sum(path.stat().st_size for path in (folder / "out").iterdir())
    return {
        "side": side,
        "seconds": seconds,
        "mpx_s": side**2 / 1e6 / seconds,
        "written_mb": written / 1e6,
        "private_mb": most,
    }


class Timekeeper(Listener):
    """Notes when each trial ended."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]

    @override
    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        self.ends.append(time.perf_counter())


def measure_trials(folder: Path, count: int) -> Row:
    """What the first and the last hundred trials of a search take, and what it leaves behind."""
    watch = Timekeeper()
    cost = ours(count, folder, watch)
    return {
        "trials": count,
        "first_s": watch.ends[100] - watch.ends[0],
        "last_s": watch.ends[-1] - watch.ends[-101],
        "driver_ms": 1000 * cost.cpu / count,
        "driver_mb": resident_mb(),
        "journal_mb": RunFolder(folder).study.stat().st_size / 1e6,
    }


class EpochCounter(Listener):
    """Counts epochs from the first one on."""

    def __init__(self) -> None:
        self.epochs = 0
        self.began = self.ended = 0.0

    @override
    def epoch_ended(self, number: int, result: EpochResult) -> None:
        self.ended = time.perf_counter()
        self.began = self.began or self.ended
        self.epochs += 1


def measure_workers(folder: Path, count: int) -> Row:
    """The share of the time in which so many workers work, and what the driver did."""
    counter = EpochCounter()
    cost = ours(TRIALS_OF_A_WORKER * count, folder, counter, workers=count, epoch_s=EPOCH_S)
    pace = (counter.epochs - 1) / (counter.ended - counter.began)
    return {
        "workers": count,
        "epochs_s": pace,
        "busy": pace * EPOCH_S / count,
        "driver_ms": 1000 * cost.cpu / counter.epochs,
    }


def rows(what: str, sizes: Sequence[int]) -> Iterator[Row]:
    """A row for each size: images, pixels of a side, trials or workers."""
    with ExitStack() as opened:
        scratch = Path(opened.enter_context(tempfile.TemporaryDirectory()))
        if what in ("trials", "workers"):
            leave_training_out()
        if what == "trials":
            opened.enter_context(local_ray(device="cpu"))
        run = trained(scratch / "model", encoder=SMALL_NETWORK, tile=MASK_TILE) if what == "mask" else None
        for size in sizes:
            folder = scratch / str(size)
            if run is not None:
                yield measure_mask(folder, run, side=size)
            elif what == "trials":
                yield measure_trials(folder, size)
            elif what == "workers":
                cluster.usable_cpus = lambda size=size: size  # type: ignore[misc]  # each trial takes one
                with local_ray(device="cpu"):
                    yield measure_workers(folder, size)
            else:
                count, side = (1, size) if what == "image" else (size, SMALL)
                yield measure_collection(folder, count=count, side=side)
            shutil.rmtree(folder)


def keep(what: str, row: Row) -> None:
    """Keep a row in place of the one of the same size."""
    kept = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    size = SIZES[what]
    others = [other for other in kept.get(what, []) if other[size] != row[size]]
    rounded: dict[str, float | str] = {name: round(value, 3) for name, value in row.items()}
    rounded |= {"date": datetime.date.today().isoformat(), "device": cpu_name()}
    kept[what] = sorted([*others, rounded], key=lambda other: other[size])
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def draw() -> None:
    """Draw what is kept: time and memory by size."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    kept = json.loads(RESULTS.read_text("utf-8"))
    figure, ((time_axes, memory_axes), (trial_axes, worker_axes)) = plt.subplots(
        2, 2, figsize=(9, 6.4), layout="constrained"
    )

    def line(axes: Any, what: str, value: str, label: str) -> None:
        found = kept.get(what, [])
        label = label if found else f"{label}: not measured"
        pixels = [row.get("images", 1) * row["side"] ** 2 / 1e6 if "side" in row else row[what] for row in found]
        axes.plot(pixels, [row[value] for row in found], "o-", label=label, markersize=4)

    line(time_axes, "collections", "building_s", "building, images of 128 px")
    line(time_axes, "collections", "pairing_s", "pairing")
    line(time_axes, "image", "building_s", "building, one image")
    line(time_axes, "mask", "seconds", "predict, one image, a small net")
    time_axes.set(xlabel="megapixels", ylabel="seconds", xscale="log", yscale="log")
    line(memory_axes, "collections", "worker_mb", "a worker, images of 128 px")
    line(memory_axes, "image", "worker_mb", "a worker, one image")
    line(memory_axes, "mask", "private_mb", "predict, one image")
    memory_axes.set(xlabel="megapixels", ylabel="private memory, MB", xscale="log")
    line(trial_axes, "trials", "first_s", "first hundred")
    line(trial_axes, "trials", "last_s", "last hundred")
    trial_axes.set(xlabel="trials that do nothing", ylabel="seconds", xscale="log")
    line(worker_axes, "workers", "busy", "share of the time in which workers work")
    worker_axes.set(xlabel="workers", xscale="log")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    for axes in (memory_axes, trial_axes, worker_axes):
        axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
    plt.rcParams["svg.hashsalt"] = "tune-smp"
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*TABLES, "worker", "draw"])
    parser.add_argument("--counts", help="default: 100,1000,10000, of workers 1,2,4,8,32")
    parser.add_argument("--sides", default="5000,20000,40000")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--split", type=Path)
    options = parser.parse_args()
    if options.what == "worker":
        measure_worker(options.store, options.split)
    elif options.what == "draw":
        draw()
    else:
        of_counts = options.counts or ("1,2,4,8,32" if options.what == "workers" else "100,1000,10000")
        sizes = options.sides if SIZES[options.what] == "side" else of_counts
        TABLES[options.what].print_head()
        for row in rows(options.what, [int(size) for size in sizes.split(",")]):
            TABLES[options.what].print_row(row)
            keep(options.what, row)


if __name__ == "__main__":
    main()
