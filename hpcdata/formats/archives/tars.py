"""The members of a tar, plain, gzipped or zstd: read once, in order, in constant memory."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from functools import partial

import zstandard

from hpcdata.formats.archives.members import Damaged, Entry, Exceeded
from hpcdata.formats.archives.parts import Parts
from hpcdata.samples import Reason
from hpcdata.sources.tar.headers import Damage, Links, members

GZIP, ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_PIECE_BYTES, _ZSTD_PIECE_BYTES = 1 << 20, 1 << 13
_WINDOW_BYTES = 1 << 27
_LINKS, _SPARSE, _LINK, _DEVICE = b"12", "sparse", "link", "device"


def entries(parts: Parts, most: int) -> Iterator[Entry]:
    """The members, links and devices among them. most: bytes that it may unpack to. Raises Damaged behind the last good
    member of an archive that is cut short or damaged."""
    source = _Blocks(_bounded(_plain(parts), most))
    for number, item in enumerate(members(source, with_links=True, with_others=True)):
        if isinstance(item, Damage):
            raise Damaged(item.message)
        is_link = bool(item.target) or item.is_symbolic
        problem = _LINK if is_link else _DEVICE if item.kind else _SPARSE if item.is_sparse else ""
        yield Entry(
            number=number,
            name=item.name,
            size=item.size,
            pieces=partial(source.pieces, item.offset, item.size),
            problem=problem,
        )


class _Blocks:
    """What `headers.members` walks on; what lies before an offset that was asked for is forgotten."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.links = Links()
        self._pieces, self._buffer, self._start, self._low = pieces, b"", 0, 0
        self._is_over = False
        self._problem: Damaged | None = None

    def view(self, offset: int, size: int) -> bytes:
        self._low = offset
        while self.length() < offset + size and self._grow():
            pass
        begin = offset - self._start
        return self._buffer[begin : begin + size]

    def length(self) -> int:
        return self._start + len(self._buffer)

    def problem(self) -> tuple[Reason, str] | None:
        return (Reason.DAMAGED_ARCHIVE, str(self._problem)) if self._problem else None

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """The bytes of a member."""
        end = offset + size
        while offset < end:
            if not self.view(offset, 1):
                raise self._problem or Damaged("the archive ends inside of it")
            begin = offset - self._start
            piece = self._buffer[begin : begin + end - offset]
            offset += len(piece)
            yield piece

    def _grow(self) -> bool:
        if self._is_over:
            return False
        known = min(self._low - self._start, len(self._buffer))
        self._buffer, self._start = self._buffer[known:], self._start + known
        try:
            piece = next(self._pieces, b"")
        except Damaged as damaged:
            piece, self._problem = b"", damaged
        self._is_over = not piece
        self._buffer += piece
        return bool(piece)


def _plain(parts: Parts) -> Iterator[bytes]:
    beginning, pieces = parts.read(0, 4), parts.pieces(0, parts.size)
    if beginning.startswith(GZIP):
        return _gunzipped(pieces)
    return _from_zstd(parts) if beginning.startswith(ZSTD) else pieces


def _bounded(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > most:
            raise Exceeded(f"it unpacks to more than {most} bytes, the limit; --max-bytes allows more")
        yield piece


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Several gzip members in a row are one stream; zeros may follow the last."""
    decoder, is_fresh = zlib.decompressobj(wbits=31), True
    for piece in pieces:
        while piece := piece.lstrip(b"\0") if is_fresh else piece:
            is_fresh = False
            try:
                found = decoder.decompress(piece, _PIECE_BYTES)
            except zlib.error:
                raise Damaged("the gzip stream is damaged") from None
            if found:
                yield found
            piece = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            if decoder.eof:
                decoder, is_fresh = zlib.decompressobj(wbits=31), True
    while not is_fresh and (found := decoder.decompress(decoder.unconsumed_tail, _PIECE_BYTES)):
        yield found
    if not is_fresh and not decoder.eof:
        raise Damaged("the gzip stream is cut short")


def _from_zstd(parts: Parts) -> Iterator[bytes]:
    """Of small pieces, so that the densest block makes 256 MiB at most."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
    decoder, is_fresh = decompressor.decompressobj(), True
    for offset in range(0, parts.size, _ZSTD_PIECE_BYTES):
        piece = parts.read(offset, _ZSTD_PIECE_BYTES)
        while piece:
            is_fresh = False
            try:
                if found := decoder.decompress(piece):
                    yield found
            except zstandard.ZstdError:
                raise Damaged("the zstd stream is damaged, or needs a window above 128 MiB") from None
            piece = decoder.unused_data if decoder.eof else b""
            if decoder.eof:
                decoder, is_fresh = decompressor.decompressobj(), True
    if not is_fresh:
        raise Damaged("the zstd stream is cut short")
