"""Large pictures take turns: threads that decode share a budget of memory, and no picture may take more than all of it.

What decoding takes is predicted by the header, in bytes a pixel that were measured for each format: decoders hold
coefficients or planes of their own beside the picture, and a picture with transparency or an orientation is copied.
`python tests/benchmarks/hostile.py --pictures` measures them again.

A picture waits while others that are being decoded leave too little, and holds nothing while it waits: whoever decodes
waits for nobody, so the turns go round. What is small enough never waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import struct
import threading
from collections.abc import Iterator

from PIL import Image

from hpcdata.samples import BadSample, Reason

BUDGET = 17
"""Bytes for each pixel that a picture may have: a WebP of that many takes all of it."""
FREE_BYTES = 1 << 26
"""What a picture takes of no budget: each thread has so much of its own."""
_TRIMMED_BYTES = 1 << 28
"""From so many on the memory of a picture goes back to the system: Pillow's blocks of 16 MiB would stay with malloc."""
_DECODED = 12
"""Bytes a pixel of a decoded picture, with its copies."""
_DECODERS = {"WEBP": 16.5, "AVIF": 16.5}
"""Of decoders that hold more. AVIF: of 10 and 12 bits."""
_JPEG_2000 = "JPEG2000"
_TILES = b"\xff\x4f\xff\x51"
"""Start of a codestream of JPEG 2000, and of the segment that says how large its tiles are (ITU-T T.800, A.5.1)."""
_TILE_SIZE = struct.Struct(">24xII")


@contextlib.contextmanager
def turn(image: Image.Image, data: bytes, max_pixels: int) -> Iterator[None]:
    """Waits until there is memory to decode a picture, and keeps it during the block; then the picture is closed.

    image: as it will be decoded, its header read; data: its file. Raises BadSample (OVERSIZED_IMAGE).
    """
    budget, needed = BUDGET * max_pixels, decoding_bytes(image, data)
    if needed > budget:
        message = f"decoding it takes {needed} bytes of memory, the limit is {budget}"
        raise BadSample(Reason.OVERSIZED_IMAGE, message)
    with _shared.taking(max(0, needed - FREE_BYTES), budget):
        try:
            yield
        finally:
            image.close()  # its pixels go now, whoever still refers to it
            if needed >= _TRIMMED_BYTES:
                _give_back()


def decoding_bytes(image: Image.Image, data: bytes) -> int:
    """About the most memory that a picture takes until it is resized, by its header."""
    pixels = image.width * image.height
    decoded = round(_DECODERS.get(image.format or "", _DECODED) * pixels)
    if image.format != _JPEG_2000:
        return decoded
    channels = len(image.getbands())  # integers of 4 bytes, and those bytes in the order of the picture, with a margin
    return max(decoded, 5 * pixels + 5 * channels * min(pixels, _largest_tile(data)))


def _largest_tile(data: bytes) -> int:
    """Pixels of the largest tile that any segment in the file speaks of."""
    largest, place = 0, data.find(_TILES)
    while 0 <= place <= len(data) - _TILE_SIZE.size:
        width, height = _TILE_SIZE.unpack_from(data, place)
        largest, place = max(largest, width * height), data.find(_TILES, place + 1)
    return largest


def _give_back() -> None:
    """Returns memory that is free to the system, where the C library can (glibc)."""
    if trim := getattr(_c_library(), "malloc_trim", None):
        trim(0)


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class _Budget:
    """Memory that the threads of a process take parts of."""

    def __init__(self) -> None:
        self._freed, self._taken = threading.Condition(), 0

    @contextlib.contextmanager
    def taking(self, size: int, budget: int) -> Iterator[None]:
        """Alone, a size is always taken."""
        if not size:
            yield
            return
        with self._freed:
            self._freed.wait_for(lambda: not self._taken or self._taken + size <= budget)
            self._taken += size
        try:
            yield
        finally:
            with self._freed:
                self._taken -= size
                self._freed.notify_all()


_shared = _Budget()


def _forget() -> None:
    """A forked child has none of the threads that had taken something."""
    global _shared
    _shared = _Budget()


os.register_at_fork(after_in_child=_forget)
