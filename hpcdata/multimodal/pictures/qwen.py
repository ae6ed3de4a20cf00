"""QwenPictures: a picture in a resolution of its own, near the one that it has, as Qwen2-VL takes it.

The method: Wang et al., Qwen2-VL (2024), and the settings of its published processor. Both sides become multiples of
patch * merge, so that the picture has between `min_pixels` and `max_pixels`, in nearly its own shape: bicubic,
antialiased, over uint8. merge x merge neighboring patches make one token. These cells are the `crops` of a block:

    pixels      [cells, merge * merge, 3 * frames * patch * patch]: a patch is its channels, frames, rows, columns;
                reshaped to [patches, values] they are Qwen2-VL's `pixel_values`
    grid_thw    of the plan: (1, rows, columns) of patches, one row of `image_grid_thw`
    tokens      start, a patch token for each cell, row by row, end

A picture whose sides have a ratio above 200 is a reject, as it is refused there.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from hpcdata.multimodal.pictures import statistics
from hpcdata.multimodal.pictures.augmenting import Augmentation
from hpcdata.multimodal.pictures.crops import Fitted
from hpcdata.multimodal.pictures.rendering import Way, render
from hpcdata.multimodal.timing import phase
from hpcdata.multimodal.values import BlockPlan, PictureBlock, PictureTokens
from hpcdata.samples import BadSample, Reason

MOST_RATIO = 200
_WAY = Way("bicubic", antialias=True, rounded=True)


@dataclass(frozen=True, kw_only=True)
class QwenPictures:
    tokens: PictureTokens
    """`start` and `end`, where given, stand around a picture's tokens."""
    patch_size: int = 14
    merge_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    frames: int = 2
    """How often a picture is repeated: the model's patches have as many frames."""
    normalize: str = "openai"
    pixels: Literal["exact", "fast"] = "exact"
    augmentation: Augmentation = Augmentation()

    def __post_init__(self) -> None:
        for name, value, known in (
            ("pixels", self.pixels, ("exact", "fast")),
            ("normalize", self.normalize, statistics.NAMES),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r}, expected one of {', '.join(known)}")
        if min(self.patch_size, self.merge_size, self.frames) < 1:
            raise ValueError("patch_size, merge_size and frames: expected 1 or more")
        if not 0 < self.min_pixels <= self.max_pixels or self.max_pixels < self._factor**2:
            raise ValueError(
                f"min_pixels={self.min_pixels}, max_pixels={self.max_pixels}: expected room for a cell of "
                f"{self._factor} x {self._factor} pixels, and no more at least than at most"
            )

    @property
    def max_crops(self) -> int:
        """Cells, which are tokens, of the largest picture."""
        return self.max_pixels // self._factor**2

    @property
    def most_crops(self) -> int:
        """More than `max_crops` where sides cannot be less than a cell, or are rounded up to `min_pixels`."""
        thin, side = math.sqrt(MOST_RATIO), self._factor
        longest = math.sqrt(self.max_pixels) * thin / side
        raised = self.min_pixels / side**2 + math.sqrt(self.min_pixels) * (thin + 1) / side + 1
        return max(self.max_crops, math.ceil(longest), math.ceil(raised))

    def settings(self) -> dict[str, object]:
        """Plain values: all that changes what comes out."""
        return dataclasses.asdict(self) | {"kind": "qwen"}

    def plan(self, height: int, width: int, *, max_crops: int | None = None) -> BlockPlan:
        """A pure function of the size. max_crops: at most so many cells, also below `min_pixels`.

        Raises BadSample for a ratio above 200.
        """
        rows, columns = self._checked_grid(height, width, max_crops)
        return _planned(self.tokens, rows, columns, self.merge_size)

    def rooms(self, sizes: np.ndarray, *, max_crops: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of many sizes at once ([n, 2]: height, width): [n] int64 tokens, crops and patch tokens; 0 of rejects."""
        cells = self.grids(sizes, max_crops).prod(axis=1)
        cells[sizes.max(axis=1) > MOST_RATIO * sizes.min(axis=1)] = 0
        around = (self.tokens.start is not None) + (self.tokens.end is not None)
        return np.where(cells > 0, cells + around, 0), cells, cells.copy()

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
        rows, columns = self._checked_grid(image.shape[0], image.shape[1], max_crops)
        size = (rows * self._factor, columns * self._factor)
        with phase("resize"):
            change = self.augmentation.draw(image, rng if is_training else None, keeps_places=keeps_places)
            affine = statistics.affine(self.normalize) if self.pixels == "exact" else None
            resized = render(image, size, Fitted(0, 0, *size), _WAY, affine=affine, change=change)
            pixels = self._patches(resized, rows, columns)
        return PictureBlock(plan=_planned(self.tokens, rows, columns, self.merge_size), pixels=pixels, masks=None)

    def crops_as_pixels(self, images: np.ndarray) -> np.ndarray:
        """[n, height, width, 3] uint8 of `PictureBlock.pixels`, to look at: a cell each."""
        merge, patch = self.merge_size, self.patch_size
        split = np.asarray(images).reshape(-1, merge, merge, 3, self.frames, patch, patch)[:, :, :, :, 0]
        cells = split.transpose(0, 1, 4, 2, 5, 3).reshape(-1, self._factor, self._factor, 3)
        return statistics.as_pixels(cells, self.normalize)

    @property
    def _factor(self) -> int:
        return self.patch_size * self.merge_size

    def _patches(self, resized: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """[cells, merge * merge, values]"""
        merge, patch = self.merge_size, self.patch_size
        split = resized.reshape(rows, merge, patch, columns, merge, patch, 3).transpose(0, 3, 1, 4, 6, 2, 5)
        made = np.empty((rows, columns, merge, merge, 3, self.frames, patch, patch), resized.dtype)
        made[...] = split[:, :, :, :, :, None]
        return made.reshape(rows * columns, merge * merge, -1)

    def _checked_grid(self, height: int, width: int, max_crops: int | None) -> tuple[int, int]:
        if max(height, width) > MOST_RATIO * min(height, width):
            raise BadSample(
                Reason.UNSUPPORTED_MEDIA, f"{height} x {width} pixels: the ratio of the sides is above {MOST_RATIO}"
            )
        return _grid(self, height, width, max_crops)

    def grids(self, sizes: np.ndarray, max_crops: int | None) -> np.ndarray:
        """[n, 2] int64: rows and columns of cells. Sides are rounded half to even, then made less or more."""
        if max_crops is not None and max_crops < 1:
            raise ValueError(f"max_crops={max_crops}, expected at least 1")
        factor, sides = self._factor, sizes.astype(np.float64)
        most = self.max_pixels if max_crops is None else min(self.max_pixels, max_crops * factor**2)
        least = min(self.min_pixels, most)
        area = sides.prod(axis=1, keepdims=True)
        grids = np.rint(sides / factor)
        pixels = grids.prod(axis=1, keepdims=True) * factor**2
        less = np.maximum(1, np.floor(sides / np.sqrt(area / most) / factor))
        more = np.ceil(sides * np.sqrt(least / area) / factor)
        grids = np.where(pixels > most, less, np.where(pixels < least, more, grids)).astype(np.int64)
        if max_crops is not None and max_crops < self.max_crops:  # Qwen2-VL's own rule may take some cells more
            grids[:, 0] = np.minimum(grids[:, 0], max_crops)
            grids[:, 1] = np.minimum(grids[:, 1], max_crops // grids[:, 0])
        return grids


@lru_cache(maxsize=1 << 16)
def _grid(pictures: QwenPictures, height: int, width: int, max_crops: int | None) -> tuple[int, int]:
    """Of `grids`, for one size."""
    rows, columns = pictures.grids(np.array([[height, width]]), max_crops)[0].tolist()
    return rows, columns


@lru_cache(maxsize=512)
def _planned(ids: PictureTokens, rows: int, columns: int, merge: int) -> BlockPlan:
    number = rows * columns
    before, behind = ([] if token is None else [token] for token in (ids.start, ids.end))
    made = (
        np.concatenate([before, np.full(number, ids.patch), behind]).astype(np.int32),
        np.arange(number * merge * merge, dtype=np.int32).reshape(number, -1),
        len(before) + np.arange(number, dtype=np.int32)[:, None],
    )
    for array in made:
        array.flags.writeable = False
    return BlockPlan(
        tokens=made[0],
        num_crops=number,
        pooled_patches_idx=made[1],
        image_input_idx=made[2],
        grid_thw=(1, rows * merge, columns * merge),
    )
