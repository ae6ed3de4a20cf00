"""What the originals do with a picture, step by step as shared/MOLMO.md 4 describes it: Pillow, torch, float32, NumPy.

The steps and their order are theirs, so that the cost is: every picture is converted to float32 for each resize,
padded, masked and normalised by itself, and copied into patches. torchvision's `resize` of a tensor is `interpolate`.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
_MARGIN, _PATCH = 8, 14


def load(data: bytes) -> np.ndarray:
    ImageFile.LOAD_TRUNCATED_IMAGES, before = True, ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return np.array(ImageOps.exif_transpose(image))
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def patches(image: np.ndarray, grid: tuple[int, int], crop: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """[crops, patches, 588] float32 and masks [crops, patches] of the global crop and the grid's tiles."""
    whole, whole_mask = _resize(image, (crop, crop), kind)
    window = crop - _MARGIN * _PATCH
    size = (grid[0] * window + _MARGIN * _PATCH, grid[1] * window + _MARGIN * _PATCH)
    target, mask = _resize(image, size, kind)
    whole, target = _normalize(whole, kind), _normalize(target, kind)
    places = [(row * window, column * window) for row in range(grid[0]) for column in range(grid[1])]
    tiles = np.stack([target[y : y + crop, x : x + crop] for y, x in places])
    masks = np.stack([mask[y : y + crop, x : x + crop] for y, x in places])
    made = np.concatenate([_split(whole[None]), _split(tiles)])
    masks_of_patches = np.concatenate([_split(whole_mask[None, ..., None]), _split(masks[..., None])])
    return made, masks_of_patches.astype(np.float32).mean(axis=-1)


def _resize(image: np.ndarray, size: tuple[int, int], kind: str) -> tuple[np.ndarray, np.ndarray]:
    planar = torch.permute(torch.from_numpy(image), [2, 0, 1])
    if kind == "siglip":
        resized = torch.nn.functional.interpolate(planar[None].to(torch.float32), size, mode="bilinear")[0]
        values = torch.round(resized).to(torch.uint8).to(torch.float32) / 255
        return values.permute(1, 2, 0).numpy(), np.ones(size, bool)
    scale = min(np.float32(side) / np.float32(own) for side, own in zip(size, image.shape[:2], strict=True))
    high, wide = (int(np.float32(own) * scale) for own in image.shape[:2])
    floats = planar.to(torch.float32) / 255
    resized = torch.nn.functional.interpolate(floats[None], (high, wide), mode="bilinear", antialias=True)[0]
    values = torch.clip(resized, 0.0, 1.0).permute(1, 2, 0).numpy()
    top, left = (size[0] - high) // 2, (size[1] - wide) // 2
    around = [[top, size[0] - high - top], [left, size[1] - wide - left]]
    return np.pad(values, [*around, [0, 0]]), np.pad(np.ones((high, wide), bool), around)


def _normalize(values: np.ndarray, kind: str) -> np.ndarray:
    if kind == "siglip":
        return values * np.float32(2) - np.float32(1)
    values = values - _MEAN
    values /= _DEVIATION
    return values


def _split(crops: np.ndarray) -> np.ndarray:
    number, side, _, channels = crops.shape
    split = crops.reshape(number, side // _PATCH, _PATCH, side // _PATCH, _PATCH, channels)
    return split.transpose(0, 1, 3, 2, 4, 5).reshape(number, -1, _PATCH * _PATCH * channels)
