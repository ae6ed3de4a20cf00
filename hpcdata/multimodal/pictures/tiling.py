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
    rows, columns = tiles_of(np.array([[height, width]]), window, margin, max_tiles, rule)[0].tolist()
    return rows, columns


def tiles_of(sizes: np.ndarray, window: int, margin: int, max_tiles: int, rule: Tiling = "every_side") -> np.ndarray:
    """[n, 2] int32: rows and columns of pictures of these heights and widths ([n, 2])."""
    grids = _grids(max_tiles)
    targets = (grids * window).astype(np.float32)
    inner = (sizes - margin).astype(np.float32)
    if rule == "every_side":
        inner = np.maximum(inner, np.float32(1))
    chosen = np.empty(len(sizes), np.intp)
    for start in range(0, len(sizes), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        chosen[part] = _first_of_least_change(inner[part, 0], inner[part, 1], targets)
    return grids[chosen]


def _first_of_least_change(height: np.ndarray, width: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[n]: which of the targets ([m, 2]). One target at a time: earlier ones win ties, as by argmin and argmax."""
    largest = np.full(len(height), -np.inf, np.float32)  # of scales, whatever they are
    smallest = np.full(len(height), np.inf, np.float32)  # of those that do not shrink
    at_largest, at_smallest = np.zeros(len(height), np.intp), np.zeros(len(height), np.intp)
    grows = np.zeros(len(height), bool)
    with np.errstate(divide="ignore"):
        for index, (high, wide) in enumerate(targets):
            scale = np.minimum(high / height, wide / width)
            better = scale > largest
            largest[better], at_largest[better] = scale[better], index
            fits = scale >= 1
            better = fits & ((scale < smallest) | ~grows)
            smallest[better], at_smallest[better] = scale[better], index
            grows |= fits
    return np.where(grows, at_smallest, at_largest)


@cache
def _grids(max_tiles: int) -> np.ndarray:
    """[m, 2] int32: all (rows, columns) of at most so many tiles, by (tiles, rows)."""
    found = [(rows, columns) for rows in range(1, max_tiles + 1) for columns in range(1, max_tiles // rows + 1)]
    return np.array(sorted(found, key=lambda grid: (grid[0] * grid[1], grid[0])), np.int32)
