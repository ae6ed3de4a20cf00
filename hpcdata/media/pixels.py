"""Image bytes -> RGB pixels of a given size, the same on every machine with the same Pillow.

The picture is turned upright, its colors become RGB, it is resized until it covers the size, and the center is cropped.
How each of these is done says a named rule: `rules` has their table, `colors` the one of modes. Of an animation or of
several pages the first frame counts (of an APNG its default image).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hpcdata.media import formats, jpeg, orientation, profiles, turns
from hpcdata.media.drafts import Part, draft
from hpcdata.media.opening import as_rgb, upright
from hpcdata.media.resizing import covered
from hpcdata.media.rules import WHITE, Rule
from hpcdata.media.sizes import Size, nearest
from hpcdata.samples import BadSample, Reason


@dataclass
class Noted:
    """What is counted of the pictures that were loaded."""

    unapplied_profiles: int = 0


def load_square(data: bytes, *, resolution: int, max_pixels: int) -> np.ndarray:
    """[resolution, resolution, 3] uint8 RGB: `load` with one size."""
    return load(data, sizes=((resolution, resolution),), max_pixels=max_pixels)


def load(
    data: bytes,
    *,
    sizes: Sequence[Size],
    max_pixels: int,
    jpeg_draft: bool = False,
    rule: Rule = WHITE,
    max_aspect: float | None = None,
    noted: Noted | None = None,
) -> np.ndarray:
    """[height, width, 3] uint8 RGB of the size that is nearest in shape. Safe in several threads with one `max_pixels`.

    jpeg_draft: a large JPEG is decoded at a part of its size, see `drafts`. max_aspect: the most that the longer side
    may be times the shorter one. noted: is told of profiles that are not applied.
    Raises BadSample, see `formats.opened`, or ASPECT_RATIO before anything is decoded.
    """
    data = jpeg.ended(data, rule)
    with formats.opened(data, max_pixels) as image:
        _require_shape(image, max_aspect)
        drafted = draft(image, sizes, rule.turned) if jpeg_draft else None
        with turns.turn(image, data, max_pixels):
            return _covering(image, drafted, sizes, rule, noted)


def require_decodable(data: bytes, *, max_pixels: int, max_aspect: float | None = None) -> None:
    """Raises BadSample as `load` does. Of usual JPEGs no pixel is computed, see `jpeg.is_in_order`."""
    if is_plain_jpeg(data, max_pixels=max_pixels, max_aspect=max_aspect):
        return
    data = jpeg.ended(data, WHITE)
    with formats.opened(data, max_pixels) as image:
        _require_shape(image, max_aspect)
        with turns.turn(image, data, max_pixels):
            is_as_stored = WHITE.color == "ignore" or profiles.find_correction(image) is None
            is_upright_jpeg = image.format == jpeg.FORMAT and orientation.turn_of(image, WHITE.turned) is None
            if not (is_as_stored and is_upright_jpeg and jpeg.is_in_order(data, image)):
                upright(image, WHITE)


def is_plain_jpeg(data: bytes, *, max_pixels: int, max_aspect: float | None = None) -> bool:
    """Whether `require_decodable` is sure to raise nothing, as far as that is seen in less than half a millisecond."""
    if (size := jpeg.plain_size(data)) is None or not formats.has_few_parts(data):
        return False
    most = min(max_pixels, formats.SMALL_PIXELS)
    return size[0] * size[1] <= most and (max_aspect is None or max(size) <= max_aspect * min(size))


def _require_shape(image: Image.Image, max_aspect: float | None) -> None:
    """By the sides of the file: it does not matter which way the picture is turned."""
    if max_aspect is not None and max(image.size) > max_aspect * min(image.size):
        message = f"{image.width} x {image.height} pixels: the longer side is more than {max_aspect:g} times the other"
        raise BadSample(Reason.ASPECT_RATIO, message)


def _covering(
    image: Image.Image, drafted: Part | None, sizes: Sequence[Size], rule: Rule, noted: Noted | None
) -> np.ndarray:
    """A function of its own, so that a large picture does not outlive its turn."""
    picture = upright(image, rule)
    if noted is not None:
        noted.unapplied_profiles += profiles.is_unapplied(image, rule.color)
    part = drafted or Part(height=picture.height, width=picture.width)
    return as_rgb(np.array(covered(picture, part, nearest(part.height, part.width, sizes), rule)))
