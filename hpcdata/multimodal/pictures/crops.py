"""Resized pictures -> crops -> patches, and which share of each patch is picture (shared/MOLMO.md 4.3, 4.4, 4.6)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

Form = Literal["patches", "crops"]
"""[n, patches, values of a patch], where patches are in the order of rows, and a patch is its rows, columns, channels;
or [n, 3, height, width].
"""


class Fitted(NamedTuple):
    """Where the picture lies in a target, in pixels: the rest is padding."""

    top: int
    left: int
    height: int
    width: int


def fit(height: int, width: int, target: tuple[int, int]) -> Fitted:
    """The picture at the largest size of its own shape that the target has room for, in the middle of it.

    Computed in float32 and cut to whole pixels, as the originals do. A side that would have none has one: the originals
    fail there.
    """
    sides = np.array([height, width], np.float32)
    scale = (np.array(target, np.float32) / sides).min()
    high, wide = (max(1, int(side)) for side in sides * scale)
    return Fitted((target[0] - high) // 2, (target[1] - wide) // 2, high, wide)


def cut(target: np.ndarray, rows: int, columns: int, crop: int, window: int) -> np.ndarray:
    """[rows, columns, crop, crop, 3]: the overlapping tiles of a target, as a view of it."""
    down, right, channel = target.strides
    shape = (rows, columns, crop, crop, target.shape[2])
    return np.lib.stride_tricks.as_strided(
        target, shape, (window * down, window * right, down, right, channel), writeable=False
    )


def empty(number: int, crop: int, patch: int, form: Form, dtype: type) -> np.ndarray:
    """Room for `number` crops in this form."""
    if form == "crops":
        return np.empty((number, 3, crop, crop), dtype)
    return np.empty((number, (crop // patch) ** 2, patch * patch * 3), dtype)


def fill(out: np.ndarray, crops: np.ndarray, patch: int) -> None:
    """out: from `empty` <- crops: [..., crop, crop, 3], as many, whose pixels of a row stand together."""
    if out.ndim == 4:
        out.reshape(*crops.shape[:-3], *out.shape[1:])[...] = np.moveaxis(crops, -1, -3)
        return
    moved = _split(crops, crops.shape[-3] // patch, patch).swapaxes(-3, -2)
    out.reshape(*moved.shape)[...] = moved


def whole(images: np.ndarray, crop: int, patch: int) -> np.ndarray:
    """[n, crop, crop, 3] of crops in any form."""
    if images.ndim == 4:
        return np.moveaxis(images, 1, -1)
    side = crop // patch
    split = images.reshape(len(images), side, side, patch, patch, 3)
    return split.swapaxes(2, 3).reshape(len(images), crop, crop, 3)


def _split(crops: np.ndarray, side: int, patch: int) -> np.ndarray:
    """[..., side, patch, side, patch * 3]"""
    *before, down, right, channel = crops.strides
    channels = crops.shape[-1]
    assert right == channels * channel
    shape = (*crops.shape[:-3], side, patch, side, patch * channels)
    return np.lib.stride_tricks.as_strided(
        crops, shape, (*before, patch * down, down, patch * right, channel), writeable=False
    )


def shares(
    fitted: Fitted, size: tuple[int, int], rows: int, columns: int, crop: int, window: int, patch: int
) -> np.ndarray:
    """[rows * columns, patches] float32: the share of each patch of each tile that is picture. size: of the target."""
    high = _covered(fitted.top, fitted.height, size[0], rows, crop, window, patch)
    wide = _covered(fitted.left, fitted.width, size[1], columns, crop, window, patch)
    covered = high[:, None, :, None] * wide[None, :, None, :]
    return covered.reshape(rows * columns, -1).astype(np.float32) / np.float32(patch * patch)


def _covered(first: int, length: int, size: int, number: int, crop: int, window: int, patch: int) -> np.ndarray:
    """[number, patches of a side]: pixels of each patch's rows (or columns) that are picture."""
    is_picture = np.zeros(size, np.int64)
    is_picture[first : first + length] = 1
    starts = window * np.arange(number)[:, None] + patch * np.arange(crop // patch)
    counted = np.concatenate([[0], is_picture.cumsum()])
    return counted[starts + patch] - counted[starts]
