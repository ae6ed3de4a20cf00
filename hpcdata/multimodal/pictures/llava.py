"""LlavaPictures: squares, padded squares, and the grids of LLaVA-NeXT (its "anyres").

    square   the picture fills one crop, its shape is not kept
    pad      it keeps its shape, in the middle of one crop; around it is the mean color of the statistics
    anyres   the picture fills one crop, and, in its own shape on black, the one of `grid_pinpoints` that keeps most of
             its pixels (of equal ones, that wastes least), which is cut into tiles without overlap

The methods: Liu et al., Improved Baselines with Visual Instruction Tuning (2023), and the LLaVA-NeXT blog (January
2024). Resizing is bicubic and antialiased, over uint8. Each patch is a token. In anyres the patches of all tiles stand
row by row, as one picture, behind those of the global crop; rows and columns that are padding alone are left out, and
each row ends with a token for its end: `tokens.col`, or one more patch token, which no patch makes: -1.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from hpcdata.multimodal.pictures import crops, statistics
from hpcdata.multimodal.pictures.augmenting import Augmentation, Change
from hpcdata.multimodal.pictures.crops import Fitted, Form
from hpcdata.multimodal.pictures.rendering import Way, render
from hpcdata.multimodal.timing import phase
from hpcdata.multimodal.values import BlockPlan, PictureBlock, PictureTokens

Mode = Literal["square", "pad", "anyres"]
PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
_WAY = Way("bicubic", antialias=True, rounded=True)


@dataclass(frozen=True, kw_only=True)
class LlavaPictures:
    tokens: PictureTokens
    """`start` and `end`, where given, stand around a picture's tokens."""
    mode: Mode = "anyres"
    crop_size: int = 336
    patch_size: int = 14
    grid_pinpoints: tuple[tuple[int, int], ...] = PINPOINTS
    """(height, width) of the targets of anyres, in whole crops."""
    normalize: str = "openai"
    pixels: Literal["exact", "fast"] = "exact"
    form: Form = "crops"
    image_masks: bool = False
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        for name, value, known in (
            ("mode", self.mode, ("square", "pad", "anyres")),
            ("pixels", self.pixels, ("exact", "fast")),
            ("form", self.form, ("patches", "crops")),
            ("normalize", self.normalize, statistics.NAMES),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r}, expected one of {', '.join(known)}")
        if self.patch_size < 1 or self.crop_size < self.patch_size or self.crop_size % self.patch_size:
            raise ValueError(f"crop_size={self.crop_size} is no multiple of patch_size={self.patch_size}")
        odd = [point for point in self.grid_pinpoints if min(point) < 1 or any(side % self.crop_size for side in point)]
        if odd or not self.grid_pinpoints:
            raise ValueError(f"grid_pinpoints={odd or ()}: expected sides of whole crops of {self.crop_size} pixels")

    @property
    def max_crops(self) -> int:
        """Tiles of the largest grid; 1 without grids."""
        return max(map(math.prod, self._grids)) if self.mode == "anyres" else 1

    @property
    def most_crops(self) -> int:
        return self.max_crops + 1 if self.mode == "anyres" else 1

    def settings(self) -> dict[str, object]:
        """Plain values: all that changes what comes out."""
        return dataclasses.asdict(self) | {"kind": "llava"}

    def plan(self, height: int, width: int, *, max_crops: int | None = None) -> BlockPlan:
        """A pure function of the size. max_crops: only grids of at most so many tiles, or the global crop alone."""
        shape = _shape(self, height, width, max_crops)
        return _planned(self.tokens, self.crop_size // self.patch_size, *shape)

    def rooms(self, sizes: np.ndarray, *, max_crops: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of many sizes at once ([n, 2]: height, width): [n] int64 tokens, crops, and rows of pooled patches."""
        grids, high, wide = self.shapes(sizes, max_crops)
        has_tiles = grids.prod(axis=1) > 0
        tokens = (self.crop_size // self.patch_size) ** 2 + np.where(has_tiles, high * (wide + 1), 0)
        pooled = tokens - (0 if self.tokens.col is None else np.where(has_tiles, high, 0))
        around = (self.tokens.start is not None) + (self.tokens.end is not None)
        return tokens + around, 1 + grids.prod(axis=1), pooled

    def __call__(
        self,
        image: np.ndarray,
        rng: np.random.RandomState | None = None,
        *,
        is_training: bool = False,
        max_crops: int | None = None,
        keeps_places: bool = False,
    ) -> PictureBlock:
        """image: [height, width, 3] uint8."""
        size = image.shape[0], image.shape[1]
        rows, columns, _, _ = _shape(self, *size, max_crops)
        plan = self.plan(*size, max_crops=max_crops)
        with phase("resize"):
            change = self.augmentation.draw(image, rng if is_training else None, keeps_places=keeps_places)
            return self._block(image, plan, rows, columns, change)

    def crops_as_pixels(self, images: np.ndarray) -> np.ndarray:
        """[n, height, width, 3] uint8 of `PictureBlock.pixels`, to look at."""
        return statistics.as_pixels(crops.whole(np.asarray(images), self.crop_size, self.patch_size), self.normalize)

    @property
    def _grids(self) -> list[tuple[int, int]]:
        return [(high // self.crop_size, wide // self.crop_size) for high, wide in self.grid_pinpoints]

    def shapes(self, sizes: np.ndarray, max_crops: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """([n, 2] rows and columns of tiles, [n] rows and [n] columns of patches that are no padding); 0: no tiles."""
        if max_crops is not None and max_crops < 1:
            raise ValueError(f"max_crops={max_crops}, expected at least 1")
        most = self.max_crops if max_crops is None else max_crops
        grids = [grid for grid in self._grids if math.prod(grid) <= most]
        if self.mode != "anyres" or not grids:
            nothing = np.zeros((len(sizes), 2), np.int64)
            return nothing, nothing[:, 0], nothing[:, 1]
        chosen = np.array(grids)[_best(sizes, np.array(grids) * self.crop_size)]
        return chosen, *_unpadded(sizes, chosen * (self.crop_size // self.patch_size))

    def _block(
        self, image: np.ndarray, plan: BlockPlan, rows: int, columns: int, change: Change | None
    ) -> PictureBlock:
        crop, affine = self.crop_size, statistics.affine(self.normalize) if self.pixels == "exact" else None
        out = crops.empty(plan.num_crops, crop, self.patch_size, self.form, np.uint8 if affine is None else np.float32)
        fitted, pad = Fitted(0, 0, crop, crop), (0.0, 0.0, 0.0)
        if self.mode == "pad":
            fitted, pad = _fitted(image.shape, (crop, crop)), statistics.mean_color(self.normalize)
        whole = render(image, (crop, crop), fitted, _WAY, affine=affine, pad=pad, change=change)
        crops.fill(out[:1], whole[None], self.patch_size)
        masks = [crops.shares(fitted, (crop, crop), 1, 1, crop, crop, self.patch_size)]
        if plan.num_crops > 1:
            size = (rows * crop, columns * crop)
            fitted = _fitted(image.shape, size)
            target = render(image, size, fitted, _WAY, affine=affine, change=change)
            crops.fill(out[1:], crops.cut(target, rows, columns, crop, crop), self.patch_size)
            masks.append(crops.shares(fitted, size, rows, columns, crop, crop, self.patch_size))
        return PictureBlock(plan=plan, pixels=out, masks=np.concatenate(masks) if self.image_masks else None)


@lru_cache(maxsize=1 << 16)
def _shape(pictures: LlavaPictures, height: int, width: int, max_crops: int | None) -> tuple[int, int, int, int]:
    """Of `shapes`, for one size."""
    (grid,), (high,), (wide,) = pictures.shapes(np.array([[height, width]]), max_crops)
    return int(grid[0]), int(grid[1]), int(high), int(wide)


def _best(sizes: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """[n]: which target keeps most pixels of each size and, of equal ones, has the fewest that are padding."""
    most, least_wasted = np.full(len(sizes), -1), np.zeros(len(sizes), np.int64)
    chosen = np.zeros(len(sizes), np.int64)
    height, width = sizes.astype(np.int64).T
    for index, (high, wide) in enumerate(targets):
        scale = np.minimum(wide / width, high / height)
        kept = np.minimum((width * scale).astype(np.int64) * (height * scale).astype(np.int64), width * height)
        wasted = high * wide - kept
        better = (kept > most) | ((kept == most) & (wasted < least_wasted))
        most, least_wasted = np.where(better, kept, most), np.where(better, wasted, least_wasted)
        chosen[better] = index
    return chosen


def _unpadded(sizes: np.ndarray, patches: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n] rows and [n] columns of a grid of patches ([n, 2]) that are left without its padding, see `plan`."""
    (height, width), (high, wide) = sizes.T, patches.T
    is_wide = width / height > wide / high
    kept_high = np.round(height * (wide / width), 7).astype(np.int64)
    kept_wide = np.round(width * (high / height), 7).astype(np.int64)
    return (
        np.where(is_wide, high - (high - kept_high) // 2 * 2, high),
        np.where(is_wide, wide, wide - (wide - kept_wide) // 2 * 2),
    )


def _fitted(shape: tuple[int, ...], target: tuple[int, int]) -> Fitted:
    """The picture in its shape, as large as it fits, in the middle: sides are rounded up."""
    height, width = shape[:2]
    down, right = target[0] / height, target[1] / width
    if right < down:
        high, wide = min(math.ceil(height * right), target[0]), target[1]
    else:
        high, wide = target[0], min(math.ceil(width * down), target[1])
    return Fitted((target[0] - high) // 2, (target[1] - wide) // 2, high, wide)


@lru_cache(maxsize=512)
def _planned(ids: PictureTokens, side: int, rows: int, columns: int, high: int, wide: int) -> BlockPlan:
    """side: patches of a side of a crop; high, wide: of all tiles those that are no padding."""
    patches = [np.arange(side * side)]
    if rows:
        row, column = (np.arange(kept) + (tiles * side - kept) // 2 for kept, tiles in ((high, rows), (wide, columns)))
        crop = 1 + (row // side)[:, None] * columns + column // side
        place = crop * side * side + (row % side)[:, None] * side + column % side
        patches.append(np.pad(place, ((0, 0), (0, 1)), constant_values=-1).reshape(-1))
    patch = np.concatenate(patches)
    tokens = np.where(patch < 0, ids.patch if ids.col is None else ids.col, ids.patch)
    before, behind = ([] if token is None else [token] for token in (ids.start, ids.end))
    by_crop = np.full((1 + rows * columns) * side * side, -1, np.int32)
    by_crop[patch[patch >= 0]] = np.flatnonzero(patch >= 0) + len(before)
    pooled = patch if ids.col is None else patch[patch >= 0]
    made = (
        np.concatenate([before, tokens, behind]).astype(np.int32),
        pooled[:, None].astype(np.int32),
        by_crop.reshape(-1, side * side),
    )
    for array in made:
        array.flags.writeable = False
    return BlockPlan(tokens=made[0], num_crops=1 + rows * columns, pooled_patches_idx=made[1], image_input_idx=made[2])
