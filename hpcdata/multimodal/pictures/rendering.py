"""A picture -> pixels of a target's size, padded, augmented, normalised or in uint8: what all preprocessors share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcdata.multimodal.pictures import resampling
from hpcdata.multimodal.pictures.augmenting import Change
from hpcdata.multimodal.pictures.crops import Fitted
from hpcdata.multimodal.pictures.resampling import Kernel
from hpcdata.multimodal.pictures.statistics import Affine

_AS_IS = Affine(np.ones(3, np.float32), np.zeros(3, np.float32))


class Way(NamedTuple):
    """How a picture is resized."""

    kernel: Kernel
    antialias: bool
    rounded: bool
    """Over uint8."""


def render(
    image: np.ndarray,
    size: tuple[int, int],
    fitted: Fitted,
    way: Way,
    *,
    affine: Affine | None,
    pad: tuple[float, float, float] = (0.0, 0.0, 0.0),
    change: Change | None = None,
) -> np.ndarray:
    """[*size, 3]: uint8 without `affine`, float32 scaled by it. image: [H, W, 3] uint8.

    fitted: where in it the picture lies; around it is `pad`, of 0 to 255.
    """
    target = np.empty((*size, 3), np.uint8 if affine is None else np.float32)
    color = np.rint(pad) if affine is None else np.array(pad, np.float32) * affine.scale + affine.shift
    _pad(target, fitted, color.astype(target.dtype))
    inside = target[fitted.top : fitted.top + fitted.height, fitted.left : fitted.left + fitted.width]
    if change is None:
        resampling.resample(np.ascontiguousarray(image), inside, **way._asdict(), affine=affine)
    else:
        inside[...] = _changed(image, inside.shape[:2], way, affine, change)
    return target


def _pad(target: np.ndarray, fitted: Fitted, color: np.ndarray) -> None:
    """Paints what is not `fitted`: one row, which the others are copied from."""
    bottom, right = fitted.top + fitted.height, fitted.left + fitted.width
    row = np.empty_like(target[0])
    row[:] = color
    target[: fitted.top], target[bottom:] = row, row
    target[fitted.top : bottom, : fitted.left] = row[: fitted.left]
    target[fitted.top : bottom, right:] = row[right:]


def _changed(image: np.ndarray, size: tuple[int, ...], way: Way, affine: Affine | None, change: Change) -> np.ndarray:
    """Colors change before values are normalised or rounded."""
    kernel = change.kernel or way.kernel
    antialias = way.antialias if change.kernel is None else kernel != "nearest"
    values = np.empty((*size, 3), np.float32)
    part = np.ascontiguousarray(image[change.rows, change.columns])
    resampling.resample(part, values, kernel=kernel, antialias=antialias, rounded=way.rounded, affine=_AS_IS)
    if change.color is not None:
        change.color.apply(values)
    if change.is_flipped:
        values = values[:, ::-1]
    if affine is None:
        return np.clip(np.rint(values), 0, 255)
    return (np.rint(values) if way.rounded else values) * affine.scale + affine.shift
