"""Padding that depends on an image's size, as TensorFlow's "same" convolutions have it, made constant for an export."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import timm.layers.padding


@contextlib.contextmanager
def fixed_same_padding() -> Iterator[None]:
    """Within the block timm's layers pad as for sizes that every stride divides, whatever the size is.

    "Same" padding adds max((⌈n / s⌉ - 1) s + (k - 1) d + 1 - n, 0) pixels, for size n, stride s, kernel k, dilation d.
    Where s divides n, that is max((k - 1) d + 1 - s, 0): for images whose sides the model's divisor divides, nothing
    changes. torch.export, which has to carry the former through every layer as a formula, does not end. Changes timm
    for the whole process.
    """
    before = timm.layers.padding.get_same_padding
    users = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("timm.") and getattr(module, "get_same_padding", None) is before
    ]
    for module in users:
        module.get_same_padding = _fixed  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in users:
            module.get_same_padding = before  # type: ignore[attr-defined]


def _fixed(_size: int, kernel_size: int, stride: int, dilation: int) -> int:
    return max((kernel_size - 1) * dilation + 1 - stride, 0)
