"""Streams of gzip and zstd -> bytes, in bounded chunks whatever the ratio; several streams in a row are one.

Damage is deterministic: the bytes that could be decompressed before an error are the same in every run.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

import zstandard

from hpcdata.samples import BadSample, Reason

CHUNK_BYTES = 1 << 20
_TINY_BYTES = 1 << 9
"""What a gzip decoder is given first: behind the end of a tiny member it hands the rest back, as a copy."""
_GZIP_PIECE_BYTES = 1 << 16
_ZSTD_PIECE_BYTES = 1 << 13  # the densest zstd block is 4 bytes for 128 KiB: a piece makes 256 MiB at most
_ZSTD_WINDOW_BYTES = 1 << 27  # what the zstd command accepts by default
_OUT_OF_MEMORY = re.compile(r"^Error -4 |not enough memory")
"""zlib's Z_MEM_ERROR and zstd's ZSTD_error_memory_allocation, which have no exceptions of their own."""
_NO_PADDING = re.compile(rb"[^\0]")
"""Zeros may follow the last member of a gzip stream."""


class BrokenStream(BadSample):
    """The compressed stream ends too early or is damaged; what came before is good."""


def gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """As a member that ends hands back a copy of what follows, the decoder gets little of it at first."""
    decoder, width = zlib.decompressobj(wbits=31), _TINY_BYTES
    fresh = True
    for piece in pieces:
        place = 0
        while place < len(piece):
            if fresh:
                mark = _NO_PADDING.search(piece, place)
                if mark is None:
                    break
                place = mark.start()
            part, fresh = piece[place : place + width], False
            place, width, more = place + len(part), min(2 * width, _GZIP_PIECE_BYTES), True
            while more:
                before = decoder.copy()
                try:
                    chunk = decoder.decompress(part, CHUNK_BYTES)
                except zlib.error as error:
                    require_memory(error)
                    yield from _salvaged(before, part)
                    raise BrokenStream(Reason.DAMAGED_ARCHIVE, "the gzip stream is damaged") from None
                if chunk:
                    yield chunk
                part = decoder.unconsumed_tail
                more = not decoder.eof and (bool(part) or len(chunk) == CHUNK_BYTES)  # the decoder may hold back more
            if decoder.eof:
                place -= len(decoder.unused_data)
                decoder, width, fresh = zlib.decompressobj(wbits=31), _TINY_BYTES, True
    if not fresh:
        raise BrokenStream(Reason.TRUNCATED, "the gzip stream is cut short")


def _salvaged(decoder: Any, piece: bytes) -> Iterator[bytes]:
    """What a gzip decoder makes of a piece before the byte that it fails on."""
    for start in range(len(piece)):
        try:
            chunk = decoder.decompress(piece[start : start + 1])
        except zlib.error as error:
            require_memory(error)
            return
        if chunk:
            yield chunk


def require_memory(error: Exception) -> None:
    """Raises MemoryError if a decoder fails for want of it: that says nothing about its input."""
    if _OUT_OF_MEMORY.search(str(error)):
        raise MemoryError(str(error))


def unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    decoder, fresh = decompressor.decompressobj(), True
    for piece in _cut(pieces, _ZSTD_PIECE_BYTES):
        while piece:
            fresh = False
            try:
                chunk = decoder.decompress(piece)
            except zstandard.ZstdError as error:
                require_memory(error)
                message = "the zstd stream is damaged, or needs a window above 128 MiB"
                raise BrokenStream(Reason.DAMAGED_ARCHIVE, message) from None
            for start in range(0, len(chunk), CHUNK_BYTES):
                yield chunk[start : start + CHUNK_BYTES]
            piece = decoder.unused_data if decoder.eof else b""
            if decoder.eof:
                decoder, fresh = decompressor.decompressobj(), True
    if not fresh:
        raise BrokenStream(Reason.TRUNCATED, "the zstd stream is cut short")


def _cut(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        for start in range(0, len(piece), size):
            yield piece[start : start + size]
