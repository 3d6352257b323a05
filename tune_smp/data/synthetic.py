"""Images that look like fluorescent nuclei, with their labels, made from a seed: for ``tune-smp demo`` and for tests.

One image is a sum of light, seen through a camera:

    background (uneven) + nuclei (textured, in or out of focus) + debris (bright, but no nuclei) → photon and read noise

A plain threshold must not solve the task, a small net must: dim nuclei lie below the bright side of the background, and
haze, fibres and specks are as bright as nuclei but are none, which only shape, size and texture show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tifffile

Size: TypeAlias = tuple[int, int]  # (height, width) in pixels
FloatImage: TypeAlias = npt.NDArray[np.float32]

NUCLEUS_RADIUS = 10.0  # px, the middle of a log-normal distribution
AREA_PER_NUCLEUS = 1800.0  # px of image for each nucleus, in the middle
TOUCHING_FRACTION = 0.3  # of the nuclei are placed against an earlier one
PHOTONS_PER_GREY_LEVEL = 1.2  # few photons: noise that grows with the root of the light
READ_NOISE = 1.5  # grey levels, standard deviation


@dataclass(frozen=True)
class _Nucleus:
    """The place and the outline of a nucleus: radius(angle) = radius · ellipse(angle) · (1 + bumps(angle))."""

    y: float
    x: float
    radius: float
    elongation: float
    angle: float
    bumps: npt.NDArray[np.float64]  # (harmonics, 2) amplitude and phase

    def signed_distance(self, y: FloatImage, x: FloatImage) -> FloatImage:
        """Roughly the distance in px to the outline, positive inside."""
        dy, dx = y - self.y, x - self.x
        along = dx * np.cos(self.angle) + dy * np.sin(self.angle)
        across = dy * np.cos(self.angle) - dx * np.sin(self.angle)
        along, across = along / np.sqrt(self.elongation), across * np.sqrt(self.elongation)
        theta = np.arctan2(across, along)
        outline = np.ones_like(theta)
        for harmonic, (amplitude, phase) in enumerate(self.bumps, start=2):
            outline += amplitude * np.cos(harmonic * theta + phase)
        distance: FloatImage = self.radius * outline - np.hypot(along, across)
        return distance


def write_nuclei(folder: Path, *, count: int, size: Size | Sequence[Size] = (256, 256), seed: int = 0) -> None:
    """Write ``count`` images and labels to ``folder/images`` and ``folder/labels``, both named ``nuclei_{i:03d}.tif``.

    Images are uint8 (H, W), labels uint8 (H, W) with 0 for background and 255 for nuclei. Several sizes take turns.
    Image i depends on nothing but the seed, i and its size.
    """
    sizes = [(int(height), int(width)) for height, width in np.atleast_2d(np.asarray(size))]
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        image, label = draw_nuclei(sizes[index % len(sizes)], seed=(seed, index))
        for name, pixels in (("images", image), ("labels", label)):
            tifffile.imwrite(folder / name / f"nuclei_{index:03d}.tif", pixels)


def draw_nuclei(size: Size, *, seed: int | Sequence[int]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """One image and its label, both uint8 (H, W); the label is 0 or 255."""
    rng = np.random.default_rng(seed)
    gain = rng.lognormal(0.0, 0.25)  # lamp and exposure differ from image to image
    light = _background(size, rng)
    light += _debris(size, rng)
    nuclei, label = _nuclei(size, rng)
    image = _camera(gain * (light + nuclei), rng)
    return image, label


def _background(size: Size, rng: np.random.Generator) -> FloatImage:
    """Medium and stray light: a floor, a slope that is brighter on one side, and slow clouds."""
    height, width = size
    y, x = _grid(size)
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.sin(angle) * (y / height - 0.5) + np.cos(angle) * (x / width - 0.5)) * rng.uniform(10, 40)
    clouds = 8 * _smooth_noise(size, rng, scale=60)
    background: FloatImage = np.maximum(rng.uniform(22, 34) + slope + clouds, 4).astype(np.float32)
    return background


def _nuclei(size: Size, rng: np.random.Generator) -> tuple[FloatImage, npt.NDArray[np.uint8]]:
    """The light of all nuclei (H, W) and their label (H, W), 0 or 255."""
    light = np.zeros(size, np.float32)
    label = np.zeros(size, np.uint8)
    texture = _smooth_noise(size, rng, scale=3)
    for nucleus in _place(size, rng):
        brightness = np.clip(rng.lognormal(np.log(45), 0.55), 14, 160)
        blur = rng.choice([0.7, 1.2, 2.5], p=[0.5, 0.35, 0.15])  # px: in focus, nearly, out of focus
        window = _window(size, nucleus.y, nucleus.x, reach=1.8 * nucleus.radius + 6 * blur)
        y, x = _grid(size, window)
        distance = nucleus.signed_distance(y, x)
        body = brightness * (1 + 0.22 * texture[window]) / (1 + np.exp(-distance / blur))
        # Nuclei lie beside each other, not above: where two touch, the brighter one is seen.
        light[window] = np.maximum(light[window], body)
        label[window][distance > 0] = 255
    return light, label


def _place(size: Size, rng: np.random.Generator) -> list[_Nucleus]:
    """Nuclei that keep a distance from each other, but for some that touch an earlier one; at least one."""
    height, width = size
    wanted = max(1, rng.poisson(height * width / AREA_PER_NUCLEUS * rng.uniform(0.5, 1.3)))
    typical = NUCLEUS_RADIUS * rng.uniform(0.75, 1.4)  # one cell line, one magnification per image
    placed: list[_Nucleus] = []
    for _ in range(4 * wanted):
        radius = typical * rng.lognormal(0, 0.2)
        touched = placed[rng.integers(len(placed))] if placed and rng.random() < TOUCHING_FRACTION else None
        if touched is None:
            y, x = rng.uniform(0, height), rng.uniform(0, width)
        else:
            reach, direction = 0.95 * (radius + touched.radius), rng.uniform(0, 2 * np.pi)
            y, x = touched.y + reach * np.sin(direction), touched.x + reach * np.cos(direction)
        if all(np.hypot(y - other.y, x - other.x) >= 0.9 * (radius + other.radius) for other in placed):
            placed.append(_shape(y, x, radius, rng))
        if len(placed) == wanted:
            break
    return placed


def _shape(y: float, x: float, radius: float, rng: np.random.Generator) -> _Nucleus:
    bumps = np.stack([rng.normal(0, [0.07, 0.05, 0.025]), rng.uniform(0, 2 * np.pi, 3)], axis=1)
    return _Nucleus(y, x, radius, elongation=rng.uniform(1, 1.7), angle=rng.uniform(0, np.pi), bumps=bumps)


def _debris(size: Size, rng: np.random.Generator) -> FloatImage:
    """Light that is no nucleus: specks (bright, tiny), fibres (thin, curved) and haze (wide, from far out of focus)."""
    area = size[0] * size[1]
    debris = np.zeros(size, np.float32)
    for _ in range(rng.poisson(area / 5000)):
        _add_blob(debris, _anywhere(size, rng), sigma=rng.uniform(0.8, 2.2), height=rng.uniform(40, 180))
    for _ in range(rng.poisson(area / 30000)):
        _add_fibre(debris, rng)
    for _ in range(rng.poisson(area / 12000)):
        _add_blob(debris, _anywhere(size, rng), sigma=rng.uniform(9, 18), height=rng.uniform(15, 45))
    return debris


def _add_blob(light: FloatImage, centre: tuple[float, float], *, sigma: float, height: float) -> None:
    size = (light.shape[0], light.shape[1])
    window = _window(size, *centre, reach=4 * sigma)
    y, x = _grid(size, window)
    squared = (y - centre[0]) ** 2 + (x - centre[1]) ** 2
    light[window] += (height * np.exp(-squared / (2 * sigma**2))).astype(np.float32)


def _add_fibre(light: FloatImage, rng: np.random.Generator) -> None:
    """A thin curved thread: a walk whose direction turns slowly, one narrow blob a step."""
    y, x = _anywhere((light.shape[0], light.shape[1]), rng)
    direction, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.03)
    height = rng.uniform(15, 50)
    for _ in range(rng.integers(30, 120)):
        _add_blob(light, (y, x), sigma=1.1, height=height * 0.4)  # blobs 1 px apart overlap and add up
        direction += bend + rng.normal(0, 0.04)
        y, x = y + np.sin(direction), x + np.cos(direction)


def _camera(light: FloatImage, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Photons are counted (Poisson), read out (normal), and clipped to eight bits."""
    photons = rng.poisson(np.maximum(light, 0) * PHOTONS_PER_GREY_LEVEL)
    grey = photons / PHOTONS_PER_GREY_LEVEL + rng.normal(0, READ_NOISE, light.shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _smooth_noise(size: Size, rng: np.random.Generator, *, scale: float) -> FloatImage:
    """Noise (H, W) of mean 0 and standard deviation about 1 whose details are about ``scale`` px wide."""
    padded = [length + int(4 * scale) for length in size]  # the Fourier transform wraps around: cut the seam off
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(padded[0]), np.fft.rfftfreq(padded[1]), indexing="ij"))
    spectrum = np.fft.rfft2(rng.normal(size=padded)) * np.exp(-2 * (np.pi * scale / 2 * frequency) ** 2)
    noise = np.fft.irfft2(spectrum, s=padded)
    smooth: FloatImage = (noise / noise.std())[: size[0], : size[1]].astype(np.float32)
    return smooth


def _anywhere(size: Size, rng: np.random.Generator) -> tuple[float, float]:
    return rng.uniform(0, size[0]), rng.uniform(0, size[1])


def _window(size: Size, y: float, x: float, *, reach: float) -> tuple[slice, slice]:
    """The rows and columns within ``reach`` px of a point, inside the image; empty where it lies too far outside."""
    rows = slice(max(0, int(y - reach)), max(0, min(size[0], int(y + reach) + 1)))
    columns = slice(max(0, int(x - reach)), max(0, min(size[1], int(x + reach) + 1)))
    return rows, columns


def _grid(size: Size, window: tuple[slice, slice] = (slice(None), slice(None))) -> tuple[FloatImage, FloatImage]:
    """The y and x coordinates of a window's pixels, as (h, 1) and (1, w)."""
    y = np.arange(size[0], dtype=np.float32)[window[0], None]
    x = np.arange(size[1], dtype=np.float32)[None, window[1]]
    return y, x
