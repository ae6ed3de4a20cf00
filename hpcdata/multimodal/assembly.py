"""Texts and blocks of pictures -> the arrays of an example, see `preprocessor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcdata.multimodal.texts.layout import Texts
from hpcdata.multimodal.values import PictureBlock


def arrays_of_texts(texts: Texts) -> dict[str, Any]:
    made: dict[str, Any] = {
        "input_ids": texts.input_ids,
        "labels": texts.labels,
        "loss_masks": texts.loss_masks,
        "position_ids": texts.position_ids,
    }
    return made if texts.subsegment_ids is None else made | {"subsegment_ids": texts.subsegment_ids}


def arrays_of_pictures(starts: Sequence[int], blocks: Sequence[PictureBlock], output: str) -> dict[str, np.ndarray]:
    """starts: where the first token of each picture stands."""
    if not blocks:
        return {}
    inputs = [_shifted(block.plan.image_input_idx, start) for block, start in zip(blocks, starts, strict=True)]
    pixels = [block.pixels for block in blocks]
    made = {"images": pixels[0] if len(pixels) == 1 else np.concatenate(pixels)}
    if grids := [block.plan.grid_thw for block in blocks if block.plan.grid_thw is not None]:
        made["image_grid_thw"] = np.array(grids, np.int64)
    masks = [block.masks for block in blocks if block.masks is not None]
    if masks:
        made["image_masks"] = np.concatenate(masks)
    if output == "images":
        return made | {"image_input_idx": np.concatenate([_first_places(its) for its in inputs])}
    width = max(its.shape[1] for its in inputs)
    made["image_input_idx"] = np.concatenate([_widened(its, width) for its in inputs])
    pooled, patches = [], 0
    for block in blocks:
        pooled.append(_shifted(block.plan.pooled_patches_idx, patches))
        patches += block.plan.num_crops * block.pixels.shape[1]
    return made | {"pooled_patches_idx": np.concatenate(pooled)}


def _shifted(indices: np.ndarray, by: int) -> np.ndarray:
    """int64; -1 stays -1."""
    return np.where(indices < 0, -1, indices.astype(np.int64) + by)


def _first_places(indices: np.ndarray) -> np.ndarray:
    """[crops, cells] -> [crops]: the first place of each, -1 where it has none."""
    none = np.iinfo(np.int64).max
    first = np.where(indices < 0, none, indices).min(axis=1, initial=none)
    return np.where(first == none, -1, first)


def _widened(indices: np.ndarray, width: int) -> np.ndarray:
    return np.pad(indices, ((0, 0), (0, width - indices.shape[1])), constant_values=-1)
