"""Image bytes -> RGB pixels of a given size, the same on every machine with the same Pillow.

The picture is resized until it covers the size (bilinear, antialiased, up or down), then the center is cropped. Every
kind of picture is handled on purpose:

    orientation       the EXIF or XMP orientation is applied first; one that cannot be read counts as upright
    animation, pages  the first frame or page (of an APNG its default image)
    RGBA, LA, PA      composited on white, and so is a transparent color of 1, L, P, RGB, I;16 (palettes, tRNS chunks)
    P                 looked up in the palette
    1, L              gray
    I;16, I           gray of 16 bits, scaled to 8 with rounding; I is clipped to 16 bits first; a TIFF of 9 to 15 bits
                      has its white there
    F                 gray; white is 1.0 if no value is above 1.0, else 255; not-a-number is black
    CMYK, YCbCr, HSV  Pillow's plain formula (an Adobe JPEG's inverted CMYK is turned back by Pillow)
    LAB               to sRGB by Pillow's color management
    RGBX              the fourth byte is ignored
    ICC profiles      are not applied, as in the programs that the codebooks come from
    16-bit RGB        Pillow reads the high bytes

What does not decode is a `BadSample`, whatever Pillow raises. Only `FORMATS` are opened: those that data sets
hold and that begin with a signature; none that starts another program (EPS) or takes any bytes for a picture (TGA).
"""

from __future__ import annotations

import functools
import io
import logging
import math
import re
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    QoiImagePlugin,
    SgiImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from hpcdata.media.sizes import Size, nearest
from hpcdata.samples import BadSample, Reason

FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,  # MPO files too: the first picture
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        GifImagePlugin.GifImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
        PpmImagePlugin.PpmImageFile,
        Jpeg2KImagePlugin.Jpeg2KImageFile,
        AvifImagePlugin.AvifImageFile,
        QoiImagePlugin.QoiImageFile,
        SgiImagePlugin.SgiImageFile,
    )
)
"""Importing the plugins is what lets Pillow open by these names."""
DRAFT_GAP = 2
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 0x0102
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_TURNED_X = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
)
_TURNED_Y = (
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
)
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_CONVERTED = ("P", "CMYK", "YCbCr", "HSV", "LAB", "RGBX")
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>|0x[0-9a-fA-F]{6,}")
_MAX_MESSAGE = 160


def load_square(data: bytes, *, resolution: int, max_pixels: int) -> np.ndarray:
    """[resolution, resolution, 3] uint8 RGB: `load` with one size."""
    return load(data, sizes=((resolution, resolution),), max_pixels=max_pixels)


def load(data: bytes, *, sizes: Sequence[Size], max_pixels: int, jpeg_draft: bool = False) -> np.ndarray:
    """[height, width, 3] uint8 RGB of the size that is nearest in shape. Safe in several threads with one `max_pixels`.

    jpeg_draft: a large JPEG is decoded at a part of its size, see `_draft`.
    Raises BadSample: EMPTY_IMAGE, OVERSIZED_IMAGE (judged by the header, before anything is decoded), TRUNCATED or
    UNREADABLE_IMAGE. Messages are the same in every run.
    """
    if not data:
        raise BadSample(Reason.EMPTY_IMAGE, "0 bytes")
    _prepare_pillow(max_pixels)
    try:
        with _open(data, max_pixels) as image:
            draft = _draft(image, sizes) if jpeg_draft else None
            image.load()
            upright = _flatten(_upright(image), white=_white_level(image))
            part = draft or _Part(height=upright.height, width=upright.width)
            cropped = _cropped(upright, part, nearest(part.height, part.width, sizes))
    except (BadSample, MemoryError):
        raise
    except Exception as error:
        raise _bad_sample(error) from None
    return np.array(cropped) if cropped.mode == "RGB" else np.repeat(np.asarray(cropped)[:, :, None], 3, axis=2)


def _prepare_pillow(max_pixels: int) -> None:
    """Pillow's process-wide switches; inner pictures of a file are bound by its own check alone."""
    _silence_pillow()
    Image.MAX_IMAGE_PIXELS = max_pixels
    ImageFile.LOAD_TRUNCATED_IMAGES = False


@functools.cache
def _silence_pillow() -> None:
    """What Pillow warns of is a reject here or harmless (odd metadata), and would fill the log."""
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    num_pixels = image.width * image.height
    if num_pixels > max_pixels:
        raise _oversized(num_pixels, max_pixels)
    if not num_pixels:
        raise BadSample(Reason.UNREADABLE_IMAGE, f"{image.width} x {image.height} pixels")
    return image


class _Part(NamedTuple):
    """How much of a picture is decoded. Its sides are rounded up to pixels: right and bottom, before it is turned."""

    height: int
    width: int
    """Of the whole picture, upright."""
    scale: float = 1.0
    turn: Image.Transpose | None = None

    def origin(self, image: Image.Image) -> tuple[float, float]:
        """Where the picture begins in the upright image, x and y: turned, what was rounded up comes first."""
        x = image.width - self.width * self.scale if self.turn in _TURNED_X else 0.0
        y = image.height - self.height * self.scale if self.turn in _TURNED_Y else 0.0
        return x, y


def _draft(image: Image.Image, sizes: Sequence[Size]) -> _Part | None:
    """Has a JPEG decoded at 1/2, 1/4 or 1/8 of its sides, never below `DRAFT_GAP` times what is needed.

    libjpeg then computes fewer pixels of each block (a scaled inverse DCT), and the resize that follows hides most of
    the difference.
    """
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    turn = _turn(image)
    width, height = reversed(image.size) if turn in _SIDEWAYS else image.size
    size, whole_width = nearest(height, width, sizes), image.width
    needed = DRAFT_GAP * max(size[0] / height, size[1] / width)
    drafted = image.draft(None, (math.ceil(image.width * needed), math.ceil(image.height * needed)))
    return _Part(height, width, drafted[1][2] / whole_width, turn) if drafted else None


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:
        return None
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _white_level(image: Image.Image) -> int:
    """The largest value of gray of more than 8 bits. Pillow leaves a TIFF's 12 bits unscaled."""
    bits = image.tag_v2.get(_BITS_PER_SAMPLE) if isinstance(image, TiffImagePlugin.TiffImageFile) else None
    return 2 ** bits[0] - 1 if isinstance(bits, tuple) and bits and 8 < bits[0] < 16 else 0xFFFF


def _flatten(image: Image.Image, white: int) -> Image.Image:
    """The picture in mode L or RGB, by the table above."""
    if image.mode in _SIXTEEN_BIT:
        return Image.fromarray(_eight_bits(np.asarray(image), white, image.info.get("transparency")))
    if image.mode == "F":
        return Image.fromarray(_eight_bits_of_floats(np.asarray(image)))
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in _CONVERTED:
        return image.convert("RGB")
    raise BadSample(Reason.UNREADABLE_IMAGE, f"pixels of mode {image.mode}")


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


def _eight_bits_of_floats(values: np.ndarray) -> np.ndarray:
    values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=0.0)
    white = 1.0 if values.max() <= 1.0 else 255.0
    return np.rint(values.clip(0, white) * (255.0 / white)).astype(np.uint8)


def _cropped(image: Image.Image, part: _Part, size: Size) -> Image.Image:
    """Resizes only what the crop keeps: a strip of 1 x 100,000 pixels is not blown up to its full length first."""
    height, width = size
    if image.size == (width, height):
        return image
    if width * part.height >= height * part.width:  # the width is resized to fit, the height is cut
        resized = width, width * part.height // part.width
    else:
        resized = height * part.width // part.height, height
    x, y = part.origin(image)
    left, right = (x + place * part.scale for place in _kept(part.width, resized[0], width))
    top, bottom = (y + place * part.scale for place in _kept(part.height, resized[1], height))
    return image.resize((width, height), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def _kept(side: int, resized: int, shown: int) -> tuple[float, float]:
    """The part of a side, in source pixels, that the center crop of the resized picture shows.

    Rounds as torchvision's Resize and CenterCrop: the long side down, the margin half to even.
    """
    scale = side / resized
    margin = round((resized - shown) / 2)
    return margin * scale, min((margin + shown) * scale, side)


def _oversized(num_pixels: int | str, max_pixels: int | None) -> BadSample:
    return BadSample(Reason.OVERSIZED_IMAGE, f"the header promises {num_pixels} pixels, the limit is {max_pixels}")


def _bad_sample(error: Exception) -> BadSample:
    message = " ".join(_ADDRESS.sub("the data", str(error)).split())[:_MAX_MESSAGE]
    if isinstance(error, Image.DecompressionBombError):
        promised = re.search(r"\d+", message)
        return _oversized(promised[0] if promised else "more", Image.MAX_IMAGE_PIXELS)
    if isinstance(error, Image.UnidentifiedImageError):
        return BadSample(Reason.UNREADABLE_IMAGE, "not in a known image format")
    is_cut = isinstance(error, EOFError) or "truncated" in message.lower()
    reason = Reason.TRUNCATED if is_cut else Reason.UNREADABLE_IMAGE
    return BadSample(reason, f"{type(error).__name__}: {message}")
