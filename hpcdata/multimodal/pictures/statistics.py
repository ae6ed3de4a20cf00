"""Means and deviations that pixels are normalised with, of vision models by name.

openai     CLIP (openai/CLIP), and MetaCLIP
siglip     SigLIP and SigLIP 2: to -1 and 1
imagenet   DINOv2 and what else is trained on ImageNet's
none       from 0 to 1
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch


class Affine(NamedTuple):
    """normalised = v * scale + shift, v from 0 to 255: [3] float32 each."""

    scale: np.ndarray
    shift: np.ndarray


_MEAN_AND_DEVIATION = {
    "openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
NAMES = tuple(_MEAN_AND_DEVIATION)


def affine(kind: str) -> Affine:
    """Raises ValueError for an unknown name."""
    if kind not in _MEAN_AND_DEVIATION:
        raise ValueError(f"statistics {kind!r} are not known, expected one of {', '.join(NAMES)}")
    mean, deviation = np.array(_MEAN_AND_DEVIATION[kind])
    return Affine((1 / (255 * deviation)).astype(np.float32), (-mean / deviation).astype(np.float32))


def mean_color(kind: str) -> tuple[float, float, float]:
    """Of 0 to 255, cut to whole numbers: what is 0, about, when it is normalised."""
    red, green, blue = (float(int(value * 255)) for value in _MEAN_AND_DEVIATION[kind][0])
    return red, green, blue


def normalize(pixels: torch.Tensor, kind: str, *, dtype: torch.dtype | None = None) -> torch.Tensor:
    """uint8 crops of the fast mode -> what a vision model takes, on the device where they are.

    pixels: [..., 3, height, width], or patches [..., values of a patch], rows, columns and channels in this order.
    Floats are normalised already and stay as they are, but for the dtype. dtype: of the result, float32 by default.
    Padding is black before it is normalised, as the exact mode's.
    """
    import torch

    to = torch.float32 if dtype is None else dtype
    if pixels.dtype != torch.uint8:
        return pixels.to(to)
    is_planar = pixels.ndim >= 4 and pixels.shape[-3] == 3
    scale, shift = (torch.from_numpy(part).to(pixels.device) for part in affine(kind))
    if is_planar:
        return torch.addcmul(shift[:, None, None], pixels.float(), scale[:, None, None]).to(to)
    if pixels.shape[-1] % 3:
        raise ValueError(f"expected [..., 3, height, width] or patches of three channels, got {list(pixels.shape)}")
    by_channel = pixels.float().unflatten(-1, (-1, 3))
    return torch.addcmul(shift, by_channel, scale).flatten(-2).to(to)


def as_pixels(images: np.ndarray, kind: str) -> np.ndarray:
    """The inverse for looking at: normalised floats ([..., 3], channels last) -> uint8; uint8 stays."""
    if images.dtype == np.uint8:
        return images
    scale, shift = affine(kind)
    return np.clip(np.rint((np.asarray(images, np.float32) - shift) / scale), 0, 255).astype(np.uint8)
