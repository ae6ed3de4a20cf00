"""A picture preprocessor that tests can calculate in their heads: a picture becomes squares of 8 pixels.

A picture is a global crop and a tile for each 8 x 8 pixels, rows first, as many as `max_crops` allows. A crop has four
patches of 4 x 4 pixels: one token each, between a start and an end. Pixels of a crop are its number.
"""

from __future__ import annotations

import numpy as np

from hpcdata.multimodal.texts.words import Words
from hpcdata.multimodal.values import BlockPlan, PictureBlock

SIDE = 8


class Squares:
    def __init__(self, words: Words, max_crops: int = 5, *, masks: bool = False, patches: bool = False) -> None:
        self.max_crops = self.most_crops = max_crops
        self._masks, self._patches = masks, patches
        self._ids = [words.special(token) for token in ("<im_start>", "<im_patch>", "<im_end>")]

    def settings(self) -> dict[str, object]:
        return {"pictures": "squares", "max_crops": self.max_crops}

    def plan(self, height: int, width: int, *, max_crops: int | None = None) -> BlockPlan:
        tiles = -(-height // SIDE) * -(-width // SIDE)
        crops = min(1 + tiles, self.max_crops, max_crops or self.max_crops)
        start, patch, end = self._ids
        tokens = np.array(([start] + [patch] * 4 + [end]) * crops, np.int32)
        return BlockPlan(
            tokens=tokens,
            num_crops=crops,
            pooled_patches_idx=np.arange(4 * crops, dtype=np.int32)[:, None],
            image_input_idx=np.flatnonzero(tokens == patch).reshape(crops, 4).astype(np.int32),
        )

    def rooms(self, sizes: np.ndarray, *, max_crops: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        plans = [self.plan(height, width, max_crops=max_crops) for height, width in sizes.tolist()]
        lengths = [(len(plan.tokens), plan.num_crops, len(plan.pooled_patches_idx)) for plan in plans]
        tokens, crops, pooled = np.array(lengths, np.int64).reshape(-1, 3).T
        return tokens, crops, pooled

    def crops_as_pixels(self, images: np.ndarray) -> np.ndarray:
        return np.moveaxis(images.reshape(-1, 3, SIDE, SIDE), 1, -1).astype(np.uint8)

    def __call__(
        self,
        image: np.ndarray,
        rng: np.random.RandomState | None = None,
        *,
        is_training: bool = False,
        max_crops: int | None = None,
        keeps_places: bool = False,
    ) -> PictureBlock:
        plan = self.plan(image.shape[0], image.shape[1], max_crops=max_crops)
        pixels = np.zeros((plan.num_crops, 3, SIDE, SIDE), np.float32) + np.arange(plan.num_crops)[:, None, None, None]
        pixels = pixels.reshape(plan.num_crops, 4, -1) if self._patches else pixels
        return PictureBlock(
            plan=plan, pixels=pixels.astype(np.float32), masks=np.ones((plan.num_crops, 4)) if self._masks else None
        )
