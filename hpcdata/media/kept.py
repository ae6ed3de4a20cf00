"""Pictures that stay files: whether they can be decoded, and a PNG of the same pixels for those of rare kinds."""

from __future__ import annotations

import io

from PIL import Image

from hpcdata.media import formats, jpeg, turns

_SMALLEST = (1, 1)
_MODES = frozenset(("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"))
"""What a PNG holds; pictures of other modes (CMYK, floats, YCbCr) become RGB."""
_MEANING = ("icc_profile", "exif", "transparency")
"""What says how the pixels are meant, and is written with them: they are neither turned nor changed in color."""


def check(data: bytes, *, max_pixels: int) -> None:
    """Reads the picture to its end. Safe in several threads with one `max_pixels`.

    Every bit of a JPEG is read, and no pixel computed, or of some kinds an eighth of its sides: that takes a quarter of
    the time, or half of it. Raises BadSample, see `formats.opened`.
    """
    with formats.opened(data, max_pixels) as image, turns.turn(image, data, max_pixels):
        if jpeg.is_in_order(data, image):
            return
        image.draft(None, _SMALLEST)
        image.load()


def as_png(data: bytes, *, max_pixels: int) -> bytes:
    """The first frame as PNG, without loss; the same bytes wherever Pillow and its zlib are the same.

    Raises BadSample, see `formats.opened`.
    """
    with formats.opened(data, max_pixels) as image, turns.turn(image, data, max_pixels):
        image.load()
        picture = _storable(image)
        names = _MEANING if picture.mode == image.mode else ("exif",)  # a profile of CMYK is none of RGB
        out = io.BytesIO()
        picture.save(out, "PNG", **{name: image.info[name] for name in names if image.info.get(name) is not None})
        return out.getvalue()


def _storable(image: Image.Image) -> Image.Image:
    if image.mode in _MODES:
        return image
    return image.convert("I" if image.mode.startswith("I;16") else "RGB")
