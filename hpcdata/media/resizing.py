"""Pictures of other sizes: kernels, the rounding of sides, the center crop.

Resized until it covers the size, then cropped to its center. How the long side and the margin before the crop are
rounded is part of a rule:

    integers   long side: size * long // short; margin: half of the rest, half to even: torchvision's Resize, CenterCrop
    floats     long side: int(long / (short / size)) in double precision, margin: rest // 2: Liquid's. Where that makes
               the short side smaller than the size (never at 256, 512 or 1024 pixels), it is the size
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from hpcdata.media.drafts import Part
from hpcdata.media.rules import Kernel, Rounding, Rule
from hpcdata.media.sizes import Size

_KERNELS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MOST_RESIZED = 2
"""Resized pixels for a pixel of the crop up to which a rule in floats resizes the whole picture: the shapes that Liquid
keeps. Of others the crop alone is resized."""


def resize(array: np.ndarray, size: Size, kernel: Kernel) -> np.ndarray:
    """[H, W, 3] uint8 -> [*size, 3] uint8, to height and width as they are given: shapes are not kept."""
    return np.array(Image.fromarray(array).resize(size[::-1], _KERNELS[kernel]))


def covered(image: Image.Image, part: Part, size: Size, rule: Rule) -> Image.Image:
    """The center of the picture in this size. part: what `image` shows, for a draft."""
    height, width = size
    if image.size == (width, height):
        return image
    resized = _covering(part.height, part.width, size, rule.rounding)
    top, left = (_margin(side - shown, rule.rounding) for side, shown in zip(resized, size, strict=True))
    is_moderate = resized[0] * resized[1] <= _MOST_RESIZED * height * width
    if rule.rounding == "floats" and part.scale == 1 and is_moderate:
        whole = image.resize(resized[::-1], _KERNELS[rule.kernel])
        return whole.crop((left, top, left + width, top + height))
    x, y = part.origin(image)
    x0, x1 = (x + place * part.scale for place in _kept(part.width, resized[1], left, width))
    y0, y1 = (y + place * part.scale for place in _kept(part.height, resized[0], top, height))
    return image.resize((width, height), _KERNELS[rule.kernel], box=(x0, y0, x1, y1))


def _covering(height: int, width: int, size: Size, rounding: Rounding) -> Size:
    """The whole picture's size when one side fits and the other sticks out."""
    if rounding == "floats":
        factor = min(height / size[0], width / size[1])
        return max(size[0], int(height / factor)), max(size[1], int(width / factor))
    if size[1] * height >= size[0] * width:  # the width is resized to fit, the height is cut
        return size[1] * height // width, size[1]
    return size[0], size[0] * width // height


def _margin(rest: int, rounding: Rounding) -> int:
    return rest // 2 if rounding == "floats" else round(rest / 2)


def _kept(side: int, resized: int, margin: int, shown: int) -> tuple[float, float]:
    """The part of a side, in source pixels, that the crop of the resized picture shows.

    With it only this part is resized: a strip of 1 x 100,000 pixels is not blown up to its full length first.
    """
    scale = side / resized
    return margin * scale, min((margin + shown) * scale, side)
