"""Bytes of plain, gzip and zstd files as bounded chunks, from any offset of the uncompressed stream.

Damage is deterministic: input is always fed to the decoder from the start of the file in pieces of one size, so the
bytes that could be decompressed before an error are the same in every run. Memory is bounded whatever the ratio.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Generator, Iterator
from typing import Any

import zstandard

from hpcdata.errors import UserError
from hpcdata.samples import BadSample, Reason
from hpcdata.sources.base import InputFile

CHUNK_BYTES = 1 << 20
_GZIP_PIECE_BYTES = 1 << 16
_ZSTD_PIECE_BYTES = 1 << 13  # the densest zstd block is 4 bytes for 128 KiB: a piece makes 256 MiB at most
_ZSTD_WINDOW_BYTES = 1 << 27  # what the zstd command accepts by default


class BrokenStream(BadSample):
    """The compressed stream ends too early or is damaged; what came before is good."""


def open_input(file: InputFile) -> int:
    """A read-only descriptor of a regular file. Raises UserError."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UserError(f"cannot read {file.path}: {error.strerror}") from None
    return descriptor


def chunks(file: InputFile, *, seek: int = 0) -> Generator[bytes, None, None]:
    """Pieces of the (uncompressed) file from offset `seek` on. Raises BrokenStream behind the last good byte."""
    descriptor = open_input(file)
    try:
        if file.format.endswith(".gz"):
            yield from _skip(_gunzip(descriptor), seek)
        elif file.format.endswith(".zst"):
            yield from _skip(_unzstd(descriptor), seek)
        else:
            yield from _pieces(descriptor, CHUNK_BYTES, seek)
    finally:
        os.close(descriptor)


def _pieces(descriptor: int, size: int, offset: int = 0) -> Iterator[bytes]:
    while piece := os.pread(descriptor, size, offset):
        yield piece
        offset += len(piece)


def _skip(stream: Iterator[bytes], num_bytes: int) -> Iterator[bytes]:
    for chunk in stream:
        if num_bytes >= len(chunk):
            num_bytes -= len(chunk)
        else:
            yield chunk[num_bytes:]
            num_bytes = 0


def _gunzip(descriptor: int) -> Iterator[bytes]:
    decoder = zlib.decompressobj(wbits=31)
    fresh = True
    for piece in _pieces(descriptor, _GZIP_PIECE_BYTES):
        more = True
        while more:
            if fresh and not (piece := piece.lstrip(b"\0")):  # padding behind the last member
                break
            fresh = False
            before = decoder.copy()
            try:
                chunk = decoder.decompress(piece, CHUNK_BYTES)
            except zlib.error:
                yield from _salvaged(before, piece)
                raise BrokenStream(Reason.DAMAGED_ARCHIVE, "the gzip stream is damaged") from None
            if chunk:
                yield chunk
            piece = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            more = bool(piece) or len(chunk) == CHUNK_BYTES  # a full chunk: the decoder may hold back more
            if decoder.eof:
                decoder, fresh = zlib.decompressobj(wbits=31), True
    if not fresh:
        raise BrokenStream(Reason.TRUNCATED, "the gzip stream is cut short")


def _salvaged(decoder: Any, piece: bytes) -> Iterator[bytes]:
    """What a gzip decoder makes of a piece before the byte that it fails on."""
    for start in range(len(piece)):
        try:
            chunk = decoder.decompress(piece[start : start + 1])
        except zlib.error:
            return
        if chunk:
            yield chunk


def _unzstd(descriptor: int) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    decoder, fresh = decompressor.decompressobj(), True
    for piece in _pieces(descriptor, _ZSTD_PIECE_BYTES):
        while piece:
            fresh = False
            try:
                chunk = decoder.decompress(piece)
            except zstandard.ZstdError:
                message = "the zstd stream is damaged, or needs a window above 128 MiB"
                raise BrokenStream(Reason.DAMAGED_ARCHIVE, message) from None
            for start in range(0, len(chunk), CHUNK_BYTES):
                yield chunk[start : start + CHUNK_BYTES]
            piece = decoder.unused_data if decoder.eof else b""
            if decoder.eof:
                decoder, fresh = decompressor.decompressobj(), True
    if not fresh:
        raise BrokenStream(Reason.TRUNCATED, "the zstd stream is cut short")
