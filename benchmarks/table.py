"""One table: this program beside the arithmetic alone and beside what people write (``benchmarks/peers.py``).

Both sides of a row do the same work in one process on one machine, in turns; the ratio is that of their speeds, above 1
where this program is faster. Prints the rows as they are measured, and keeps them as JSON with the device and the
versions; ``--draw`` makes docs/performance.svg of that. About a quarter of an hour, alone on two cores.

    python -m benchmarks.table [--rows 1,3] [--json FILE]
    python -m benchmarks.table --draw FILE
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import io
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import torch
from rich.console import Console

import tune_smp
from benchmarks import epoch_overhead, predict_speed
from benchmarks.machine import cpu_name
from benchmarks.peers import Loop, Task, lightning_run, optuna_search, ray_search
from benchmarks.squares import trained
from tune_smp.data.split import Region
from tune_smp.data.store.image_store import ImageStore
from tune_smp.settings.run import RunSettings
from tune_smp.training.precision import choose_device, choose_precision
from tune_smp.training.run import TrainingRun

FIGURE = Path(__file__).parents[1] / "docs" / "performance.svg"
RESULTS = Path(__file__).parent / "results"
VERSIONS = ("tune-smp", "torch", "segmentation-models-pytorch", "ray", "optuna", "pytorch-lightning")
RESNET, MOBILENET = "ResNet,resnet18,random", "MobileNet,timm-mobilenetv3_small_100,random"
TILE, BATCH, STEPS = 128, 8, 20
IMAGES, IMAGE_SIZE = 12, 256  # px
SETTLED = 3  # epochs: while statistics of batch normalisation are young, there are more validations
TRIALS, TRIAL_EPOCHS, TRIAL_STEPS, CONCURRENCY = 6, 2, 15, 2

Side = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """What is compared. ``least`` is the aim: the peer's speed times that. ``in_process``: CPU time says something."""

    name: str
    peer: str
    least: float
    sides: Callable[[Path], tuple[Side, Side]]
    rounds: int
    in_process: bool = True


@dataclass(frozen=True)
class Measured:
    """Seconds of each round, and the ratios of speed."""

    name: str
    peer: str
    least: float
    ours: Sequence[float]
    theirs: Sequence[float]
    cpu: float | None

    @property
    def ratios(self) -> list[float]:
        """Of each pair of rounds."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def line(self) -> str:
        """A row of the table."""
        low, high = min(self.ratios), max(self.ratios)
        cpu = "" if self.cpu is None else f"{self.cpu:.2f}"
        good = "yes" if median(self.ratios) >= self.least else "no"
        seconds = f"{median(self.ours):.1f} s, {median(self.theirs):.1f} s"
        ratio = f"{median(self.ratios):.2f} ({low:.2f} to {high:.2f})"
        return f"| {self.name} | {self.peer} | {seconds} | {ratio} | {cpu} | {self.least:g}: {good} |"


Parts: TypeAlias = tuple[RunSettings, ImageStore, tuple[Region, ...]]


def _parts(encoder: str, folder: Path) -> Parts:
    words = ["--encoder", encoder, "--images", str(IMAGES), "--image-size", str(IMAGE_SIZE)]
    words += ["--tile-size", str(TILE), "--batch-size", str(BATCH), "--steps", str(STEPS)]
    return epoch_overhead.prepare(epoch_overhead.parse(words), folder)


def _trained(parts: Parts, *, epochs: int = SETTLED) -> TrainingRun:
    run = TrainingRun(*parts)
    for _ in range(epochs):
        run.run_epoch()
    return run


def _same_for_a_peer(parts: Parts, *, steps: int = STEPS, epochs: int = 1) -> Task:
    settings, _, regions = parts
    return Task(
        folder=settings.images_dir.parent,
        encoder=settings.encoder_base_variant_weights.split(",")[1],
        tile=TILE,
        batch=BATCH,
        steps=steps,
        validation_tiles=sum(len(tiles) for tiles in TrainingRun(*parts).feed.validation()),
        validation_images=sum(region.subset == "validation" for region in regions),
        epochs=epochs,
    )


def arithmetic(encoder: str) -> Callable[[Path], tuple[Side, Side]]:
    def sides(folder: Path) -> tuple[Side, Side]:
        run = _trained(_parts(encoder, folder))
        return run.run_epoch, epoch_overhead.bare_epoch(run)

    return sides


def loop(folder: Path) -> tuple[Side, Side]:
    parts = _parts(MOBILENET, folder)
    return _trained(parts).run_epoch, Loop(_same_for_a_peer(parts)).epoch


def lightning(folder: Path) -> tuple[Side, Side]:
    parts = _parts(MOBILENET, folder)
    task = _same_for_a_peer(parts, epochs=SETTLED)
    return lambda: _trained(parts), lightning_run(task, folder / "lightning")


def _our_search(folder: Path) -> None:
    space = folder / "space.yaml"
    space.write_text("search: {learningRate: {low: 1e-4, high: 1e-2, log: true}}\n", encoding="utf-8")
    tune_smp.search(
        images_dir=folder / "images",
        labels_dir=folder / "labels",
        images_pattern=epoch_overhead.PATTERN,
        labels_pattern=epoch_overhead.PATTERN,
        segmentation_mode="binary",
        output_dir=folder / "search",
        cache_dir=folder / "cache",
        overwrite=True,
        search_space=str(space),
        num_trials=TRIALS,
        scheduler="none",
        dashboard=False,
        device="cpu",
        encoder_base_variant_weights=MOBILENET,
        tile_size=TILE,
        batch_size=BATCH,
        steps_per_epoch=TRIAL_STEPS,
        max_epochs=TRIAL_EPOCHS,
        console=Console(file=io.StringIO()),
    )


def _search_task(folder: Path) -> Task:
    return _same_for_a_peer(_parts(MOBILENET, folder), steps=TRIAL_STEPS, epochs=TRIAL_EPOCHS)


def bare_ray(folder: Path) -> tuple[Side, Side]:
    task = _search_task(folder)
    return lambda: _our_search(folder), lambda: ray_search(task, folder / "ray", trials=TRIALS, concurrency=CONCURRENCY)


def plain_optuna(folder: Path) -> tuple[Side, Side]:
    task = _search_task(folder)
    return lambda: _our_search(folder), lambda: optuna_search(task, folder, trials=TRIALS)


def prediction(folder: Path) -> tuple[Side, Side]:
    run = trained(folder / "model")
    return predict_speed.sides(run, folder, count=predict_speed.SMALL_IMAGES, side=predict_speed.SMALL_SIDE)


ROWS = (
    Row("an epoch, Unet with resnet18", "its arithmetic on tensors in memory", 0.95, arithmetic(RESNET), 7),
    Row("an epoch, Unet with mobilenetv3_small", "its arithmetic on tensors in memory", 0.95, arithmetic(MOBILENET), 7),
    Row("an epoch, mobilenetv3_small", "smp in a loop, DataLoader, tifffile", 1.0, loop, 5, in_process=False),
    Row(f"a run of {SETTLED} epochs", "PyTorch Lightning", 1.0, lightning, 3, in_process=False),
    Row(f"a search of {TRIALS} trials", "Ray Tune, a function trainable", 1.0, bare_ray, 2, in_process=False),
    Row(f"a search of {TRIALS} trials", "Optuna in one process", 1.0, plain_optuna, 2, in_process=False),
    Row("predict", "its forward passes", 0.9, prediction, 3),
)


def measured(row: Row, folder: Path) -> Measured:
    """The sides in turns: ours first, theirs first, and so on, after each has run once where it can be warm."""
    sides = row.sides(folder)
    if row.in_process:
        for side in sides:
            side()
    taken: tuple[list[tuple[float, float]], list[tuple[float, float]]] = ([], [])
    for number in range(row.rounds):
        for place in (0, 1) if number % 2 == 0 else (1, 0):
            taken[place].append(predict_speed.seconds(sides[place]))
    (ours, our_cpu), (theirs, their_cpu) = (tuple(zip(*rounds, strict=True)) for rounds in taken)
    cpu = median(their_cpu) / median(our_cpu) if row.in_process else None
    return Measured(row.name, row.peer, row.least, ours, theirs, cpu)


def record(rows: Sequence[Measured]) -> dict[str, Any]:
    """What is kept: device, format, versions and the rows."""
    device = choose_device("auto")
    versions = {}
    for name in VERSIONS:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": torch.get_num_threads(),
        "format": choose_precision("auto", device).name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "python": platform.python_version(),
        "versions": versions,
        "rows": [{**dataclasses.asdict(row), "ratios": row.ratios} for row in rows],
    }


def draw(kept: dict[str, Any]) -> None:
    """Draw the ratios with their spreads; the vertical line is the peer."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    rows = kept["rows"]
    figure, axes = plt.subplots(figsize=(8, 0.55 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        middle, ratios = median(row["ratios"]), row["ratios"]
        axes.plot([min(ratios), max(ratios)], [place, place], color="tab:blue", linewidth=3, alpha=0.4)
        axes.plot(middle, place, "o", color="tab:blue")
        axes.plot(row["least"], place, "|", color="black", markersize=14)
        axes.annotate(f"{middle:.2f}", (middle, place), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axes.axvline(1.0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{row['name']}\nbeside {row['peer']}" for row in reversed(rows)], fontsize=8)
    axes.set_xscale("log")
    ticks = [tick for tick in (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(-0.6, len(rows) - 0.3)
    where = f"{kept['device']}, {kept['format']}, {kept['date']}"
    axes.set_xlabel(f"speed as a multiple of the peer's; the black mark is the aim\n{where}", fontsize=8)
    plt.rcParams["svg.hashsalt"] = "tune-smp"
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", help="their numbers, with commas between them (default: all)")
    parser.add_argument("--json", type=Path, default=RESULTS / "table.json")
    parser.add_argument("--draw", type=Path, metavar="FILE", help="draw a table that was kept, and measure nothing")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw.read_text("utf-8")))
        return
    numbers = [int(number) for number in options.rows.split(",")] if options.rows else range(1, len(ROWS) + 1)
    begun = time.perf_counter()
    print("| what | beside | ours, theirs | speed | CPU time | aim |\n|---|---|---|---|---|---|", flush=True)
    found = []
    for row in (ROWS[number - 1] for number in numbers):
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found.append(measured(row, Path(scratch)))
            except ImportError as error:
                print(f"| {row.name} | {row.peer} | not measured: {error} | | | |", flush=True)
                continue
        print(found[-1].line, flush=True)
    options.json.write_text(json.dumps(record(found), indent=1) + "\n", encoding="utf-8")
    print(f"{time.perf_counter() - begun:.0f} s; wrote {options.json}")


if __name__ == "__main__":
    main()
