"""Whether labels lie where their images have edges, or fit better when they are shifted, or fit other images better.

Edges of the labels are correlated with edges of the images. A label of the wrong image has no relation to it, one that
is shifted has its best correlation elsewhere. Thresholds were chosen on nuclei and street scenes, see
docs/decisions/0020-label-sense.md for what they find and do not find.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from tune_smp.data.labels import IGNORE
from tune_smp.errors import listing

SIDE = 256  # px, larger images are looked at at a lower resolution
REACH = 32  # px at that resolution, in which a better place is searched
NEAR = 2.5  # px: labels may be drawn that far off
FEWEST_PAIRS = 4
LEAST = 0.15  # correlation
CLEAR = 5.0  # standard deviations that a shift rises above the other shifts
BETTER_SHIFTED = 1.25  # times the correlation where the labels are
MOST = 0.65  # of the pairs must agree
CLEAR_AMONG = 3.0  # standard deviations that a label rises above the other labels of a sample
BETTER = 1.5  # times the correlation of the own label


@dataclass(frozen=True)
class Edges:
    """Edges of an image and of its label, (h, w), each with mean 0 and length 1; ``scale`` px are one."""

    image: NDArray[np.float32]
    label: NDArray[np.float32]
    scale: int


def edges_of(image: NDArray[Any], mask: NDArray[np.uint8]) -> Edges | None:
    """Edges of an image (C, H, W) and its mask (K or 1, H, W); None where one of them has none."""
    scale = max(1, -(-max(image.shape[1:]) // SIDE))
    grey = _shrunk(image, scale).mean(axis=0)
    low, high = np.percentile(grey, (1, 99))
    gradient = ndimage.gaussian_gradient_magnitude(grey.clip(low, high), 1)
    border = np.zeros(mask.shape[1:], bool)
    numbers = np.where(mask == IGNORE, 0, mask)
    border[:-1] |= (numbers[:, 1:] != numbers[:, :-1]).any(axis=0)
    border[:, :-1] |= (numbers[:, :, 1:] != numbers[:, :, :-1]).any(axis=0)
    label = ndimage.gaussian_filter(_shrunk(border[None].astype(np.uint8), scale)[0], 1)
    of_image, of_label = _standardized(gradient), _standardized(label)
    return None if of_image is None or of_label is None else Edges(of_image, of_label, scale)


def _shrunk(pixels: NDArray[Any], scale: int) -> NDArray[np.float32]:
    """(C, H, W) → means of ``scale``² pixels, (C, H / scale, W / scale)."""
    channels, height, width = pixels.shape
    height, width = height // scale, width // scale
    blocks = pixels[:, : height * scale, : width * scale].reshape(channels, height, scale, width, scale)
    means: NDArray[np.float32] = blocks.mean(axis=(2, 4), dtype=np.float32)
    return means


def _standardized(part: NDArray[np.float32]) -> NDArray[np.float32] | None:
    centred = part - part.mean()
    length = float(np.sqrt((centred**2).sum()))
    return (centred / length).astype(np.float32) if length > 1e-6 else None


def correlations(edges: Edges) -> NDArray[np.float32]:
    """(2 REACH + 1, 2 REACH + 1) correlations of image and label, when it is moved by up to REACH down and right."""
    height, width = edges.image.shape
    shape = [fft.next_fast_len(side + REACH) for side in (height, width)]
    spectrum = fft.rfft2(edges.image, shape) * np.conj(fft.rfft2(edges.label, shape))
    plane = fft.irfft2(spectrum, shape)
    steps = np.arange(-REACH, REACH + 1)
    return np.asarray(plane[np.ix_(steps, steps)], np.float32)


def fit_notes(names: Sequence[str], edges: Sequence[Edges | None]) -> Iterable[str]:
    """Report labels that fit better elsewhere; ``names`` are those of the pairs that were looked at."""
    known = [(name, one) for name, one in zip(names, edges, strict=True) if one is not None]
    if len(known) < FEWEST_PAIRS:
        return
    yield from _shifted([one for _, one in known])
    yield from _exchanged(known)


def _shifted(edges: Sequence[Edges]) -> Iterable[str]:
    every = np.stack([correlations(one) for one in edges])  # (n, 2 REACH + 1, 2 REACH + 1)
    mean = every.mean(axis=0)
    down, right = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
    best = int(mean.argmax())
    y, x = int(down.flat[best]), int(right.flat[best])
    here, there = np.hypot(down, right) <= NEAR, np.hypot(down - y, right - x) <= NEAR
    rest = mean[np.hypot(down - y, right - x) > 2 * NEAR]
    agree = float((every[:, there].max(axis=1) > every[:, here].max(axis=1)).mean())
    own, found = float(mean[here].max()), float(mean.flat[best])
    rises = (found - rest.mean()) / max(float(rest.std()), 1e-6)
    if there[here].any() or found < LEAST or rises < CLEAR or found < BETTER_SHIFTED * max(own, 0) or agree < MOST:
        return
    scale = round(float(np.median([one.scale for one in edges])))
    moved = " and ".join(
        f"{abs(step) * scale} px {back if step < 0 else ahead}"
        for step, back, ahead in ((y, "up", "down"), (x, "to the left", "to the right"))
        if step
    )
    yield (
        f"labels fit their images better when they are moved by {moved}: their edges then correlate {found:.2f} with "
        f"those of the images, now {own:.2f} (better in {agree:.0%} of {len(edges)} pairs)"
    )


def _exchanged(known: Sequence[tuple[str, Edges]]) -> Iterable[str]:
    """Other labels of the sample fit better than the own one, in most pairs."""
    better, compared = [], 0
    for size in {one.image.shape for _, one in known}:
        same = [(name, one) for name, one in known if one.image.shape == size]
        if len(same) < FEWEST_PAIRS:
            continue
        images, labels = (np.stack([getattr(one, part).ravel() for _, one in same]) for part in ("image", "label"))
        fits = images @ labels.T  # (n images, n labels)
        compared += len(same)
        for index, row in enumerate(fits):
            other = int(row.argmax())
            rest = np.delete(row, other)
            is_clear = row[other] > max(LEAST, BETTER * row[index], rest.mean() + CLEAR_AMONG * rest.std())
            if other != index and is_clear:
                better.append(f"{same[index][0]} with the label of {same[other][0]}")
    if compared and len(better) >= MOST * compared:
        yield (
            f"{len(better)} of {compared} images fit the label of another image better than their own, for example "
            f"{listing(better, 3)}: are images and labels paired rightly?"
        )
