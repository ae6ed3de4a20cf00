"""A grid of tiles -> the tokens of the picture, and which patches make each of them.

A picture is its global crop (all of it, in one crop) and its tiles (shared/MOLMO.md 4.4, 4.5). Neighboring tiles
overlap: a tile owns all of its patches but the margins on the sides where it has a neighbor. The owned patches of all
tiles, stitched, are the grid of high resolution. A cell is what becomes one token: pool x pool patches.

    over the picture   cells lie over the stitched grid, padded on both sides to whole cells (the fork, molmo2)
    in each crop       cells lie in each tile, which needs margins of whole cells (allenai/molmo)

Tokens: start, rows of patch tokens with a column token behind each row, end; the global crop's block, then the tiles'.
All is a pure function of the grid, kept for each: the arrays may not be written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from hpcdata.multimodal.values import BlockPlan, PictureTokens

CropMode = Literal["overlap-and-resize-c2", "overlap-and-resize", "resize"]
"""Global crop and tiles, tiles alone, global crop alone."""
PoolOver = Literal["picture", "crop"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """All but the grid that says how a picture becomes tokens."""

    tokens: PictureTokens
    crop_mode: CropMode
    crop_patches: int
    """Patches of a side of a crop."""
    pool: tuple[int, int]
    """Patches of a side of a cell: rows, columns."""
    margins: tuple[int, int]
    """Patches of overlap at the beginning and at the end of a tile, in both directions."""
    pool_over: PoolOver = "picture"
    use_col: bool = True
    use_low_res_patch: bool = False
    use_low_res_start: bool = False
    use_global_col: bool = True

    @property
    def window(self) -> int:
        """Patches that a tile adds to a row of tiles."""
        return self.crop_patches - sum(self.margins)

    def num_cells(self, rows: int | np.ndarray, columns: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cells of the tiles' grid, in both directions: of one grid of tiles or of arrays of them."""
        return self._num_cells(np.asarray(rows), 0), self._num_cells(np.asarray(columns), 1)

    def _num_cells(self, tiles: np.ndarray, axis: int) -> np.ndarray:
        pool, (before, behind) = self.pool[axis], self.margins
        if self.pool_over == "picture":
            return -(-(tiles * self.window + before + behind) // pool)
        first, last = -(-(self.window + before) // pool), -(-(self.window + behind) // pool)
        middle, alone = -(-self.window // pool), -(-self.crop_patches // pool)
        return np.where(tiles == 1, alone, first + last + (tiles - 2) * middle)

    def num_tokens(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """[n] int64: ids of the blocks of pictures with these grids ([n] each)."""
        num_tokens = np.zeros(len(rows), np.int64)
        if self.crop_mode != "overlap-and-resize":
            high, wide = (-(-self.crop_patches // pool) for pool in self.pool)
            num_tokens += 2 + high * (wide + self.use_global_col)
        if self.crop_mode != "resize":
            high_cells, wide_cells = self.num_cells(rows, columns)
            num_tokens += 2 + high_cells * (wide_cells + self.use_col)
        return num_tokens

    def num_pooled(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """[n] int64: patch tokens of pictures with these grids ([n] each)."""
        num_pooled = np.zeros(len(rows), np.int64)
        if self.crop_mode != "overlap-and-resize":
            num_pooled += math.prod(-(-self.crop_patches // pool) for pool in self.pool)
        if self.crop_mode != "resize":
            num_pooled += np.multiply(*self.num_cells(rows, columns))
        return num_pooled

    def num_crops(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """[n] int64: crops of pictures with these grids ([n] each)."""
        num_tiles = 0 if self.crop_mode == "resize" else rows.astype(np.int64) * columns
        return np.zeros(len(rows), np.int64) + num_tiles + (self.crop_mode != "overlap-and-resize")


@lru_cache(maxsize=1024)
def planned(layout: Layout, rows: int, columns: int) -> BlockPlan:
    """What a picture of this grid of tiles becomes."""
    blocks, cells, first_crop = [], [], 0
    num_patches = layout.crop_patches**2
    ids = layout.tokens
    if layout.crop_mode != "overlap-and-resize":
        patches = np.arange(num_patches).reshape(layout.crop_patches, -1)
        cells.append(_pooled(patches, layout.pool))
        start = ids.low_res_start if layout.use_low_res_start else ids.start
        patch = ids.low_res_patch if layout.use_low_res_patch else ids.patch
        blocks.append(_block(cells[-1].shape[:2], start, patch, ids.col if layout.use_global_col else None, ids.end))
        first_crop = 1
    if layout.crop_mode != "resize":
        of_tiles = (
            _over_picture(layout, rows, columns) if layout.pool_over == "picture" else _in_crops(layout, rows, columns)
        )
        cells.append(np.where(of_tiles < 0, -1, of_tiles + first_crop * num_patches))
        blocks.append(_block(cells[-1].shape[:2], ids.start, ids.patch, ids.col if layout.use_col else None, ids.end))
        first_crop += rows * columns
    tokens = np.concatenate([block for block, _ in blocks])
    second = len(blocks[0][0])
    places = np.concatenate([is_patch.nonzero()[0] + index * second for index, (_, is_patch) in enumerate(blocks)])
    pooled = np.concatenate([grid.reshape(-1, grid.shape[2]) for grid in cells]).astype(np.int32)
    return BlockPlan(
        tokens=_fixed(tokens),
        num_crops=first_crop,
        pooled_patches_idx=_fixed(pooled),
        image_input_idx=_fixed(_by_crop(layout, pooled, places, first_crop)),
    )


def _block(
    cells: tuple[int, ...], start: int | None, patch: int | None, col: int | None, end: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """[n] int32 ids, and [n] bool: whether each is a patch token."""
    assert start is not None
    assert patch is not None
    assert end is not None
    high, wide = cells
    row = np.full((high, wide + (col is not None)), patch, np.int32)
    is_patch = np.ones(row.shape, bool)
    if col is not None:
        row[:, -1], is_patch[:, -1] = col, False
    tokens = np.concatenate([[start], row.reshape(-1), [end]]).astype(np.int32)
    return tokens, np.concatenate([[False], is_patch.reshape(-1), [False]])


def _over_picture(layout: Layout, rows: int, columns: int) -> np.ndarray:
    """[cells high, cells wide, patches of a cell]: places of patches in all tiles, -1: none."""
    owners = [_owners(layout, number) for number in (rows, columns)]
    (row_tile, row), (column_tile, column) = owners
    tile = row_tile[:, None] * columns + column_tile
    return _pooled(tile * layout.crop_patches**2 + row[:, None] * layout.crop_patches + column, layout.pool)


def _owners(layout: Layout, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each row (or column) of the stitched grid: the tile that owns it, and which row of the tile it is."""
    place = np.arange(number * layout.window + sum(layout.margins))
    tile = np.clip((place - layout.margins[0]) // layout.window, 0, number - 1)
    return tile, place - tile * layout.window


def _in_crops(layout: Layout, rows: int, columns: int) -> np.ndarray:
    """The same with the cells of each tile by themselves."""
    (row_tile, row), (column_tile, column) = (
        _cells_in_crops(layout, number, pool) for number, pool in zip((rows, columns), layout.pool, strict=True)
    )
    tile = (row_tile[:, None] * columns + column_tile)[:, :, None, None]
    high, wide = row[:, None, :, None], column[None, :, None, :]
    place = tile * layout.crop_patches**2 + high * layout.crop_patches + wide
    inside = (high < layout.crop_patches) & (wide < layout.crop_patches)
    return np.where(inside, place, -1).reshape(len(row), len(column), -1)


def _cells_in_crops(layout: Layout, number: int, pool: int) -> tuple[np.ndarray, np.ndarray]:
    """[cells]: which tile has them; [cells, pool]: their rows in it, from the end of a tile some that it has not."""
    tile_of, rows_of = [], []
    before, behind = layout.margins
    for tile in range(number):
        first = 0 if tile == 0 else before
        owned = layout.crop_patches - first - (0 if tile == number - 1 else behind)
        starts = first + pool * np.arange(-(-owned // pool))
        tile_of.append(np.full(len(starts), tile))
        rows_of.append(starts[:, None] + np.arange(pool))
    return np.concatenate(tile_of), np.concatenate(rows_of)


def _pooled(patches: np.ndarray, pool: tuple[int, int]) -> np.ndarray:
    """[high, wide] -> [cells high, cells wide, patches of a cell], padded with -1: half of it before, rounded down."""
    padding = [
        (short // 2, short - short // 2)
        for short in (-side % size for side, size in zip(patches.shape, pool, strict=True))
    ]
    padded = np.pad(patches, padding, constant_values=-1)
    high, wide = (side // size for side, size in zip(padded.shape, pool, strict=True))
    return padded.reshape(high, pool[0], wide, pool[1]).swapaxes(1, 2).reshape(high, wide, -1)


def _by_crop(layout: Layout, pooled: np.ndarray, places: np.ndarray, num_crops: int) -> np.ndarray:
    """[num_crops, cells] int32: the token of each cell of each crop.

    A token belongs to the crop of its first patch. Where two of them begin in one cell of a crop, which is when cells
    over the picture do not keep to the crops, a crop's tokens stand in their order instead, the unused ones last.
    """
    side = layout.crop_patches
    first = pooled[np.arange(len(pooled)), (pooled >= 0).argmax(axis=1)]
    crop, patch = first // side**2, first % side**2
    high, wide = (-(-side // pool) for pool in layout.pool)
    cell = patch // side // layout.pool[0] * wide + patch % side // layout.pool[1]
    if len(np.unique(crop * high * wide + cell)) < len(crop):
        cell = np.empty(len(crop), np.int64)
        for index in range(num_crops):
            mine = crop == index
            cell[mine] = np.arange(mine.sum())
    by_crop = np.full((num_crops, max(high * wide, int(cell.max()) + 1)), -1, np.int32)
    by_crop[crop, cell] = places
    return by_crop


def _fixed(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
