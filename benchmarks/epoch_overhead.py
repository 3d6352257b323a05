"""What an epoch costs beyond its arithmetic.

Times ``TrainingRun.run_epoch`` (reading, augmentation, metrics, schedule, clipping, bookkeeping) against the same
number of forward, backward and optimizer calls, and of validation forwards, on tensors that already lie in memory. Both
sides use the same model, loss, optimizer and layout; they take turns, and the ratio is that of the medians.

    python benchmarks/epoch_overhead.py --encoder MobileNet,timm-mobilenetv3_small_100,random --steps 12 --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from tune_smp.data.pairing.collection import find_pairs
from tune_smp.data.split import Region, split_regions
from tune_smp.data.store.image_store import ImageStore, open_or_build
from tune_smp.data.synthetic import write_nuclei
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import build_model
from tune_smp.training.losses import build_loss
from tune_smp.training.optimizers import build_optimizer
from tune_smp.training.run import TrainingRun
from tune_smp.training.step import TrainingStep

PATTERN = "nuclei_{i:d+}.tif"
LIMIT = 1.05  # the aim: at most 5 % on top


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(*prepare(options, Path(folder)))
        compare(run, options.rounds)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="Unet")
    parser.add_argument("--encoder", default="MobileNet,timm-mobilenetv3_small_100,random")
    parser.add_argument("--optimizer", default="Adam")
    parser.add_argument("--augmentation", default="medium")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu"])
    parser.add_argument("--images", type=int, default=12, help="synthetic images of --image-size px")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--tile-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="training steps per epoch")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each side")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: torch's own choice")
    return parser.parse_args(words)


def prepare(options: argparse.Namespace, folder: Path) -> tuple[RunSettings, ImageStore, tuple[Region, ...]]:
    """Write the images; what a run is made from."""
    write_nuclei(folder, count=options.images, size=(options.image_size, options.image_size))
    settings = RunSettings(
        images_dir=folder / "images",
        labels_dir=folder / "labels",
        images_pattern=PATTERN,
        labels_pattern=PATTERN,
        segmentation_mode="binary",
        output_dir=folder / "output",
        model_name=options.architecture,
        encoder_base_variant_weights=options.encoder,
        optimizer_name=options.optimizer,
        augmentation=options.augmentation,
        device=options.device,
        tile_size=options.tile_size,
        batch_size=options.batch_size,
        steps_per_epoch=options.steps,
        max_epochs=10_000,
        patience=10_000,
    )
    collection = find_pairs(folder / "images", folder / "labels", images_pattern=PATTERN, labels_pattern=PATTERN)
    store = open_or_build(collection, mode="binary", cache_dir=folder / "cache")
    names = [pair.name for pair in collection.pairs]
    regions = split_regions(store.sizes, names=names, train_fraction=settings.train_fraction, seed=0)
    return settings, store, tuple(regions)


def bare_epoch(run: TrainingRun) -> Callable[[], None]:
    """The arithmetic of an epoch alone, on tensors in memory, with a model of its own."""
    settings = run.settings
    model = build_model(settings, channels=run.shape.channels, classes=run.shape.classes).to(run.device)
    step = TrainingStep(
        model,
        build_loss(settings),
        build_optimizer(settings, model.parameters()),
        row=settings.optimizer,
        precision=run.precision,
        gradient_clip=0.0,
    )
    training, validation = list(run.feed.training(1)), list(run.feed.validation())

    def epoch() -> None:
        model.train()
        for tiles in training:
            step.optimizer.zero_grad()
            step.loss(step.forward(tiles.images), tiles.masks, has_ignored=tiles.has_ignored).backward()  # type: ignore[no-untyped-call]
            step.optimizer.step()
        model.eval()
        with torch.inference_mode():
            for tiles in validation:
                step.forward(tiles.images)

    return epoch


def compare(run: TrainingRun, rounds: int) -> float:
    """Print both times and their ratio; the ratio of wall time."""
    bare = bare_epoch(run)
    whole: Callable[[], object] = run.run_epoch
    timed(bare, run.device), timed(whole, run.device)  # the first of each warms up
    times = [(timed(whole, run.device), timed(bare, run.device)) for _ in range(rounds)]
    medians = [[statistics.median(pair[side][clock] for pair in times) for side in (0, 1)] for clock in (0, 1)]
    print(f"{run.shape}; batches of {run.batch_size}, {run.feed.steps} steps, {torch.get_num_threads()} threads")
    for clock, (epoch, arithmetic) in zip(("wall", "CPU"), medians, strict=True):
        print(
            f"{clock:>4} time: epoch {epoch:.3f} s, arithmetic alone {arithmetic:.3f} s, ratio {epoch / arithmetic:.3f}"
        )
    ratio = medians[0][0] / medians[0][1]
    print(f"{'within' if ratio <= LIMIT else 'above'} the aim of {LIMIT}")
    return ratio


def timed(epoch: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds of wall and of CPU time."""
    wait(device)
    wall, cpu = time.perf_counter(), time.process_time()
    epoch()
    wait(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
