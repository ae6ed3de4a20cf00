"""Pictures of other sizes in float32, as torch computes them: the weights of `interpolate`, without its copies.

A resized pixel is a weighted sum of rows, then of columns: weights and places come from the sizes alone. They follow
torch.nn.functional.interpolate(align_corners=False) to the rounding of its float32, antialiased or not, so that values
agree to some 1e-6 of white. Sums are made from the first row to the last, each rounded to float32, so every machine
makes the same bytes, with compiled loops (hpcdata/native/pictures.c) or without.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from hpcdata.multimodal.pictures.statistics import Affine
from hpcdata.native.compiled import kernels

LONGEST = 1 << 16
"""Pixels of a side. Of longer ones, which no JPEG has, groups of pixels are averaged first: weights of such a side
would take more memory than the picture.
"""
Kernel = Literal["bilinear", "bicubic", "lanczos", "hamming", "nearest"]


class Taps(NamedTuple):
    """What one side of a picture becomes: out[n] = sum over k of weight[n, k] * in[start[n] + k]."""

    start: np.ndarray
    """[size] int64; start + taps is inside of the picture."""
    weight: np.ndarray
    """[size, taps] float32, 0 where an output needs fewer than others."""


@lru_cache(maxsize=128)
def taps(size: int, new_size: int, kernel: Kernel, antialias: bool) -> Taps:
    """size: pixels of the side; new_size: what it becomes. `nearest` is never antialiased, only it and bilinear may be
    without.
    """
    scale = np.float32(size) / np.float32(new_size)
    places = np.arange(new_size) + 0.5
    if not antialias:
        return _not_antialiased(size, places, scale, kernel)
    stretch = max(scale, np.float32(1))
    support = np.float32(_RADIUS[kernel]) * stretch
    center = (places * scale).astype(np.float32)
    start = np.maximum((center - support + np.float32(0.5)).astype(np.int64), 0)
    stop = np.minimum((center + support + np.float32(0.5)).astype(np.int64), size)
    most = int((stop - start).max())
    start_of_all = np.minimum(start, size - most)
    index = start_of_all[:, None] + np.arange(most)
    distance = (index - center[:, None] + np.float32(0.5)).astype(np.float32) * (np.float32(1) / stretch)
    weight = np.where((index >= start[:, None]) & (index < stop[:, None]), _FILTERS[kernel](distance), np.float32(0))
    return Taps(start_of_all, (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32))


def resample(
    image: np.ndarray, out: np.ndarray, *, kernel: Kernel, antialias: bool, rounded: bool, affine: Affine | None
) -> None:
    """Fills `out` ([h, w, 3], rows may be apart) with the resized image ([H, W, 3] uint8, contiguous).

    affine: `out` is float32, each value v * scale + shift of its channel, v from 0 to 255; rounded: v are whole numbers
    then, half to even, kept within 0 and 255, as where others go over uint8. Without affine `out` is uint8, of these.
    """
    image = _shortened(_shortened(image, 0), 1)
    high, wide = (taps(old, new, kernel, antialias) for old, new in zip(image.shape[:2], out.shape[:2], strict=True))
    if (compiled := kernels()) is not None:
        compiled.resample(image, high, wide, affine, out, rounded=rounded)
        return
    rows = _weighted(image, *high)
    values = _weighted(rows.swapaxes(0, 1), *wide).swapaxes(0, 1)
    if rounded or affine is None:
        np.clip(np.rint(values, out=values), 0, 255, out=values)
    if affine is None:
        out[...] = values
    else:
        values *= affine.scale
        np.add(values, affine.shift, out=out)


def _shortened(image: np.ndarray, axis: int) -> np.ndarray:
    """With a side of at most `LONGEST`; the last group may have fewer pixels."""
    size = image.shape[axis]
    if size <= LONGEST:
        return image
    starts = np.arange(0, size, -(-size // LONGEST))
    sums = np.add.reduceat(image, starts, axis=axis, dtype=np.uint32)
    counts = np.diff([*starts, size]).reshape([-1 if dimension == axis else 1 for dimension in range(3)])
    return ((sums + counts // 2) // counts).astype(np.uint8)


def _weighted(values: np.ndarray, start: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[n, ...] float32: sums over the first axis."""
    total = np.zeros((len(start), *values.shape[1:]), np.float32)
    for tap in range(weight.shape[1]):
        total += weight[:, tap, None, None] * values[start + tap]
    return total


def _not_antialiased(size: int, places: np.ndarray, scale: np.float32, kernel: str) -> Taps:
    """The pixel at each place, or the two around it."""
    if kernel == "nearest":
        nearest = np.minimum((places.astype(np.float32) * scale).astype(np.int64), size - 1)
        return Taps(nearest, np.ones((len(places), 1), np.float32))
    if kernel != "bilinear":
        raise ValueError(f"{kernel} is antialiased only")
    source = np.maximum((places.astype(np.float32) * scale - np.float32(0.5)), np.float32(0))
    if size == 1:
        return Taps(np.zeros(len(places), np.int64), np.ones((len(places), 1), np.float32))
    start = np.minimum(source.astype(np.int64), size - 2)
    second = np.minimum((source - start).astype(np.float32), np.float32(1))
    return Taps(start, np.stack([np.float32(1) - second, second], axis=1))


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(np.float32(1) - np.abs(distance), np.float32(0))


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic with a = -0.5, as Pillow's and torch's with antialias (IEEE ASSP 29, 1981)."""
    x = np.abs(distance)
    near = (np.float32(1.5) * x - np.float32(2.5)) * x * x + np.float32(1)
    far = ((np.float32(-0.5) * x + np.float32(2.5)) * x - np.float32(4)) * x + np.float32(2)
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))


def _lanczos(distance: np.ndarray) -> np.ndarray:
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0).astype(np.float32)


def _hamming(distance: np.ndarray) -> np.ndarray:
    inside = np.sinc(distance) * (0.54 + 0.46 * np.cos(np.pi * distance))
    return np.where(np.abs(distance) < 1, inside, 0).astype(np.float32)


_FILTERS = {"bilinear": _triangle, "bicubic": _cubic, "lanczos": _lanczos, "hamming": _hamming}
_RADIUS = {"bilinear": 1, "bicubic": 2, "lanczos": 3, "hamming": 1}
