"""Pixels -> small JPEGs for pages."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def to_jpeg(pixels: np.ndarray, longest: int) -> bytes:
    """pixels: [height, width, 3] uint8; its long side becomes `longest` pixels at most, its short one at least 1."""
    image = Image.fromarray(pixels)
    scale = longest / max(image.size)
    if scale < 1:
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
