"""What ``predict`` costs beyond the forward passes that it makes.

A Unet with resnet18 is trained for one step and exported; then ``predict`` and the bare forward passes of as many
batches of the same size take turns. Ten small images and a large one; the share of ``predict``'s time that the forward
passes alone take, by both clocks.

    python -m benchmarks.predict_speed [--side 2000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

import tune_smp
from benchmarks.squares import trained, write_images
from tune_smp.data.tiles import windows
from tune_smp.inference.model_folder import open_model
from tune_smp.inference.predictor import CPU_BATCH_SIZE, GPU_BATCH_SIZE
from tune_smp.training.precision import choose_device, choose_precision, use_fast_kernels

SMALL_IMAGES, SMALL_SIDE = 10, 512  # px


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall and of CPU time."""
    begun = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def sides(run: Path, folder: Path, *, count: int, side: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """``predict`` on new images in the folder, and as many forward passes."""
    write_images(folder, count=count, side=side)
    device = choose_device("auto")
    use_fast_kernels(device)
    exported = open_model(run)
    tiling = exported.tiling()
    model = exported.load().to(device).to(memory_format=torch.channels_last).eval()
    size = CPU_BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE
    tiles = len(windows(side, side, tile=tiling.tile_size, overlap=tiling.overlap))
    batch = torch.rand(size, 1, tiling.tile_size, tiling.tile_size, device=device)
    batch = batch.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def forward() -> None:
        for _ in range(count):
            for first in range(0, tiles, size):
                with choose_precision("auto", device).context(device):
                    model(batch[: tiles - first])

    def predict() -> None:
        images = folder / "images"
        tune_smp.predict(
            model=run, images_dir=images, images_pattern="{i:d+}.tif", output_dir=folder / "out", overwrite=True
        )

    return predict, forward


def compare(run: Path, folder: Path, *, count: int, side: int, rounds: int) -> None:
    """Print a row: megapixels per second, and the share of the forward passes."""
    predict, forward = sides(run, folder, count=count, side=side)
    taken: dict[str, list[tuple[float, float]]] = {"forward": [], "predict": []}
    forward()
    for _ in range(rounds):
        taken["predict"].append(seconds(predict))
        taken["forward"].append(seconds(forward))
    wall, cpu = (
        [alone[clock] / whole[clock] for alone, whole in zip(taken["forward"], taken["predict"], strict=True)]
        for clock in (0, 1)
    )
    speed = count * side**2 / 1e6 / median(whole for whole, _ in taken["predict"])
    print(
        f"| {choose_device('auto').type} | {count} of {side} px | {speed:.2f} Mpx/s | {median(wall):.2f} "
        f"({min(wall):.2f} to {max(wall):.2f}) | {median(cpu):.2f} ({min(cpu):.2f} to {max(cpu):.2f}) |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2000, help="of the large image, px")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        run = trained(folder)
        print("| device | images | predict | forward passes, share of wall time | of CPU time |")
        compare(run, folder / "small", count=SMALL_IMAGES, side=SMALL_SIDE, rounds=options.rounds)
        compare(run, folder / "large", count=1, side=options.side, rounds=options.rounds)


if __name__ == "__main__":
    main()
