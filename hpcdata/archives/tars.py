"""The members of a tar, plain or compressed: read once, in order, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from hpcdata.archives import decoding
from hpcdata.archives.members import Damaged, Entry, Exceeded
from hpcdata.archives.parts import Parts
from hpcdata.samples import Reason
from hpcdata.sources.decoding import BrokenStream, gunzipped, unzstd
from hpcdata.sources.tar.headers import Damage, Links, members

CODECS: dict[bytes, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    b"\x1f\x8b\x08": gunzipped,
    b"\x28\xb5\x2f\xfd": unzstd,
    b"BZh": partial(decoding.decoded, fresh=decoding.bzip2, what="the bzip2 stream"),
    b"\xfd7zXZ\0": partial(decoding.decoded, fresh=decoding.xz, what="the xz stream"),
}
"""What a compressed tar begins with."""
_SPARSE, _LINK, _DEVICE = "sparse", "link", "device"


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
    beginning, pieces = parts.read(0, max(map(len, CODECS))), parts.pieces(0, parts.size)
    unpacked = next((codec for mark, codec in CODECS.items() if beginning.startswith(mark)), iter)
    try:
        yield from unpacked(pieces)
    except BrokenStream as broken:
        raise Damaged(broken.message) from None


def _bounded(pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > most:
            raise Exceeded(f"it unpacks to more than {most} bytes, the limit; hpcdata unpack --max-bytes allows more")
        yield piece
