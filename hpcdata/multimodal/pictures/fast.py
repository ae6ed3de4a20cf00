"""Resizing in uint8, for the fast mode: torch's antialiased kernels, or Pillow's, which make nearly the same."""

from __future__ import annotations

from typing import Literal

import numpy as np


def settings() -> dict[str, object]:
    """What the fast mode does otherwise than the exact one, for states and plans."""
    return {"dtype": "uint8", "antialias": True}


def resized(image: np.ndarray, size: tuple[int, int], kernel: Literal["bilinear", "bicubic"]) -> np.ndarray:
    """[H, W, 3] uint8 -> [*size, 3] uint8, antialiased whatever the exact mode does."""
    import torch

    if image.shape[:2] == size:
        return image
    planar = torch.from_numpy(image).permute(2, 0, 1)[None]
    made = torch.nn.functional.interpolate(planar, size, mode=kernel, antialias=True, align_corners=False)
    return np.ascontiguousarray(made[0].permute(1, 2, 0).numpy())
