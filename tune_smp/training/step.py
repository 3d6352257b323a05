"""One step: forward, loss, backward and update on one batch, in pieces that fit into memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tune_smp.choices.optimizers import Optimizer
from tune_smp.errors import OutOfMemoryError, Problem
from tune_smp.training.batch_norm import tolerate_single_values
from tune_smp.training.losses import SegmentationLoss
from tune_smp.training.memory import is_out_of_memory
from tune_smp.training.optimizers import load_optimizer_state
from tune_smp.training.precision import Precision
from tune_smp.training.run_state import StepState

CLIPPED_BY = 1e-6
"""What torch adds to the norm of all gradients, to divide by it."""

MOST_HALVINGS = 3


@dataclass(frozen=True, slots=True)
class Tiles:
    """A batch on the device, ready for the model: images (N, C, T, T) float32, masks (N, K or 1, T, T) uint8."""

    images: Tensor
    masks: Tensor
    has_ignored: bool

    def __len__(self) -> int:
        return len(self.images)

    def repeated(self, times: int) -> Tiles:
        """A batch of ``times`` as many tiles."""
        images, masks = self.images.repeat(times, 1, 1, 1), self.masks.repeat(times, 1, 1, 1)
        return Tiles(images.contiguous(memory_format=torch.channels_last), masks, self.has_ignored)

    def pieces(self, size: int) -> list[Tiles]:
        """The batch in pieces of at most ``size`` tiles."""
        parts = zip(torch.split(self.images, size), torch.split(self.masks, size), strict=True)
        return [Tiles(images, masks, self.has_ignored) for images, masks in parts]


class TrainingStep:
    """Updates a model, one batch at a time.

    Where memory runs out, the batch is worked off in two halves whose gradients are added up, so that the update stays
    that of the whole batch (but for batch normalisation, and for losses that are quotients over a batch); then in
    quarters, then in eighths. ``notes`` report it.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: SegmentationLoss,
        optimizer: torch.optim.Optimizer,
        *,
        row: Optimizer,
        precision: Precision,
        gradient_clip: float,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.row = row
        self.precision = precision
        self.gradient_clip = gradient_clip
        self.scaler = torch.amp.GradScaler("cuda", enabled=precision.scales_loss)
        self.halvings = 0
        self.notes: tuple[str, ...] = ()
        self._tolerates_single_tiles = False
        self._fits_together = True
        self._parameters = tuple(model.parameters())  # a walk through all modules, a millisecond
        self._device = self._parameters[0].device

    def __call__(self, tiles: Tiles) -> Tensor:
        """Make one step; the batch's loss before the update, on the device.

        Raises OutOfMemoryError where memory runs out even for the smallest pieces.
        """
        while True:
            try:
                return self.attempt(tiles)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
                if self.halvings == MOST_HALVINGS or self.piece_size(len(tiles)) == 1:
                    raise _memory_exhausted(tiles, self.piece_size(len(tiles)), reason) from error
            # Only here is the exception gone, and with it the frames that hold on to the activations.
            self._halve(tiles)

    def attempt(self, tiles: Tiles) -> Tensor:
        """The same, but lets the exception through where memory runs out."""

        def evaluate() -> Tensor:
            self.optimizer.zero_grad()
            loss = self._backward(tiles)
            self._prepare_gradients()
            return loss

        if self.row.needs_closure:
            loss: Tensor = self.optimizer.step(evaluate)  # type: ignore[arg-type, assignment] # declared for floats
            return loss.detach()
        loss = evaluate()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, K, H, W), in the number format of this run."""
        with self.in_format():
            logits: Tensor = self.model(images)
        return logits

    def forward_batches(self, images: Tensor, batch_size: int) -> Iterator[Tensor]:
        """The logits of the images without gradients, in batches of this size, which are worked off together as long as
        memory allows it."""
        if self._fits_together and len(images) > batch_size:
            try:
                together = self.forward(images)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._fits_together = False
            else:
                yield from torch.split(together, batch_size)
                return
        for part in torch.split(images, batch_size):
            yield self.forward(part)

    def in_format(self) -> torch.autocast:
        """Within, the model computes in the number format of this run."""
        return self.precision.context(self._device)

    def state_dict(self) -> StepState:
        """Return the optimizer's state, and how batches are split to fit into memory. The tensors are the live ones."""
        return {
            "optimizer_name": self.row.name,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "halvings": self.halvings,
        }

    def load_state_dict(self, state: StepState) -> None:
        """Go on from an earlier ``state_dict``."""
        load_optimizer_state(self.optimizer, state["optimizer"])
        if state["scaler"] and self.precision.scales_loss:
            self.scaler.load_state_dict(state["scaler"])
        self.halvings = state["halvings"]

    def _backward(self, tiles: Tiles) -> Tensor:
        """Gradients of the batch's loss, piece by piece."""
        pieces = tiles.pieces(self.piece_size(len(tiles)))
        if len(pieces[-1]) == 1:
            self._tolerate_single_tiles()
        total = torch.zeros((), device=tiles.images.device)
        for piece in pieces:
            loss = self.loss(self.forward(piece.images), piece.masks, has_ignored=tiles.has_ignored)
            loss = loss * (len(piece) / len(tiles))
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call] # of torch
            total += loss.detach()
        return total

    def _prepare_gradients(self) -> None:
        # A line search needs the gradient of the very function that it evaluates: LBFGS is not clipped.
        if self.gradient_clip > 0 and not self.row.needs_closure:
            self.scaler.unscale_(self.optimizer)
            self._clip()
        if self.row.sparse_gradients:
            # Sparse in the first dimension only, as of an embedding: in all four, a step would take seconds.
            self._convert_gradients(lambda gradient: gradient.to_sparse(1))
        elif self.row.needs_closure:
            # LBFGS strings all gradients together and takes no channels-last layout.
            self._convert_gradients(Tensor.contiguous)

    def _clip(self) -> None:
        """As ``clip_grad_norm_``, which multiplies by 1 where nothing is to be clipped: 1.5 % of a step on a CPU. A GPU
        would have to be waited for to know that."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self._device.type == "cpu" and norm + CLIPPED_BY <= self.gradient_clip:
            return
        nn.utils.clip_grads_with_norm_(self._parameters, self.gradient_clip, norm)

    def _convert_gradients(self, converted: Callable[[Tensor], Tensor]) -> None:
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad = converted(parameter.grad)

    def piece_size(self, batch_size: int) -> int:
        """Tiles that are worked off at a time, of a batch of so many."""
        return math.ceil(batch_size / (1 << self.halvings))

    def _halve(self, tiles: Tiles) -> None:
        self.optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.halvings += 1
        pieces = f"pieces of {self.piece_size(len(tiles))}, whose gradients are added up"
        self.notes += (f"out of memory: a batch of {len(tiles)} tiles is now worked off in {pieces}",)

    def _tolerate_single_tiles(self) -> None:
        if not self._tolerates_single_tiles:
            tolerate_single_values(self.model)
            self._tolerates_single_tiles = True


def _memory_exhausted(tiles: Tiles, pieces: int, reason: str) -> OutOfMemoryError:
    size = tiles.images.shape[-1]
    return OutOfMemoryError(
        Problem(
            f"out of memory with {pieces} tiles of {size} px at a time: {reason}",
            f"--batchSize {len(tiles)}, --tileSize {size}",
            "pass a smaller --tileSize or --batchSize, choose a smaller encoder, or free memory",
        )
    )
