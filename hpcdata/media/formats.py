"""What is opened as a picture, within which limits, and which reject an error of Pillow becomes.

Only `FORMATS` are opened: those that data sets hold and that begin with a signature; none that starts another program
(EPS) or takes any bytes for a picture (TGA). What does not decode is a `BadSample`, whatever Pillow raises.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import re
import warnings
from collections.abc import Iterator

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

from hpcdata.media import kinds
from hpcdata.native import jpegs
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
_OPENED = frozenset({"AVIF"} if AvifImagePlugin.SUPPORTED else ())
"""What of `kinds` with a remedy needs none in this Pillow."""
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>|0x[0-9a-fA-F]{6,}")
_NO_MEMORY = re.compile(r"\bout of memory\b", re.IGNORECASE)
_MAX_MESSAGE = 160
MAX_SCANS = 50
"""Of a JPEG. Each goes over the whole picture again: encoders make 10 to 20, a hostile file of 400 KB has thousands."""
MAX_PIECES = 1 << 17
"""Strips or tiles of a TIFF, which are decoded one by one."""
PIXELS_A_BYTE, SMALL_PIXELS = 30_000, 1 << 20
"""A picture of more pixels than both is a bomb: a blank page has at most 25,000 for each byte of its file, and a
file of 38 bytes may promise 89 million, so that an archive of them would cost hours."""
_MANY = (
    (b"\x89PNG", b"iCCP", 16, "{} color profiles"),
    (b"\xff\xd8", b"Exif\0\0", 256, "{} segments of Exif"),
)
"""Signature, mark, how many of it a picture may have, what they are: pictures have one."""
_SCANS = (b"\xff\xd8", b"\xff\xda", MAX_SCANS, "a JPEG of {} scans")


@contextlib.contextmanager
def opened(data: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """The picture with its header read, not decoded yet; what goes wrong in the block is a reject as well.

    Raises BadSample: EMPTY_IMAGE, OVERSIZED_IMAGE (judged by the header and the scans of a JPEG), TRUNCATED or
    UNREADABLE_IMAGE. Messages are the same in every run. MemoryError stays one, whatever the decoder calls it.
    """
    if not data:
        raise BadSample(Reason.EMPTY_IMAGE, "0 bytes")
    _prepare_pillow(max_pixels)
    try:
        with _open(data, max_pixels) as image:
            yield image
    except (BadSample, MemoryError):
        raise
    except Exception as error:
        if _NO_MEMORY.search(str(error)):  # Pillow's codecs say so in words: it is no property of the picture
            raise MemoryError(str(error)) from None
        raise _bad_sample(error, data) from None


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
    _require_few(data, *_MANY)
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    num_pixels = image.width * image.height
    require_pixels(num_pixels, max_pixels)
    if num_pixels > max(SMALL_PIXELS, PIXELS_A_BYTE * len(data)):
        raise BadSample(
            Reason.OVERSIZED_IMAGE, f"{num_pixels} pixels in {len(data)} bytes, the limit is {PIXELS_A_BYTE} a byte"
        )
    if not num_pixels:
        raise BadSample(Reason.UNREADABLE_IMAGE, f"{image.width} x {image.height} pixels")
    if image.format in ("JPEG", "MPO"):
        _require_few(data, _SCANS)
    if len(image.tile) > MAX_PIECES:
        raise BadSample(Reason.OVERSIZED_IMAGE, f"{len(image.tile)} strips or tiles, the limit is {MAX_PIECES}")
    return image


def has_few_parts(data: bytes) -> bool:
    """Whether a picture has no more scans and other parts than may be, by what could be one."""
    return not any(_surplus(data, *part) for part in (*_MANY, _SCANS))


def require_pixels(num_pixels: int, max_pixels: int) -> None:
    """Raises BadSample (OVERSIZED_IMAGE) for more than the limit."""
    if num_pixels > max_pixels:
        raise _oversized(num_pixels, max_pixels)


def _require_few(data: bytes, *parts: tuple[bytes, bytes, int, str]) -> None:
    """Raises BadSample for very many parts of a picture: Pillow unpacks or copies each with all before it."""
    for part in parts:
        if said := _surplus(data, *part):
            raise BadSample(Reason.OVERSIZED_IMAGE, said)


def _surplus(data: bytes, signature: bytes, mark: bytes, most: int, what: str) -> str:
    """What a picture has too many of, in words; empty where it has not."""
    if not data.startswith(signature):
        return ""
    loops = jpegs.loops()
    number = data.count(mark) if loops is None else loops.count(data, mark)
    return f"{what.format(number)}, the limit is {most}" if number > most else ""


def _oversized(num_pixels: int | str, max_pixels: int | None) -> BadSample:
    return BadSample(Reason.OVERSIZED_IMAGE, f"the header promises {num_pixels} pixels, the limit is {max_pixels}")


def _bad_sample(error: Exception, data: bytes) -> BadSample:
    message = " ".join(_ADDRESS.sub("the data", str(error)).split())[:_MAX_MESSAGE]
    if isinstance(error, Image.DecompressionBombError):
        promised = re.search(r"\d+", message)
        return _oversized(promised[0] if promised else "more", Image.MAX_IMAGE_PIXELS)
    if isinstance(error, Image.UnidentifiedImageError):
        return BadSample(Reason.UNREADABLE_IMAGE, kinds.describe_unopened(data[: kinds.BEGINNING_BYTES], _OPENED))
    is_cut = isinstance(error, EOFError) or "truncated" in message.lower()
    reason = Reason.TRUNCATED if is_cut else Reason.UNREADABLE_IMAGE
    return BadSample(reason, f"{type(error).__name__}: {message}")
