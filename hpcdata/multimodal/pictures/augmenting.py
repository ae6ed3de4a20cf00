"""Changes of pictures while training: other ones at every epoch, by the randomness of the example alone.

    random_crops        a part of the picture, of its shape and at least `least_area` of it, at a random place
    horizontal_flip     left and right exchanged, in half of all cases
    color_jitter        brightness, contrast and saturation times 1 - jitter to 1 + jitter, each by itself
    resize_variations   the kernel that resizes: one of `KERNELS`, the same for all crops of a picture

All are off by default, and nothing is changed in evaluation. None changes the size that a picture counts as: tokens and
crops stay those of its plan. The draws come in the order above, of what is on alone: area and place (3 numbers), flip
(1), factors (3), kernel (1).

A flip or a crop moves what is in the picture. Where texts say places (points, boxes), both are left out: the caller
says so by `keeps_places`. Their numbers are drawn all the same. Words such as "left" are known to nobody: do not flip
pictures whose texts have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hpcdata.multimodal.pictures.resampling import Kernel

KERNELS: tuple[Kernel, ...] = ("bilinear", "nearest", "bicubic", "lanczos", "hamming")
"""Antialiased, but for `nearest`. Two of them fail in the originals' `torch-rng`."""
_GRAY = np.array([0.299, 0.587, 0.114])
_GRAY_PIXELS = 256
"""Of a side, about: the mean gray of a picture is that of as many pixels."""


class Color(NamedTuple):
    """v -> matrix @ v + offset, v of 0 to 255, then kept within these."""

    matrix: np.ndarray
    """[3, 3] float32."""
    offset: np.ndarray
    """[3] float32."""

    def apply(self, values: np.ndarray) -> None:
        """values: [h, w, 3] float32, changed in place."""
        np.clip(values @ self.matrix.T + self.offset, 0, 255, out=values)


class Change(NamedTuple):
    """What is drawn for a picture."""

    rows: slice
    columns: slice
    """The part that is shown."""
    is_flipped: bool = False
    color: Color | None = None
    kernel: Kernel | None = None
    """Instead of the one that the settings say."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    random_crops: bool = False
    least_area: float = 0.8
    horizontal_flip: bool = False
    color_jitter: bool = False
    jitter: float = 0.2
    resize_variations: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.least_area <= 1:
            raise ValueError(f"least_area={self.least_area}, expected more than 0 and at most 1")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter={self.jitter}, expected 0 or more and less than 1")

    @property
    def is_on(self) -> bool:
        return self.random_crops or self.horizontal_flip or self.color_jitter or self.resize_variations

    def draw(self, image: np.ndarray, rng: np.random.RandomState | None, *, keeps_places: bool) -> Change | None:
        """image: [H, W, 3] uint8. None where nothing is on, or without randomness."""
        if rng is None or not self.is_on:
            return None
        height, width = image.shape[:2]
        rows, columns, is_flipped = slice(0, height), slice(0, width), False
        if self.random_crops:
            area, down, right = rng.uniform(self.least_area, 1), rng.random_sample(), rng.random_sample()
            if not keeps_places:
                rows, columns = _part(height, area, down), _part(width, area, right)
        if self.horizontal_flip:
            is_flipped = rng.random_sample() < 0.5 and not keeps_places
        color = self._color(image, rng) if self.color_jitter else None
        kernel = KERNELS[rng.randint(len(KERNELS))] if self.resize_variations else None
        return Change(rows, columns, is_flipped, color, kernel)

    def _color(self, image: np.ndarray, rng: np.random.RandomState) -> Color:
        """In this order: brightness, contrast around the mean gray, saturation around each pixel's gray."""
        brightness, contrast, saturation = rng.uniform(1 - self.jitter, 1 + self.jitter, 3)
        down, right = (max(1, side // _GRAY_PIXELS) for side in image.shape[:2])
        gray = float(image[::down, ::right].mean(axis=(0, 1), dtype=np.float64) @ _GRAY) * brightness
        to_gray = saturation * np.eye(3) + (1 - saturation) * _GRAY
        offset = np.full(3, (1 - contrast) * gray)
        return Color((to_gray * brightness * contrast).astype(np.float32), offset.astype(np.float32))


def _part(side: int, area: float, place: float) -> slice:
    kept = max(1, round(side * area**0.5))
    first = int(place * (side - kept + 1))
    return slice(first, first + kept)
