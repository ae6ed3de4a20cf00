"""The size of a picture from its header: what `opening.open_image` makes of it has this shape. Nothing is decoded.

The exception is a PNG that says its orientation behind its pixels: whether one does is read from its chunks, and then
it is decoded. What only decoding finds (missing pixels, damaged data) is not found.
"""

from __future__ import annotations

import io

from PIL import Image

from hpcdata.media import formats, orientation
from hpcdata.media.rules import WHITE, Rule

BEGINNING_BYTES = 1 << 16
"""Enough for the header of most JPEGs, with their profile and thumbnail."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_METADATA = (b"eXIf", b"iTXt", b"zTXt", b"tEXt")
"""Chunks of a PNG in which an orientation may stand."""


def upright_size(data: bytes, *, max_pixels: int, rule: Rule = WHITE) -> tuple[int, int]:
    """(height, width) of a picture file after it is turned as the rule says. Raises BadSample, see `formats.opened`."""
    with formats.opened(data, max_pixels) as image:
        if data.startswith(_PNG) and _has_metadata_behind_pixels(data):
            image.load()
        return _turned(image, rule)


def size_of_beginning(beginning: bytes, *, max_pixels: int, rule: Rule = WHITE) -> tuple[int, int] | None:
    """The same of a JPEG whose header lies in its first bytes; None where more of the file has to be read."""
    if not beginning.startswith(_JPEG) or not _has_scan(beginning):
        return None
    return upright_size(beginning, max_pixels=max_pixels, rule=rule)


def _turned(image: Image.Image, rule: Rule) -> tuple[int, int]:
    width, height = image.size
    turn = orientation.turn_of_opened(image, rule.turned)
    return (width, height) if turn in orientation.SIDEWAYS else (height, width)


def _has_scan(data: bytes) -> bool:
    """Whether a JPEG's segments lead to its first scan within these bytes."""
    place = 2
    while len(data) >= place + 4:
        if data[place] != 0xFF:
            return False
        marker = data[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == 0xDA:
            return len(data) >= place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:  # no segment of ours: Pillow may say what it is
            return False
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return False


def _has_metadata_behind_pixels(data: bytes) -> bool:
    stream, has_pixels = io.BytesIO(data), False
    stream.seek(len(_PNG))
    while len(head := stream.read(8)) == 8:
        kind = head[4:]
        if has_pixels and kind in _METADATA:
            return True
        has_pixels = has_pixels or kind in (b"IDAT", b"fdAT")
        stream.seek(int.from_bytes(head[:4]) + 4, io.SEEK_CUR)
    return False
