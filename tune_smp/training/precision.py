"""The device and the number format that a run computes with."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import torch
from torch import nn

from tune_smp.errors import Problem, ResourceError, SettingsError

WORTH_IT = 1.2
"""How much faster than in float32 a CPU must be in bfloat16 where that is measured: two readings differ by less."""


@dataclass(frozen=True, slots=True)
class Precision:
    """``autocast``: the format of the forward pass, None for plain float32. ``scales_loss``: float16 would lose small
    gradients without."""

    autocast: torch.dtype | None
    scales_loss: bool = False

    @property
    def name(self) -> str:
        """As the flag ``--precision`` names it."""
        return str(self.autocast or torch.float32).removeprefix("torch.")

    def context(self, device: torch.device) -> torch.autocast:
        """Within, a model on the device computes in this format."""
        return torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)


FLOAT32 = Precision(None)


def choose_device(requested: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``gpu``. Raises ResourceError where a GPU is asked for and there is none."""
    if requested == "gpu" and not torch.cuda.is_available():
        reason = "torch finds no CUDA device" if torch.version.cuda else "this torch was built without CUDA"
        fix = "pass --device auto, or see nvidia-smi and CUDA_VISIBLE_DEVICES"
        raise ResourceError(Problem(f"a GPU was asked for, but {reason}", "--device gpu", fix))
    on_gpu = requested != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def choose_precision(
    requested: str, device: torch.device, *, needs_closure: bool = False, before: str | None = None
) -> Precision:
    """The number format for ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    ``auto``: bfloat16 where the device computes faster in it: GPUs from Ampere on, CPUs with AMX or AVX512-BF16; else
    float32, and where a run that is resumed was computed in it ``before``. ``needs_closure``: the optimizer evaluates
    the loss several times per step, which loss scaling cannot follow. Raises SettingsError where the format is of no
    use.
    """
    on_gpu = device.type == "cuda"
    if requested == "auto" and before == "float32":
        return FLOAT32
    if requested == "auto":
        fast = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_is_faster_in_bfloat16()
        return Precision(torch.bfloat16 if fast else None)
    if requested == "float16" and (not on_gpu or needs_closure):
        reason = "LBFGS cannot train in float16" if on_gpu else "float16 needs a GPU, and this run has none"
        fix = "pass --precision auto, float32 or bfloat16"
        raise SettingsError(Problem(reason, "--precision float16", fix))
    formats = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return Precision(formats[requested], scales_loss=requested == "float16")


@functools.cache
def cpu_is_faster_in_bfloat16() -> bool:
    """Whether training takes this CPU less time in bfloat16 than in float32.

    With matrix units (AMX) it does, 1.4 to 2.7 times less, and with AVX512-BF16, 1.4 to 2.0 times less; without any
    instructions for the format it takes ten times as long. With those of Arm both formats are timed once, in seconds.
    An older torch that cannot be asked leaves it at float32.
    """
    can = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if can.get("amx_bf16") or can.get("avx512_bf16"):
        return True
    return bool(can.get("bf16")) and _gain_of_bfloat16() >= WORTH_IT


def _gain_of_bfloat16(repetitions: int = 4) -> float:
    """How many times faster than in float32 a forward and a backward pass of two convolutions are, best against best.

    The formats take turns, so that both meet the same load; the first turn chooses the kernels.
    """
    device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        layers = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
        layers = layers.to(memory_format=torch.channels_last)
        tiles = torch.rand(4, 64, 32, 32).contiguous(memory_format=torch.channels_last)

    def seconds(precision: Precision) -> float:
        begun = time.perf_counter()
        with precision.context(device):
            outputs = layers(tiles)
        outputs.float().mean().backward()
        return time.perf_counter() - begun

    turns = [(seconds(FLOAT32), seconds(Precision(torch.bfloat16))) for _ in range(repetitions)][1:]
    return min(plain for plain, _ in turns) / min(short for _, short in turns)


def use_fast_kernels(device: torch.device) -> None:
    """Let a GPU round float32 products to TF32.

    cuDNN's search for the fastest algorithms stays off (decision 38): it takes seconds for each new shape of a batch.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
