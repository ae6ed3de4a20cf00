"""Bytes that bzip2, xz and the methods of zips have packed -> bytes, in pieces of 1 MiB at most, whatever the ratio.

gzip and zstd are read as sources read them, see `hpcdata.sources.decoding`.
"""

from __future__ import annotations

import bz2
import itertools
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from hpcdata.archives.members import Damaged
from hpcdata.sources.decoding import require_memory

_PIECE_BYTES = 1 << 20
_WINDOW_BYTES, _LZMA_BYTES = 1 << 27, 1 << 28
_ERRORS = (zlib.error, lzma.LZMAError, OSError, ValueError)
"""That decoders raise: OSError is bzip2's."""


class Decoder(Protocol):
    """One stream, as `bz2` and `lzma` have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def deflate() -> Decoder:
    return _Deflate()


def bzip2() -> Decoder:
    return bz2.BZ2Decompressor()


def xz() -> Decoder:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_BYTES)


def lzma_of_zip(head: bytes) -> Decoder:
    """head: the 9 bytes before the stream, as PKWARE's APPNOTE 5.8 has them. Raises Damaged."""
    properties, window = head[4:5], int.from_bytes(head[5:9], "little")
    if len(head) < 9 or head[2:4] != b"\5\0" or window > _WINDOW_BYTES:
        raise Damaged(f"its LZMA header is none, or asks for a window above {_WINDOW_BYTES >> 20} MiB")
    rest, lc = divmod(properties[0], 9)
    pb, lp = divmod(rest, 5)
    try:
        return lzma.LZMADecompressor(
            lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": window, "lc": lc, "lp": lp, "pb": pb}]
        )
    except (lzma.LZMAError, ValueError):
        raise Damaged("its LZMA header is none") from None


def decoded(
    pieces: Iterator[bytes], fresh: Callable[[], Decoder], what: str, *, is_one: bool = False
) -> Iterator[bytes]:
    """The bytes of streams in a row; zeros may follow the last, and whatever else a stream that `is_one`.

    Raises Damaged, which calls the stream `what`.
    """
    decoder, is_fresh = fresh(), not is_one
    for piece in itertools.chain(pieces, [b""]):
        while not is_fresh or (piece := piece.lstrip(b"\0")):
            is_fresh = False
            try:
                found = decoder.decompress(piece, _PIECE_BYTES)
            except _ERRORS as error:
                require_memory(error)
                raise Damaged(f"{what} is damaged, or needs more memory than is given to it") from None
            if found:
                yield found
            piece = b""
            if decoder.eof and is_one:
                return
            if decoder.eof:
                piece, decoder, is_fresh = decoder.unused_data, fresh(), True
            elif decoder.needs_input:
                break
    if not is_fresh:
        raise Damaged(f"{what} is cut short")


class _Deflate:
    def __init__(self) -> None:
        self._inner, self._left, self.needs_input = zlib.decompressobj(wbits=-15), b"", True

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._inner.decompress(self._left + data, max_length)
        self._left = self._inner.unconsumed_tail
        self.needs_input = not self._left and len(found) < max_length
        return found
