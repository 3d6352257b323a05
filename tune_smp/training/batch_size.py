"""The batch size where none was chosen: the largest that fits and still makes sense, measured."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tune_smp.training.memory import available_memory, is_out_of_memory
from tune_smp.training.step import Tiles, TrainingStep

LARGEST = {"cuda": 64, "cpu": 16}
"""Beyond these a tile takes no less time (on a CPU from 4 tiles on), and fewer steps per epoch learn less."""

STEPS_PER_EPOCH = 16
SMALLEST = 4
"""Tiles per batch that batch normalisation wants, however few tiles there are."""

MEMORY_SHARE = {"cuda": 0.85, "cpu": 0.5}
"""Of what is free: validation, fragmentation, and on a CPU other programs need the rest."""

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


def measure_batch_size(make_step: MakeStep, model: nn.Module, *, tile: Tiles, most: int) -> int:
    """The largest power of two, up to ``most``, of tiles that fit into memory together.

    Tried on a copy of the model, with an optimizer of its own that ``make_step`` makes; the model, its optimizer and
    the random numbers stay as they were. ``tile`` is a batch of one, like those of the training.
    """
    device = tile.images.device
    if device.type != "cuda":
        with torch.random.fork_rng(devices=[]):
            return power_of_two(min(most, _fitting_on_cpu(make_step(_copied(model)), tile)))
    with torch.random.fork_rng(devices=[device]):
        size = _fitting_on_gpu(make_step(_copied(model)), tile, most)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return size


def _copied(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).train()


def _fitting_on_gpu(step: TrainingStep, tile: Tiles, most: int) -> int:
    """Doubled until memory runs out or gets tight."""
    size = 1
    while 2 * size <= most and _fits_on_gpu(step, tile.repeated(2 * size)):
        size *= 2
    return size


def _fits_on_gpu(step: TrainingStep, tiles: Tiles) -> bool:
    """Whether a whole step stays below the share; other programs on the GPU keep what they have."""
    device = tiles.images.device
    free, total = torch.cuda.mem_get_info(device)
    allowed = total * torch.cuda.get_per_process_memory_fraction(device)
    budget = min(free + torch.cuda.memory_reserved(device), allowed)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        step.attempt(tiles)
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return torch.cuda.max_memory_reserved(device) <= MEMORY_SHARE["cuda"] * budget


def _fitting_on_cpu(step: TrainingStep, tile: Tiles) -> int:
    """Counted, not tried: a host that runs out of memory kills processes instead of raising."""
    probe = tile.repeated(2)
    per_tile = _activation_bytes(step, probe) / len(probe)
    # Beside the parameters: their gradients and two moments; LBFGS keeps about fifteen vectors of that length.
    copies = 15 if step.row.needs_closure else 3
    state = copies * sum(parameter.nbytes for parameter in step.model.parameters())
    return int((MEMORY_SHARE["cpu"] * available_memory() - state) / per_tile)


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
