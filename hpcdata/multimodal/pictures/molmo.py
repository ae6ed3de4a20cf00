"""MolmoPictures: global crop and tiles with overlap, as allenai/molmo, its robot fork and molmo2 make them.

The method is that of shared/MOLMO.md 4; the code is of our own. What `v1` names are the ways of allenai/molmo alone.

Resizes, of the global crop and of the target that the tiles are cut from, each from the whole picture:

    default, torch-bilinear   keeps the shape: bilinear, antialiased, in floats; the rest is padded with `pad_value`
    siglip                    fills the target: bilinear, not antialiased, rounded to uint8
    metaclip, dino            fills the target: bicubic, antialiased, rounded to uint8

`pixels="exact"` makes the originals' float32 values, normalised. `pixels="fast"` makes a quarter of the bytes: the same
values before they are normalised, rounded to uint8, which is at most half a level of 255 off and nothing where the
originals round too. `statistics.normalize` makes floats of them on the device.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from hpcdata.multimodal.pictures import crops, statistics, tiling
from hpcdata.multimodal.pictures.augmenting import Augmentation, Change
from hpcdata.multimodal.pictures.crops import Fitted, Form
from hpcdata.multimodal.pictures.layout import CropMode, Layout, PoolOver, planned
from hpcdata.multimodal.pictures.rendering import Way, render
from hpcdata.multimodal.pictures.tiling import Tiling
from hpcdata.multimodal.timing import phase
from hpcdata.multimodal.values import BlockPlan, PictureBlock, PictureTokens

Resize = Literal["default", "torch-bilinear", "siglip", "metaclip", "dino"]
Pixels = Literal["exact", "fast"]
_MODES = ("overlap-and-resize-c2", "overlap-and-resize", "resize")
_SAME_AS = {"torch-bilinear": "default"}


@dataclass(frozen=True, kw_only=True)
class MolmoPictures:
    tokens: PictureTokens
    crop_mode: CropMode = "overlap-and-resize-c2"
    max_crops: int = 6
    """The most tiles; the global crop is not counted, see `most_crops`."""
    crop_size: int = 336
    """Pixels of a side of a crop."""
    patch_size: int = 14
    pooling: tuple[int, int] = (2, 2)
    """Patches of a token: rows, columns."""
    overlap_margins: tuple[int, int] = (4, 4)
    """Patches in which tiles overlap their neighbors: before, behind."""
    normalize: str = "openai"
    resize: Resize = "default"
    pad_value: float = 0.0
    """Of padding, from 0 (black) to 1, before it is normalised."""
    pixels: Pixels = "exact"
    form: Form = "patches"
    use_col_tokens: bool = True
    use_low_res_token_global_crops: bool = False
    use_single_crop_col_tokens: bool | None = None
    """Column tokens in the block of a whole picture in one crop; None: as `use_col_tokens`."""
    use_single_crop_start_token: bool = False
    pool_over: PoolOver = "picture"
    """`crop`: as v1, which pools each crop by itself."""
    tiling: Tiling = "every_side"
    image_masks: bool = False
    legacy_image_mask: bool = False
    """As v1, and the fork for its checkpoints: masks of the tiles first, then -1 for one crop more."""
    augmentation: Augmentation = Augmentation()
    """While training, with the randomness of the example."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("crop_mode", self.crop_mode, _MODES),
            ("resize", self.resize, (*_WAYS, *_SAME_AS)),
            ("pixels", self.pixels, ("exact", "fast")),
            ("form", self.form, ("patches", "crops")),
            ("pool_over", self.pool_over, ("picture", "crop")),
            ("tiling", self.tiling, ("every_side", "v1")),
            ("normalize", self.normalize, statistics.NAMES),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r}, expected one of {', '.join(known)}")
        self._check_sizes()
        self._check_tokens()

    def _check_sizes(self) -> None:
        if self.max_crops < 1:
            raise ValueError(f"max_crops={self.max_crops}, expected at least 1")
        if self.patch_size < 1 or self.crop_size < self.patch_size or self.crop_size % self.patch_size:
            raise ValueError(f"crop_size={self.crop_size} is no multiple of patch_size={self.patch_size}")
        if min(self.pooling) < 1 or min(self.overlap_margins) < 0:
            raise ValueError(f"pooling={self.pooling}, overlap_margins={self.overlap_margins}: expected 1, 0 or more")
        if self.crop_mode != "resize" and self._layout.window < 1:
            raise ValueError(
                f"overlap_margins={self.overlap_margins} leave nothing of a crop of {self._layout.crop_patches} patches"
            )
        if self.pool_over == "crop" and any(margin % pool for margin in self.overlap_margins for pool in self.pooling):
            raise ValueError(
                f"pool_over=crop with overlap_margins={self.overlap_margins}: not in whole cells of {self.pooling} "
                "patches; use margins that are multiples, or pool_over=picture"
            )

    def _check_tokens(self) -> None:
        layout, ids = self._layout, self.tokens
        has_global = self.crop_mode != "overlap-and-resize"
        needed = {
            "start": not (self.crop_mode == "resize" and layout.use_low_res_start),
            "end": True,
            "col": (layout.use_global_col and has_global) or (layout.use_col and self.crop_mode != "resize"),
            "low_res_patch": layout.use_low_res_patch and has_global,
            "low_res_start": layout.use_low_res_start and has_global,
        }
        missing = [name for name, is_needed in needed.items() if is_needed and getattr(ids, name) is None]
        if missing:
            raise ValueError(f"tokens has no id for {', '.join(missing)}")

    @cached_property
    def _layout(self) -> Layout:
        single = self.use_single_crop_col_tokens
        return Layout(
            tokens=self.tokens,
            crop_mode=self.crop_mode,
            crop_patches=self.crop_size // self.patch_size,
            pool=self.pooling,
            margins=self.overlap_margins,
            pool_over=self.pool_over,
            use_col=self.use_col_tokens,
            use_low_res_patch=self.use_low_res_token_global_crops,
            use_low_res_start=self.use_single_crop_start_token,
            use_global_col=self.use_col_tokens if single is None else single,
        )

    @property
    def most_crops(self) -> int:
        """Of one picture, the global one counted."""
        return {"overlap-and-resize-c2": 1 + self.max_crops, "overlap-and-resize": self.max_crops, "resize": 1}[
            self.crop_mode
        ]

    def settings(self) -> dict[str, object]:
        """Plain values: all that changes what comes out."""
        made = dataclasses.asdict(self) | {"kind": "molmo"}
        made["resize"] = _SAME_AS.get(self.resize, self.resize)
        return made

    def plan(self, height: int, width: int, *, max_crops: int | None = None) -> BlockPlan:
        """A pure function of the size, kept for each grid of tiles. max_crops: fewer tiles than the setting."""
        return planned(self._layout, *self._tiles(height, width, max_crops))

    def rooms(self, sizes: np.ndarray, *, max_crops: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of many sizes at once ([n, 2]: height, width): [n] int64 tokens, crops, and patch tokens, as of `plan`."""
        layout = self._layout
        if self.crop_mode == "resize":
            grids = np.ones((len(sizes), 2), np.int32)
        else:
            grids = tiling.tiles_of(sizes, *self._window, self._most_tiles(max_crops), self.tiling)
        rows, columns = grids.T
        return layout.num_tokens(rows, columns), layout.num_crops(rows, columns), layout.num_pooled(rows, columns)

    def __call__(
        self,
        image: np.ndarray,
        rng: np.random.RandomState | None = None,
        *,
        is_training: bool = False,
        max_crops: int | None = None,
        keeps_places: bool = False,
    ) -> PictureBlock:
        """image: [height, width, 3] uint8. keeps_places: nothing in it is moved, see `augmenting`."""
        grid = self._tiles(image.shape[0], image.shape[1], max_crops)
        with phase("resize"):
            change = self.augmentation.draw(image, rng if is_training else None, keeps_places=keeps_places)
            return self._block(image, *grid, change)

    def crops_as_pixels(self, images: np.ndarray) -> np.ndarray:
        """[n, height, width, 3] uint8 of `PictureBlock.pixels`, to look at."""
        return statistics.as_pixels(crops.whole(np.asarray(images), self.crop_size, self.patch_size), self.normalize)

    @property
    def _dtype(self) -> type:
        return np.float32 if self.pixels == "exact" else np.uint8

    @property
    def _window(self) -> tuple[int, int]:
        """Pixels that a tile adds, and those that the first one has besides."""
        return self._layout.window * self.patch_size, sum(self.overlap_margins) * self.patch_size

    def _most_tiles(self, max_crops: int | None) -> int:
        if max_crops is None:
            return self.max_crops
        if max_crops < 1:
            raise ValueError(f"max_crops={max_crops}, expected at least 1")
        return min(max_crops, self.max_crops)

    def _tiles(self, height: int, width: int, max_crops: int | None) -> tuple[int, int]:
        if self.crop_mode == "resize":
            return 1, 1
        return tiling.tiles(height, width, *self._window, self._most_tiles(max_crops), self.tiling)

    def _block(self, image: np.ndarray, rows: int, columns: int, change: Change | None) -> PictureBlock:
        crop, (window, margin) = self.crop_size, self._window
        plan = planned(self._layout, rows, columns)
        out = crops.empty(plan.num_crops, crop, self.patch_size, self.form, self._dtype)
        masks, first = [], 0
        if self.crop_mode != "overlap-and-resize":
            target, fitted = self._resized(image, (crop, crop), change)
            crops.fill(out[:1], target[None], self.patch_size)
            masks.append(crops.shares(fitted, (crop, crop), 1, 1, crop, crop, self.patch_size))
            first = 1
        if self.crop_mode != "resize":
            size = (rows * window + margin, columns * window + margin)
            target, fitted = self._resized(image, size, change)
            crops.fill(out[first:], crops.cut(target, rows, columns, crop, window), self.patch_size)
            masks.append(crops.shares(fitted, size, rows, columns, crop, window, self.patch_size))
        return PictureBlock(plan=plan, pixels=out, masks=self._masks(masks) if self.image_masks else None)

    def _masks(self, masks: list[np.ndarray]) -> np.ndarray:
        if self.legacy_image_mask and self.crop_mode == "overlap-and-resize-c2":
            return np.concatenate([masks[1], np.full_like(masks[0], -1)])
        return np.concatenate(masks)

    def _resized(self, image: np.ndarray, size: tuple[int, int], change: Change | None) -> tuple[np.ndarray, Fitted]:
        """[*size, 3], and where in it the picture is."""
        resize = _SAME_AS.get(self.resize, self.resize)
        fitted = crops.fit(image.shape[0], image.shape[1], size) if resize in _KEEPS_SHAPE else Fitted(0, 0, *size)
        affine = statistics.affine(self.normalize) if self.pixels == "exact" else None
        pad = (self.pad_value * 255,) * 3
        return render(image, size, fitted, _WAYS[resize], affine=affine, pad=pad, change=change), fitted


_WAYS = {
    "default": Way("bilinear", antialias=True, rounded=False),
    "siglip": Way("bilinear", antialias=False, rounded=True),
    "metaclip": Way("bicubic", antialias=True, rounded=True),
    "dino": Way("bicubic", antialias=True, rounded=True),
}
_KEEPS_SHAPE = {"default"}
