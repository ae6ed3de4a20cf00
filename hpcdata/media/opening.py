"""A picture at its full size: decoded, upright as its rule says, in RGB."""

from __future__ import annotations

import numpy as np
from PIL import Image

from hpcdata.media import colors, formats, jpeg, orientation, profiles, turns
from hpcdata.media.rules import WHITE, Rule


def open_image(data: bytes, *, max_pixels: int, rule: Rule = WHITE) -> np.ndarray:
    """[height, width, 3] uint8 RGB, contiguous. Safe in several threads with one `max_pixels`.

    Raises BadSample, see `formats.opened`.
    """
    data = jpeg.ended(data, rule)
    with formats.opened(data, max_pixels) as image, turns.turn(image, data, max_pixels):
        is_as_stored = rule.color == "ignore" or profiles.find_correction(image) is None
        is_upright_jpeg = image.format == jpeg.FORMAT and orientation.turn_of(image, rule.turned) is None
        array = jpeg.decoded(data, image) if is_upright_jpeg and is_as_stored else None
        return as_rgb(np.array(upright(image, rule)) if array is None else array)


def upright(image: Image.Image, rule: Rule) -> Image.Image:
    """An opened picture, decoded, turned, in mode L or RGB."""
    image.load()
    flat = colors.flattened(profiles.to_srgb(image, rule.color), rule.alpha)
    turn = orientation.turn_of(image, rule.turned)
    return flat if turn is None else flat.transpose(turn)


def as_rgb(array: np.ndarray) -> np.ndarray:
    """[H, W, 3] of such an array, or of one in gray: [H, W]."""
    return array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2)
