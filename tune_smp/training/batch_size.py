"""The batch size where none was chosen: the largest that fits and still makes sense, measured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache

import segmentation_models_pytorch as smp
import timm
import torch
from torch import Tensor, nn

import tune_smp
from tune_smp.settings.run import RunSettings
from tune_smp.training.builders import ModelShape
from tune_smp.training.memory import available_memory, is_out_of_memory
from tune_smp.training.precision import Precision
from tune_smp.training.step import Tiles, TrainingStep
from tune_smp.training.step_memory import StepMemory

LARGEST = {"cuda": 64, "cpu": 16}
"""Beyond these a tile takes no less time (on a CPU from 4 tiles on), and fewer steps per epoch learn less."""

STEPS_PER_EPOCH = 16
SMALLEST = 4
"""Tiles per batch that batch normalisation wants, however few tiles there are."""

MEMORY_SHARE = {"cuda": 0.85, "cpu": 0.5}
"""Of what is free: validation, fragmentation, and on a CPU other programs need the rest."""

PROBE = 2
"""Tiles of the forward pass in which a CPU's memory is counted."""

MakeStep = Callable[[nn.Module], TrainingStep]


def useful_batch_size(*, tiles: int, steps_per_epoch: int | None, device_type: str) -> int:
    """The largest batch that leaves an epoch of ``tiles`` tiles its `STEPS_PER_EPOCH` steps, but at least `SMALLEST`.

    ``steps_per_epoch`` set: the steps are fixed anyway, and only the device's `LARGEST` counts.
    """
    largest = LARGEST[device_type]
    return largest if steps_per_epoch else min(largest, max(SMALLEST, tiles // STEPS_PER_EPOCH))


def power_of_two(limit: int) -> int:
    """The largest power of two up to ``limit``; 1 at least."""
    return int(2 ** (max(1, limit).bit_length() - 1))


def random_tile(settings: RunSettings, shape: ModelShape, device: torch.device) -> Tiles:
    """A batch of one tile of random numbers, of the shape that training has."""
    size = settings.resolved_tile_size
    channels = shape.classes if settings.segmentation_mode == "multilabel" else 1
    return Tiles(
        torch.rand(1, shape.channels, size, size, device=device),
        torch.randint(0, 2, (1, channels, size, size), dtype=torch.uint8, device=device),
        has_ignored=True,
    )


def described(
    settings: RunSettings, shape: ModelShape, *, precision: Precision, device: torch.device
) -> dict[str, object]:
    """All that the memory of a step depends on but the number of its tiles, as JSON values."""
    return {
        "network": shape.to_json(),
        "tile_size": settings.resolved_tile_size,
        "mode": settings.segmentation_mode,
        "loss": settings.loss_name,
        "optimizer": settings.optimizer_name,
        "precision": precision.name,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": [tune_smp.__version__, *(module.__version__ for module in (torch, smp, timm))],
    }


def measure_batch_size(make_step: MakeStep, model: nn.Module, *, tile: Tiles, most: int, memory: StepMemory) -> int:
    """The largest power of two, up to ``most``, of tiles that fit into memory together.

    What ``memory`` does not know is tried on a copy of the model, with an optimizer of its own that ``make_step``
    makes; the model, its optimizer and the random numbers stay as they were. ``tile`` is a batch of one, like those of
    the training.
    """
    device = tile.images.device
    step = cache(lambda: make_step(copy.deepcopy(model).train()))  # not made where all is known
    if device.type != "cuda":
        with torch.random.fork_rng(devices=[]):
            return power_of_two(min(most, _fitting_on_cpu(step, tile, memory)))
    with torch.random.fork_rng(devices=[device]):
        size = _fitting_on_gpu(step, tile, most, memory)
    step.cache_clear()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return size


def _fitting_on_gpu(step: Callable[[], TrainingStep], tile: Tiles, most: int, memory: StepMemory) -> int:
    """Doubled until memory runs out or gets tight."""
    size = 1
    while 2 * size <= most and _fits_on_gpu(step, tile, 2 * size, memory):
        size *= 2
    return size


def _fits_on_gpu(step: Callable[[], TrainingStep], tile: Tiles, size: int, memory: StepMemory) -> bool:
    """Whether a whole step stays below the share; other programs on the GPU keep what they have."""
    device = tile.images.device
    free, total = torch.cuda.mem_get_info(device)
    own = total * torch.cuda.get_per_process_memory_fraction(device)
    allowed = MEMORY_SHARE["cuda"] * min(free + torch.cuda.memory_reserved(device), own)
    known = memory.taken(size)
    if known is not None:
        return known <= allowed
    torch.cuda.reset_peak_memory_stats(device)
    try:
        step().attempt(tile.repeated(size))
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False  # not noted: another program may have had the memory for a moment
    taken = torch.cuda.max_memory_reserved(device)
    memory.note_taken(size, taken)
    return taken <= allowed


def _fitting_on_cpu(step: Callable[[], TrainingStep], tile: Tiles, memory: StepMemory) -> int:
    """Counted, not tried: a host that runs out of memory kills processes instead of raising."""
    state, activations = memory.taken(0), memory.taken(PROBE)
    if state is None or activations is None:
        state, activations = _state_bytes(step()), _activation_bytes(step(), tile.repeated(PROBE))
        memory.note_taken(0, state)
        memory.note_taken(PROBE, activations)
    return int((MEMORY_SHARE["cpu"] * available_memory() - state) / (activations / PROBE))


def _state_bytes(step: TrainingStep) -> int:
    """Beside the parameters: their gradients and two moments; LBFGS keeps about fifteen vectors of that length."""
    copies = 15 if step.row.needs_closure else 3
    return copies * sum(parameter.nbytes for parameter in step.model.parameters())


def _activation_bytes(step: TrainingStep, tiles: Tiles) -> int:
    """Bytes that the forward pass keeps for the backward pass, the model's own aside."""
    own = {tensor.untyped_storage().data_ptr() for tensor in step.model.state_dict().values()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step.loss(step.forward(tiles.images), tiles.masks, has_ignored=tiles.has_ignored)
    # Up to here the graph held every tensor: no address was counted for two.
    del loss
    return sum(kept.values())
