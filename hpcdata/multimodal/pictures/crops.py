"""Resized pictures -> crops -> patches, and which share of each patch is picture (shared/MOLMO.md 4.3, 4.4, 4.6)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


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


def fill_patches(out: np.ndarray, crops: np.ndarray, patch: int) -> None:
    """out: [n, patches, patch * patch * 3] <- crops: [..., crop, crop, 3], n of them.

    Patches are in the order of rows; a patch is its rows, columns, channels.
    """
    side = crops.shape[-3] // patch
    split = crops.reshape if crops.flags.c_contiguous else None
    if split is not None:
        crops = split(*crops.shape[:-3], side, patch, side, patch * crops.shape[-1])
    else:
        crops = _split(crops, side, patch)
    moved = crops.swapaxes(-3, -2)
    out.reshape(*moved.shape)[...] = moved


def _split(crops: np.ndarray, side: int, patch: int) -> np.ndarray:
    """[..., side, patch, side, patch * 3] of a view whose pixels of a row stand together."""
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
