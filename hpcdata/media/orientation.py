"""The rule for EXIF orientation: which way a picture is turned so that it stands upright.

The orientation comes from EXIF, or from XMP where EXIF has none; one that cannot be read counts as upright. Turning
moves pixels and changes none: before or after a conversion of colors makes no difference by itself. What differs is
which orientation Pillow finds.

    first              the file's own
    after_conversion   the one that `ImageOps.exif_transpose` follows for the converted picture: none if the EXIF cannot
                       be written again, for which that function raises
    never              none
"""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image, ImageOps

from hpcdata.media.rules import Turned

_ORIENTATION = 0x0112
_TURNS: Mapping[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
"""Turns that exchange height and width."""
TURNED_X = (
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
)
"""Turns after which the right edge is one of the stored picture's first edges."""
TURNED_Y = (
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.ROTATE_180,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
)
"""The same of the bottom edge."""


def turn_of(image: Image.Image, turned: Turned) -> Image.Transpose | None:
    """How an opened picture has to be turned. A PNG may say it behind its pixels: have it decoded first."""
    if turned == "never":
        return None
    try:
        return _own(image) if turned == "first" else _followed(image)
    except Exception:
        return None


def turn_of_opened(image: Image.Image, turned: Turned) -> Image.Transpose | None:
    """The same by what is known before it is decoded. Of a TIFF, which Pillow turns itself, the size is known so."""
    if turned == "never" or image.format == "TIFF":
        return None
    try:
        if turned == "first":
            orientation = Image.Image.getexif(image).get(_ORIENTATION)  # that of a PNG would decode it
            return _TURNS.get(orientation) if isinstance(orientation, int) else None
        return _followed(image)
    except Exception:
        return None


def _own(image: Image.Image) -> Image.Transpose | None:
    orientation = image.getexif().get(_ORIENTATION)
    return _TURNS.get(orientation) if isinstance(orientation, int) else None


def _followed(image: Image.Image) -> Image.Transpose | None:
    """Tried with a picture of one pixel that has the same metadata: whether it raises depends on these alone."""
    converted = Image.new("RGB", (1, 1))
    converted.info = dict(image.info)
    ImageOps.exif_transpose(converted)
    return _TURNS.get(converted.getexif().get(_ORIENTATION))
