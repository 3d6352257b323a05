"""What Ray costs beside the work: CPU seconds and memory of every process of the real program, by what it is for.

A ``train`` and a ``search`` of the command line on synthetic images, each watched to its end. CPU time is that of each
process when it was last seen; memory is the largest sum of the processes' proportional shares (PSS), in which a page
that several of them map counts once.

    python -m benchmarks.ray_share [--minutes 2] [--dashboard true]
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.search_overhead import mapped_mb
from tune_smp.data.synthetic import write_nuclei

EVERY_S = 1.0
KINDS = ("trials", "driver", "Ray")
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
PATTERN = "nuclei_{i:d+}.tif"
OF: Mapping[str, Mapping[str, Any]] = {
    "train": {"encoderBaseVariantWeights": "ResNet,resnet18,random", "tileSize": 128, "batchSize": 8},
    "search": {"searchSpace": "quick"},
}
"""Further flags of each command."""


def command(folder: Path, word: str, *, minutes: float, dashboard: str) -> Sequence[str]:
    given = {
        "imagesDir": folder / "data",
        "labelsDir": folder / "data",
        "imagesPattern": PATTERN,
        "labelsPattern": PATTERN,
        "segmentationMode": "binary",
        "outputDir": folder / word,
        "cacheDir": folder / "cache",
        "timeBudget": f"{minutes:g}m",
        "dashboard": dashboard,
        **OF[word],
    }
    return [sys.executable, "-m", "tune_smp", word, *(f"--{flag}={value}" for flag, value in given.items())]


def kind_of(process: psutil.Process, driver: int) -> str:
    """Trials name their class, and workers that wait for one say that they are idle; Ray's agents have such titles."""
    if process.pid == driver:
        return "driver"
    title = process.cmdline()[0] if process.cmdline() else ""
    return "trials" if title.startswith("ray::") and title not in AGENTS else "Ray"


def watch(words: Sequence[str]) -> tuple[Mapping[str, float], Mapping[str, float], int]:
    """Run the command; CPU seconds and most memory in MB by kind, and the most processes that there were at once."""
    seconds: dict[tuple[int, float], tuple[str, float]] = {}
    most: dict[str, float] = {}
    processes = 0
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as program:
        while program.poll() is None:
            memory: dict[str, float] = defaultdict(float)
            with contextlib.suppress(psutil.NoSuchProcess):
                tree = [psutil.Process(program.pid), *psutil.Process(program.pid).children(recursive=True)]
                processes = max(processes, len(tree))
                for process in tree:
                    with contextlib.suppress(psutil.Error, OSError, StopIteration):
                        kind, cpu = kind_of(process, program.pid), process.cpu_times()
                        seconds[process.pid, process.create_time()] = kind, cpu.user + cpu.system
                        memory[kind] += mapped_mb("Pss", process.pid)
            if sum(memory.values()) > sum(most.values()):
                most = dict(memory)
            time.sleep(EVERY_S)
    assert program.returncode == 0, words
    by_kind: dict[str, float] = defaultdict(float)
    for kind, spent in seconds.values():
        by_kind[kind] += spent
    return by_kind, most, processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--dashboard", default="true", choices=["true", "false"])
    options = parser.parse_args()
    print("| | processes | CPU time: trials, driver, Ray | Ray's share | memory: trials, driver, Ray |")
    for word in OF:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_nuclei(folder / "data", count=16, size=(256, 256))
            cpu, memory, processes = watch(command(folder, word, minutes=options.minutes, dashboard=options.dashboard))
        spent = ", ".join(f"{cpu[kind]:.0f} s" for kind in KINDS)
        held = ", ".join(f"{memory.get(kind, 0):.0f} MB" for kind in KINDS)
        print(f"| {word} | {processes} | {spent} | {cpu['Ray'] / sum(cpu.values()):.1%} | {held} |", flush=True)


if __name__ == "__main__":
    main()
