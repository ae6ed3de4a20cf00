"""Into how many tiles a picture is cut: the grid whose target size is nearest to the picture's own.

The originals' rule (select_tiling of allenai/molmo and its followers, by shared/MOLMO.md 4.2): of all grids (rows,
columns) of at most `max_tiles` tiles, in the order of (tiles, rows), the first that enlarges the picture least; where
every one shrinks it, the first that shrinks it least. What counts are the picture's sides less the margins of one tile,
and all is computed in float32, as theirs.

Sides below the margins: `every_side` takes them for 1 pixel (molmo2). `v1` is what allenai/molmo and its fork do:
negative scales, so that the smallest grid wins whatever the other side is: for old runs only.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Literal

import numpy as np

Tiling = Literal["every_side", "v1"]
_AT_ONCE = 1 << 15
"""Sizes of one step of `tiles_of`: its tables stay in the processor's cache."""


@lru_cache(maxsize=1 << 16)
def tiles(
    height: int, width: int, window: int, margin: int, max_tiles: int, rule: Tiling = "every_side"
) -> tuple[int, int]:
    """(rows, columns). window: pixels that a tile adds to a row of tiles; margin: what the first tile has besides."""
    grids = _grids(max_tiles)
    with np.errstate(divide="ignore"):
        scale = (_targets(max_tiles, window) / _inner(np.array([height, width]), margin, rule)).min(axis=1)
    fits = scale >= 1
    chosen = np.where(fits, scale, np.inf).argmin() if fits.any() else scale.argmax()
    rows, columns = grids[chosen].tolist()
    return rows, columns


def tiles_of(sizes: np.ndarray, window: int, margin: int, max_tiles: int, rule: Tiling = "every_side") -> np.ndarray:
    """[n, 2] int32: rows and columns of pictures of these heights and widths ([n, 2])."""
    inner, targets = _inner(sizes, margin, rule), _targets(max_tiles, window)
    chosen = np.empty(len(sizes), np.int32)
    for start in range(0, len(sizes), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        chosen[part] = _first_of_least_change(inner[part, 0], inner[part, 1], targets)
    return _grids(max_tiles)[chosen]


def _inner(sizes: np.ndarray, margin: int, rule: Tiling) -> np.ndarray:
    inner = (sizes - margin).astype(np.float32)
    return np.maximum(inner, np.float32(1)) if rule == "every_side" else inner


def _first_of_least_change(height: np.ndarray, width: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[n] int32: which of the targets ([m, 2]). One at a time: earlier ones win ties, as by argmin and argmax."""
    number = len(height)
    largest = np.full(number, -np.inf, np.float32)  # of scales, whatever they are
    smallest = np.full(number, np.inf, np.float32)  # of those that do not shrink
    at_largest, at_smallest = np.zeros(number, np.int32), np.full(number, -1, np.int32)
    scale, other = np.empty_like(height), np.empty_like(height)
    better, fits = np.empty(number, bool), np.empty(number, bool)
    with np.errstate(divide="ignore"):
        for index, (high, wide) in enumerate(targets):
            np.minimum(np.divide(high, height, out=scale), np.divide(wide, width, out=other), out=scale)
            np.greater(scale, largest, out=better)
            np.copyto(largest, scale, where=better)
            np.copyto(at_largest, index, where=better)
            np.greater_equal(scale, 1, out=fits)
            np.less(scale, smallest, out=better)
            better |= at_smallest < 0
            better &= fits
            np.copyto(smallest, scale, where=better)
            np.copyto(at_smallest, index, where=better)
    return np.where(at_smallest < 0, at_largest, at_smallest)


@cache
def _targets(max_tiles: int, window: int) -> np.ndarray:
    """[m, 2] float32: pixels of the grids without the margin."""
    return (_grids(max_tiles) * window).astype(np.float32)


@cache
def _grids(max_tiles: int) -> np.ndarray:
    """[m, 2] int32: all (rows, columns) of at most so many tiles, by (tiles, rows)."""
    found = [(rows, columns) for rows in range(1, max_tiles + 1) for columns in range(1, max_tiles // rows + 1)]
    return np.array(sorted(found, key=lambda grid: (grid[0] * grid[1], grid[0])), np.int32)
