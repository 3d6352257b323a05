"""Images per second that a GPU learns from: the arithmetic alone, the same as a CUDA graph, and this project.

All three: one network, Jaccard loss, Adam, the format of `--precision auto`, channels last, batches of one size.

limit   forward, backward and update on batches that lie on the GPU
graph   the same, recorded once and replayed as a whole: what the host's launching of kernels costs
ours    ``TrainingRun.run_epoch``: reading, augmentation, schedule, clipping, metrics, a small validation

Below each, where the time of ours goes: cutting tiles (host alone), the feed (tiles on the GPU, augmented), launching a
step (host alone), a step (until the GPU has done it). ``--pack N``: N processes share the GPU, each training by itself.

    python -m benchmarks.gpu_step [--networks Unet:ResNet,resnet34,random …] [--tiles 256,512] [--pack 4]

Without a GPU it measures the same on the CPU, in float32, but for the graph.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.epoch_overhead import prepare, timed, wait
from tune_smp.training.builders import build_model
from tune_smp.training.losses import build_loss
from tune_smp.training.optimizers import build_optimizer
from tune_smp.training.run import TrainingRun
from tune_smp.training.step import Tiles

NETWORKS = (
    "Unet:ResNet,resnet34,random",
    "FPN:ConvNeXt,convnext_tiny,random",
    "Unet:MobileNet,timm-mobilenetv3_small_100,random",
)
HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
STEPS = 60 if HAS_GPU else 2  # of an epoch
BLOCK = 10 if HAS_GPU else 1  # steps that are timed together


def main() -> None:
    options = parse()
    if options.pack:
        pack(options)
        return
    for network in options.networks:
        for tile in map(int, options.tiles.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                measure(options, network, tile, Path(folder))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="ARCHITECTURE:ENCODER each")
    parser.add_argument("--tiles", default="256,512", help="px")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0, help="that each variant is timed for")
    parser.add_argument("--pack", type=int, default=0, help="processes that share the GPU, ours only")
    parser.add_argument("--variants", default="limit,graph,ours")
    return parser.parse_args()


def measure(options: argparse.Namespace, network: str, tile: int, folder: Path) -> None:
    """Print one line of JSON: images per second of each variant, and milliseconds of the parts."""
    run = make_run(options, network, tile, folder)
    batches = list(run.feed.training(1))
    found: dict[str, object] = {"network": network, "tile": tile, "batch": run.batch_size}
    wanted = options.variants.split(",")
    if "limit" in wanted:
        found["limit"] = rate(limit_step(run, batches), run.batch_size, options.seconds)
    if "graph" in wanted and HAS_GPU:
        try:
            found["graph"] = rate(graph_step(run, batches[0]), run.batch_size, options.seconds)
        except RuntimeError as error:  # an operator that cannot be captured
            found["graph"] = str(error).splitlines()[0]
    if "ours" in wanted:
        run.run_epoch()
        found["ours"] = rate(run.run_epoch, STEPS * run.batch_size, options.seconds, block=1)
        found |= parts(run, batches)
    if HAS_GPU:
        found["peak_mib"] = torch.cuda.max_memory_allocated() // 2**20
    print(json.dumps(found), flush=True)


def make_run(options: argparse.Namespace, network: str, tile: int, folder: Path) -> TrainingRun:
    architecture, encoder = network.split(":")
    wanted = argparse.Namespace(
        **{"images": 40, "image_size": 512, "architecture": architecture, "encoder": encoder, "optimizer": "Adam"},
        **{"augmentation": "medium", "device": "auto", "tile_size": tile, "batch_size": options.batch_size},
        steps=STEPS,
    )
    return TrainingRun(*prepare(wanted, folder))


def new_model(run: TrainingRun) -> nn.Module:
    model = build_model(run.settings, channels=run.shape.channels, classes=run.shape.classes)
    return model.to(run.device).train()


def limit_step(run: TrainingRun, batches: Sequence[Tiles]) -> Callable[[], None]:
    model = new_model(run)
    loss, optimizer = build_loss(run.settings), build_optimizer(run.settings, model.parameters())
    turn = 0

    def step() -> None:
        nonlocal turn
        tiles = batches[turn % len(batches)]
        turn += 1
        optimizer.zero_grad()
        with run.step.in_format():
            logits = model(tiles.images)
        loss(logits, tiles.masks, has_ignored=False).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def graph_step(run: TrainingRun, tiles: Tiles) -> Callable[[], None]:
    """A whole step as one CUDA graph, as https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture."""
    model, loss = new_model(run), build_loss(run.settings)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=torch.tensor(1e-3, device=run.device), capturable=True, fused=True
    )

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", run.precision.autocast, cache_enabled=False):
            logits = model(tiles.images)
        loss(logits, tiles.masks, has_ignored=False).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call] # of torch
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def parts(run: TrainingRun, batches: Sequence[Tiles]) -> dict[str, float]:
    """Milliseconds per step of what an epoch is made of."""
    model, step = run.model.train(), run.step
    cut, _ = timed(lambda: sum(1 for _ in run.feed._training.epoch(2)), run.device)  # a look inside
    fed, _ = timed(lambda: sum(1 for _ in run.feed.training(2)), run.device)
    launched, done = [], []
    for tiles in batches[:20]:
        wait(run.device)
        started = time.perf_counter()
        step(tiles)
        launched.append(time.perf_counter() - started)
        wait(run.device)
        done.append(time.perf_counter() - started)
    model.eval()
    run.validate()
    validated, _ = timed(run.validate, run.device)
    run.feed._validation = replace(run.feed._validation, batch_size=run.batch_size)  # a look inside
    run.validate()
    validated_singly, _ = timed(run.validate, run.device)
    milliseconds = {
        "cut_ms": cut / STEPS,
        "feed_ms": fed / STEPS,
        "launch_ms": statistics.median(launched),
        "step_ms": statistics.median(done),
        "validation_ms": validated,
        "validation_batch_by_batch_ms": validated_singly,
    }
    return {name: round(1000 * value, 3) for name, value in milliseconds.items()}


def rate(step: Callable[[], object], images: int, length: float, *, block: int = BLOCK) -> float:
    """Images per second, the median over blocks of steps, after a warm-up."""
    for _ in range(block):
        step()
    rates: list[float] = []
    begun = time.perf_counter()
    while not rates or time.perf_counter() - begun < length:
        taken, _ = timed(lambda: [step() for _ in range(block)], DEVICE)
        rates.append(block * images / taken)
    return round(statistics.median(rates), 1)


def pack(options: argparse.Namespace) -> None:
    """As many processes at once, and one alone: images per second of all together."""
    tile = options.tiles.split(",")[0]
    for network in options.networks:
        for count in (1, options.pack):
            command = [sys.executable, "-m", "benchmarks.gpu_step", "--networks", network, "--tiles", tile]
            command += ["--batch-size", str(options.batch_size), "--variants", "ours", "--seconds", "12"]
            programs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
            rates = [json.loads(program.communicate()[0])["ours"] for program in programs]
            print(
                json.dumps({"network": network, "tile": int(tile), "processes": count, "ours": sum(rates)}), flush=True
            )


if __name__ == "__main__":
    main()
