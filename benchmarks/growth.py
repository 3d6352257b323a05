"""How cost grows with the work: collections of more images, images of more pixels, searches of more trials.

``collections`` writes small images and their labels, builds a store of them, opens it, and lets a fresh process cut
tiles from it as a worker does. ``image`` does the same with one large image. ``mask`` lets ``predict`` write the mask
of one, by a small network, and looks at its memory. ``trials`` runs searches whose trials do nothing
(``search_overhead.py``), and times their first and last hundred.

    python -m benchmarks.growth collections [--counts 100,1000,10000]
    python -m benchmarks.growth image [--sides 5000,20000,40000]
    python -m benchmarks.growth mask [--sides 5000,20000,40000]
    python -m benchmarks.growth trials [--counts 100,1000,10000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median

from typing_extensions import override

from benchmarks.search_overhead import leave_training_out, mapped_mb, ours, resident_mb
from benchmarks.squares import trained, write_images
from tune_smp.data.batches import TrainingTiles
from tune_smp.data.normalization import Normalizer
from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import Region, read_split, write_split
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.results.folder import RunFolder
from tune_smp.tuning.cluster import local_ray
from tune_smp.tuning.listeners import Listener
from tune_smp.tuning.trial_record import TrialRecord

SMALL = 128  # px, the side of the images of a collection
TILE, BATCHES, BATCH_SIZE = 128, 50, 16
OPENINGS = 5
SMALL_NETWORK, MASK_TILE = "MobileNet,timm-mobilenetv3_small_100,random", 512


def measure_collection(folder: Path, *, count: int, side: int) -> None:
    """Print a row: what pairing, building, opening and a worker take."""
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
    ).stdout.strip()
    speed = bytes_written / 1e6 / built
    print(
        f"| {count} of {side} px | {paired:.2f} s | {built:.1f} s ({speed:.0f} MB/s) | {opened:.0f} ms | {worker} |",
        flush=True,
    )


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
    print(f"{opened:.0f} MB | {mapped_mb('Anonymous') - before:.0f} MB")


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


def measure_mask(folder: Path, run: Path, *, side: int) -> None:
    """Print a row: how long ``predict`` takes for one large image, and the most memory that is its own alone."""
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
    print(
        f"| {side} x {side} px | {seconds:.0f} s ({side**2 / 1e6 / seconds:.1f} Mpx/s) | {written / 1e6:.0f} MB "
        f"| {most:.0f} MB |",
        flush=True,
    )


class Timekeeper(Listener):
    """Notes when each trial ended."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]

    @override
    def trial_ended(self, record: TrialRecord, traceback: str) -> None:
        self.ends.append(time.perf_counter())


def measure_trials(counts: Sequence[int]) -> None:
    """Print a row for each search: what its first and its last hundred trials take, and what it leaves behind."""
    leave_training_out()
    print("| trials | first hundred | last hundred | driver's CPU time for each | its memory | journal |")
    with local_ray(device="cpu"), tempfile.TemporaryDirectory() as scratch:
        for count in counts:
            watch, folder = Timekeeper(), Path(scratch) / str(count)
            cost = ours(count, folder, watch)
            first, last = watch.ends[100] - watch.ends[0], watch.ends[-1] - watch.ends[-101]
            journal = RunFolder(folder).study.stat().st_size / 1e6
            print(
                f"| {count} | {first:.1f} s | {last:.1f} s | {1000 * cost.cpu / count:.0f} ms | {resident_mb():.0f} MB "
                f"| {journal:.1f} MB |",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["collections", "image", "mask", "trials", "worker"])
    parser.add_argument("--counts", default="100,1000,10000")
    parser.add_argument("--sides", default="5000,20000,40000")
    parser.add_argument("--store", type=Path)
    parser.add_argument("--split", type=Path)
    options = parser.parse_args()
    counts = [int(count) for count in options.counts.split(",")]
    if options.what == "worker":
        measure_worker(options.store, options.split)
    elif options.what == "trials":
        measure_trials(counts)
    elif options.what == "mask":
        print("| image | predict | its mask | private memory at most |")
        with tempfile.TemporaryDirectory() as scratch:
            run = trained(Path(scratch), encoder=SMALL_NETWORK, tile=MASK_TILE)
            for side in map(int, options.sides.split(",")):
                with tempfile.TemporaryDirectory() as images:
                    measure_mask(Path(images), run, side=side)
    else:
        print("| images | pairing | building | opening | opened by a worker | after 50 batches |")
        one = [(1, int(side)) for side in options.sides.split(",")]
        for count, side in one if options.what == "image" else [(count, SMALL) for count in counts]:
            with tempfile.TemporaryDirectory() as scratch:
                measure_collection(Path(scratch), count=count, side=side)


if __name__ == "__main__":
    main()
