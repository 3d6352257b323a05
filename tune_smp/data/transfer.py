"""From the host's memory to the device's."""

from __future__ import annotations

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on ``device``; on a CPU the tensor itself.

    From pinned memory the copy runs beside the computation; from any other memory the host would wait until the GPU has
    done all that was asked of it before.
    """
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
