"""Every mode of picture -> gray or RGB of 8 bits.

With alpha `on_white` every kind of picture is handled on purpose:

    RGBA, LA, PA      composited on white, and so is a transparent color of 1, L, P, RGB, I;16 (palettes, tRNS chunks)
    P                 looked up in the palette
    1, L              gray
    I;16, I           gray of 16 bits, scaled to 8 with rounding; I is clipped to 16 bits first; a TIFF of 9 to 15 bits
                      has its white there
    F                 gray; white is 1.0 if no value is above 1.0, else 255; not-a-number is black
    CMYK, YCbCr, HSV  Pillow's plain formula (an Adobe JPEG's inverted CMYK is turned back by Pillow)
    LAB               to sRGB by Pillow's color management
    RGBX              the fourth byte is ignored
    ICC profiles      are not applied, as in the programs that the codebooks come from; nor are gAMA and cHRM of a PNG.
                      With data.color=srgb both are, before all of this, see `profiles`
    16-bit RGB        Pillow reads the high bytes

With alpha `dropped` it is what Pillow's `convert("RGB")` makes of it: alpha is left out, so that hidden colors show,
and gray of more than 8 bits is clipped to 255.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, TiffImagePlugin

from hpcdata.media.rules import Alpha
from hpcdata.samples import BadSample, Reason

_BITS_PER_SAMPLE = 0x0102
_PIXELS_AT_ONCE = 1 << 22
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_CONVERTED = ("P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX")


def flattened(image: Image.Image, alpha: Alpha) -> Image.Image:
    """A decoded picture in mode L or RGB. Raises BadSample or ValueError for a mode that has no such meaning."""
    return image.convert("RGB") if alpha == "dropped" else _flattened_on_white(image)


def _flattened_on_white(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        white, transparent = _white_level(image), image.info.get("transparency")
        return _by_rows(image, lambda values: _eight_bits(values, white, transparent))
    if image.mode == "F":
        top = max((_without_nan(values).max() for values in _rows(image)), default=0.0)
        white_float = 1.0 if top <= 1.0 else 255.0
        return _by_rows(image, lambda values: _eight_bits_of_floats(values, white_float))
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in _CONVERTED:
        return image.convert("RGB")
    raise BadSample(Reason.UNREADABLE_IMAGE, f"pixels of mode {image.mode}")


def _white_level(image: Image.Image) -> int:
    """The largest value of gray of more than 8 bits. Pillow leaves a TIFF's 12 bits unscaled."""
    bits = image.tag_v2.get(_BITS_PER_SAMPLE) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    return 2 ** bits[0] - 1 if isinstance(bits, tuple) and bits and 8 < bits[0] < 16 else 0xFFFF


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


def _eight_bits(values: np.ndarray, white: int, transparent: object) -> np.ndarray:
    if isinstance(transparent, int):
        values = np.where(values == transparent, white, values)
    return ((values.clip(0, white).astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)


def _eight_bits_of_floats(values: np.ndarray, white: float) -> np.ndarray:
    return np.rint(_without_nan(values).clip(0, white) * (255.0 / white)).astype(np.uint8)


def _without_nan(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=0.0)


def _by_rows(image: Image.Image, convert: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """A picture in gray, some rows at a time: the steps between take several times the memory of the picture."""
    gray, start = np.empty((image.height, image.width), np.uint8), 0
    for values in _rows(image):
        gray[start : start + len(values)] = convert(values)
        start += len(values)
    return Image.fromarray(gray)


def _rows(image: Image.Image) -> Iterator[np.ndarray]:
    step = max(1, _PIXELS_AT_ONCE // image.width)
    for top in range(0, image.height, step):
        yield np.asarray(image.crop((0, top, image.width, min(top + step, image.height))))
