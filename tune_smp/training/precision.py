"""The device and the number format that a run computes with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tune_smp.errors import Problem, ResourceError, SettingsError


@dataclass(frozen=True, slots=True)
class Precision:
    """``autocast``: the format of the forward pass, None for plain float32. ``scales_loss``: float16 would lose small
    gradients without."""

    autocast: torch.dtype | None
    scales_loss: bool = False


def choose_device(requested: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``gpu``. Raises ResourceError where a GPU is asked for and there is none."""
    if requested == "gpu" and not torch.cuda.is_available():
        reason = "torch finds no CUDA device" if torch.version.cuda else "this torch was built without CUDA"
        fix = "pass --device auto, or see nvidia-smi and CUDA_VISIBLE_DEVICES"
        raise ResourceError(Problem(f"a GPU was asked for, but {reason}", "--device gpu", fix))
    on_gpu = requested != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


def choose_precision(requested: str, device: torch.device, *, needs_closure: bool = False) -> Precision:
    """The number format for ``auto``, ``float32``, ``bfloat16`` or ``float16``.

    ``auto``: bfloat16 where a GPU computes in it (Ampere and later), else float32; a CPU without matrix units is ten
    times slower in bfloat16. ``needs_closure``: the optimizer evaluates the loss several times per step, which loss
    scaling cannot follow. Raises SettingsError where the format is of no use.
    """
    on_gpu = device.type == "cuda"
    if requested == "auto":
        native = on_gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision(torch.bfloat16 if native else None)
    if requested == "float16" and (not on_gpu or needs_closure):
        reason = "LBFGS cannot train in float16" if on_gpu else "float16 needs a GPU, and this run has none"
        fix = "pass --precision auto, float32 or bfloat16"
        raise SettingsError(Problem(reason, "--precision float16", fix))
    formats = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return Precision(formats[requested], scales_loss=requested == "float16")


def use_fast_kernels(device: torch.device) -> None:
    """Let a GPU round float32 products to TF32.

    cuDNN's search for the fastest algorithms stays off (decision 38): it takes seconds for each new shape of a batch.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
