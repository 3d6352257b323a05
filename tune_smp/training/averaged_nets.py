"""Several nets as one module, for programs that know nothing of tune-smp."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class AveragedNets(nn.Module):
    """The weighted mean of the probabilities of nets that normalise pixels each in its own way."""

    def __init__(self, nets: Sequence[nn.Module], weights: Sequence[float], *, multiclass: bool) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.weights = tuple(weights)
        self.multiclass = multiclass

    def forward(self, images: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        """Pixels as they are (N, C, H, W), and each net's constants for each image (N, nets, C) → (N, K, H, W)."""
        shares: list[Tensor] = []
        for place, (net, weight) in enumerate(zip(self.nets, self.weights, strict=True)):
            own_scale, own_offset = (constants[:, place, :, None, None] for constants in (scale, offset))
            logits = net(images * own_scale + own_offset)
            shares.append(weight * (logits.softmax(dim=1) if self.multiclass else logits.sigmoid()))
        total = shares[0]
        for share in shares[1:]:
            total = total + share
        return total
