"""JPEGs decoded to arrays by simplejpeg (`pip install 'hpcdata[fast]'`), where it makes the same bytes as Pillow.

Both are libjpeg-turbo. What simplejpeg saves are Pillow's four bytes a pixel and their copy to an array: for pictures
that are wanted whole, see tests/benchmarks/pictures.py. Where Pillow resizes or turns the picture, nothing is saved.
Pillow stays the reference: it reads every header, and it decodes whatever is not sure to become the same.

- On first use both decode a set of small JPEGs. One differing byte, and Pillow decodes everything in this process.
- simplejpeg is given only kinds of JPEGs that this set has: baseline and progressive, gray or three colors, the usual
  subsamplings, 8 bits. CMYK, several pictures in a file and arithmetic coding are Pillow's.
- simplejpeg decodes strictly: anything that libjpeg warns of, such as missing data, is left to Pillow, which makes the
  pixels or the reject.
"""

from __future__ import annotations

import io
import itertools
import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from hpcdata.media.rules import Rule
from hpcdata.native import jpegs

_logger = logging.getLogger(__name__)

FORMAT = "JPEG"
"""As Pillow calls it; files of several pictures (MPO) have another name."""
_FRAMES = {0xC0: False, 0xC1: False, 0xC2: True}
"""Marker of a frame header with Huffman codes -> whether it is progressive."""
_BEFORE_FRAMES = {0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}
"""Markers of the segments that may stand before it: tables, comments, metadata."""
_PLAIN = {0xC0, 0xC1, 0xC4, 0xDB, 0xDD, 0xFE}
"""Of a header that says nothing but how its picture is coded, beside one segment of JFIF."""
_JFIF, _SOS = re.compile(rb"\xff\xe0\x00\x10JFIF\x00"), 0xDA
_BEGINNING, _START_OF_SCAN, _END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_SMALL = 8
"""Of how many pixels one is computed where only an error matters."""
_PROBE_SIZES = ((64, 48), (33, 17), (7, 130))
_PROBE_QUALITIES = (40, 95)
_PROBE_COLORS = ({"subsampling": "4:4:4"}, {"subsampling": "4:2:2"}, {"subsampling": "4:2:0"}, {"keep_rgb": True})

Decode = Callable[[bytes, str], np.ndarray]
"""(file, `RGB` or `GRAY`) -> [H, W, 3 or 1] uint8. Raises for what is not in order."""


class Kind(NamedTuple):
    is_progressive: bool
    sampling: tuple[int, ...]
    """Of each component: horizontal factor * 16 + vertical factor."""


class Decoder(NamedTuple):
    decode: Decode
    kinds: frozenset[Kind]
    decode_small: Decode
    """An eighth of the sides."""


def decoded(data: bytes, image: Image.Image) -> np.ndarray | None:
    """[H, W, 3] or, of a gray picture, [H, W] uint8: what `image.load()` would make. None: leave it to Pillow.

    image: the file's picture as Pillow opened it, nothing decoded yet.
    """
    if image.format != FORMAT or (decoder := the_decoder()) is None:
        return None
    kind, size = _described(data)
    if kind not in decoder.kinds or size != image.size or image.mode != _mode(kind):
        return None
    try:
        array = decoder.decode(data, "GRAY" if image.mode == "L" else "RGB")
    except MemoryError:
        raise
    except Exception:  # whatever it is: Pillow decodes it, or says what is wrong
        return None
    if array.shape[:2] != size[::-1]:
        return None
    return array[:, :, 0] if image.mode == "L" else array


def is_in_order(data: bytes, image: Image.Image) -> bool:
    """Whether all of a JPEG is known to be read without any complaint. If not, it is left to Pillow, as in `decoded`.

    That needs no pixels: of the usual kinds the codes are walked over (hpcdata/native/jpegs.c), in half the time of a
    decoder. Where there are no compiled loops, and of other kinds, simplejpeg decodes it.
    """
    if image.format != FORMAT:
        return False
    loops = jpegs.loops()
    if loops is not None and (walked := loops.walk(data)) is not None:
        return walked == (*image.size, len(image.getbands()))
    if (decoder := the_decoder()) is None:
        return False
    kind, size = _described(data)
    if kind not in decoder.kinds or size != image.size or image.mode != _mode(kind):
        return False
    try:
        decoder.decode_small(data, "GRAY" if image.mode == "L" else "RGB")
    except MemoryError:
        raise
    except Exception:
        return False
    return True


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a small baseline JPEG that is in order and has no metadata: no Exif, no profile. Else None.

    Pillow would open it without a complaint, which takes longer than all that is done here.
    """
    if len(data) > jpegs.FEW_BYTES or not data.startswith(_BEGINNING) or (loops := jpegs.loops()) is None:
        return None
    place = 2
    while len(data) >= place + 4 and data[place] == 0xFF and (marker := data[place + 1]) != _SOS:
        if marker not in _PLAIN and not _JFIF.match(data, place):
            return None
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    walked = loops.walk(data)
    return walked[:2] if walked is not None else None


def ended(data: bytes, rule: Rule) -> bytes:
    """With one more mark of the end where the rule takes truncated JPEGs: their decoder then fills what is missing."""
    return data + _END if rule.truncated == "gray" and data.startswith(_BEGINNING) else data


_probing = threading.Lock()
_found: list[Decoder | None] = []
"""The decoder of this process, once it was looked for."""


def the_decoder() -> Decoder | None:
    """simplejpeg, if it is there and makes the same bytes as Pillow: tried once a process."""
    with _probing:
        if not _found:
            _found.append(_tried())
        return _found[0]


def _tried() -> Decoder | None:
    try:
        import simplejpeg
    except ImportError:
        _logger.info("JPEGs are decoded by Pillow alone: pip install 'hpcdata[fast]' for a faster decoder")
        return None

    def decode(data: bytes, colorspace: str) -> np.ndarray:
        array: np.ndarray = simplejpeg.decode_jpeg(data, colorspace=colorspace, strict=True)
        return array

    def decode_small(data: bytes, colorspace: str) -> np.ndarray:
        small = {"min_height": 1, "min_width": 1, "min_factor": _SMALL}
        array: np.ndarray = simplejpeg.decode_jpeg(data, colorspace=colorspace, strict=True, **small)
        return array

    try:
        return Decoder(decode, frozenset(_compared(data, decode) for data in _probes()), decode_small)
    except Exception as error:
        _logger.warning(
            "JPEGs are decoded by Pillow alone: simplejpeg fails at a test picture (%s)",
            " ".join(str(error).split())[:120],
        )
        return None


def _compared(data: bytes, decode: Decode) -> Kind:
    """The kind of a test picture. Raises ValueError if both do not decode it to the same bytes."""
    kind, _ = _described(data)
    with Image.open(io.BytesIO(data), formats=(FORMAT,)) as image:
        ours, theirs = np.asarray(image), decode(data, "GRAY" if image.mode == "L" else "RGB")
    if kind is None or theirs.dtype != np.uint8 or ours.tobytes() != theirs.tobytes():
        raise ValueError(f"other pixels than Pillow's for {kind}, {ours.shape[1]} x {ours.shape[0]}")
    return kind


def _probes() -> Iterator[bytes]:
    """Small JPEGs of every kind; the progressive ones also without their last scans, which libjpeg smooths over."""
    for (width, height), quality, progressive in itertools.product(_PROBE_SIZES, _PROBE_QUALITIES, (False, True)):
        values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        values[: height // 2] = np.linspace(0, 255, 3 * width, dtype=np.uint8).reshape(width, 3)
        color = Image.fromarray(values)
        files = [_file(color.convert("L"), quality=quality, progressive=progressive)]
        files += [_file(color, quality=quality, progressive=progressive, **options) for options in _PROBE_COLORS]
        yield from files
        if progressive:
            yield from (_START_OF_SCAN.join(data.split(_START_OF_SCAN)[:3]) + _END for data in files)


def _file(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, FORMAT, **options)
    return buffer.getvalue()


def _mode(kind: Kind) -> str:
    return "L" if len(kind.sampling) == 1 else "RGB"


def _described(data: bytes) -> tuple[Kind | None, tuple[int, int]]:
    """Kind, and width and height, by the frame header of a JPEG of 8 bits; no kind of anything else."""
    place = 2
    while len(data) >= place + 10 and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if marker in _FRAMES:
            return _frame(_FRAMES[marker], data[place + 4 : place + 2 + length])
        if marker not in _BEFORE_FRAMES or length < 2:
            break
        place += 2 + length
    return None, (0, 0)


def _frame(is_progressive: bool, header: bytes) -> tuple[Kind | None, tuple[int, int]]:
    """The same of the bytes behind a frame header's length: bits, height, width, number of components, these."""
    height, width, sampling = int.from_bytes(header[1:3]), int.from_bytes(header[3:5]), tuple(header[7::3])
    is_usual = header[:1] == b"\x08" and header[5:6] == bytes([len(sampling)]) and len(header) == 6 + 3 * len(sampling)
    return Kind(is_progressive, sampling) if is_usual else None, (width, height)
