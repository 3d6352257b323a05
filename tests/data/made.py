"""Small images and labels, drawn by chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune_smp.data.pairing.pairs import Collection

Arrays = Mapping[str, NDArray[Any]]
WriteCollection = Callable[[Arrays, Arrays], Collection]


def random_image(side: int = 40, *, dtype: Any = np.uint8, seed: int = 0, width: int | None = None) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, 200, (side, width or side)).astype(dtype)


def binary_label(side: int = 40, *, seed: int = 0, width: int | None = None) -> NDArray[np.uint8]:
    return (random_image(side, seed=seed + 100, width=width) > 150).astype(np.uint8)


def ordinary(write: WriteCollection, count: int = 3) -> Collection:
    names = [f"i{index}" for index in range(count)]
    return write(
        {name: random_image(seed=index) for index, name in enumerate(names)},
        {name: binary_label(seed=index) for index, name in enumerate(names)},
    )
