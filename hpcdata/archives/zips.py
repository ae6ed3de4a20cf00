"""The members of a zip, by the directory at its end; local headers only say where the bytes begin.

The directory is read entry by entry, so that memory does not grow with the archive. Members that are stored,
deflated, bzip2 or LZMA are read, others are named. The format is PKWARE's APPNOTE.TXT.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from hpcdata.archives import decoding
from hpcdata.archives.members import Damaged, Entry
from hpcdata.archives.parts import Parts

MARK = b"PK"
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MOST_COMMENT = 1 << 16
_FULL, _FULL_16 = 0xFFFFFFFF, 0xFFFF
_ENCRYPTED, _DOS, _UNIX = 0x1, 0, 3
_STORED, _LZMA, _DECODERS = 0, 14, {8: decoding.deflate, 12: decoding.bzip2}
"""Methods of compression."""
_LZMA_HEAD = 9
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class _Listed:
    """An entry of the directory."""

    name: bytes
    system: int
    flags: int
    method: int
    checksum: int
    stored: int
    size: int
    offset: int
    mode: int


class Zip:
    def __init__(self, parts: Parts) -> None:
        """Raises Damaged where there is no directory, or none that can be true."""
        self._parts = parts
        self._number, self._start, self._size = self._directory()
        self.total, stored = 0, 0
        for item in self._listed():
            self.total += item.size
            stored += item.stored + _LOCAL.size
        if stored > parts.size:
            raise Damaged("its members overlap: they have more bytes together than the archive")

    @property
    def num_members(self) -> int:
        return self._number

    def entries(self) -> Iterator[Entry]:
        for number, item in enumerate(self._listed()):
            if not item.name.endswith(b"/"):
                yield Entry(
                    number=number,
                    name=_slashed(item),
                    size=item.size,
                    pieces=partial(self._pieces, item),
                    problem=_problem(item),
                )

    def _directory(self) -> tuple[int, int, int]:
        """(number of entries, offset, size) of the directory."""
        begin = max(0, self._parts.size - _END.size - _MOST_COMMENT)
        tail = self._parts.read(begin, _END.size + _MOST_COMMENT)
        at = tail.rfind(b"PK\5\6")
        if at < 0 or at + _END.size > len(tail):
            raise Damaged("no directory at its end: the zip is cut short, or is one of several disks")
        _, _, _, _, number, size, start, _ = _END.unpack_from(tail, at)
        locator = begin + at - _LOCATOR_64.size
        if number == _FULL_16 or _FULL in (size, start):
            mark, _, place, _ = _unpacked(_LOCATOR_64, self._parts.read(max(0, locator), _LOCATOR_64.size))
            if mark == b"PK\6\7":
                values = _unpacked(_END_64, self._parts.read(place, _END_64.size))
                number, size, start = values[7], values[8], values[9]
        if start + size > self._parts.size or number * _ENTRY.size > size:
            raise Damaged("its directory is not where the end of the zip says")
        return number, start, size

    def _listed(self) -> Iterator[_Listed]:
        place, end = self._start, self._start + self._size
        buffer, begin = b"", place
        for _ in range(self._number):
            if min(place + _ENTRY.size + 3 * _FULL_16, end) > begin + len(buffer):
                buffer, begin = self._parts.read(place, min(_PIECE_BYTES, end - place)), place
            values = _unpacked(_ENTRY, buffer[place - begin : place - begin + _ENTRY.size])
            mark, made, _, flags, method, _, _, checksum, stored, size, *lengths = values
            if mark != b"PK\1\2":
                raise Damaged("an entry of its directory is none")
            name_size, extra_size, comment_size, _, _, attributes, offset = lengths
            at = place - begin + _ENTRY.size
            name, extra = buffer[at : at + name_size], buffer[at + name_size : at + name_size + extra_size]
            size, stored, offset = _wide(extra, size, stored, offset)
            yield _Listed(
                name=name,
                system=made >> 8,
                flags=flags,
                method=method,
                checksum=checksum,
                stored=stored,
                size=size,
                offset=offset,
                mode=attributes >> 16,
            )
            place += _ENTRY.size + name_size + extra_size + comment_size

    def _pieces(self, item: _Listed) -> Iterator[bytes]:
        mark, *_, name_size, extra_size = _unpacked(_LOCAL, self._parts.read(item.offset, _LOCAL.size))
        if mark != b"PK\3\4":
            raise Damaged("its local header is none")
        begin = item.offset + _LOCAL.size + name_size + extra_size
        size = checksum = 0
        for piece in self._plain(item, begin, begin + item.stored):
            size, checksum = size + len(piece), zlib.crc32(piece, checksum)
            if size > item.size:
                raise Damaged(f"more than the {item.size} bytes that the directory says")
            yield piece
        if (size, checksum) != (item.size, item.checksum):
            raise Damaged("its checksum is wrong" if size == item.size else f"{size} of {item.size} bytes")

    def _plain(self, item: _Listed, begin: int, end: int) -> Iterator[bytes]:
        if item.method == _STORED:
            return self._parts.pieces(begin, end)
        fresh = _DECODERS.get(item.method)
        if fresh is None:
            head = self._parts.read(begin, min(_LZMA_HEAD, end - begin))
            begin, fresh = begin + len(head), partial(decoding.lzma_of_zip, head)
        return decoding.decoded(self._parts.pieces(begin, end), fresh, "its stream", is_one=True)


def _unpacked(form: struct.Struct, data: bytes) -> tuple:
    if len(data) != form.size:
        raise Damaged("the zip ends inside a header")
    return form.unpack(data)


def _wide(extra: bytes, size: int, stored: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset of 64 bits, from the extra field 1, where the entry has no room for them."""
    values = [size, stored, offset]
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = extra[4 : 4 + length]
            for number, value in enumerate(values):
                if value == _FULL and len(wide) >= 8:
                    values[number], wide = int.from_bytes(wide[:8], "little"), wide[8:]
        extra = extra[4 + length :]
    return values[0], values[1], values[2]


def _slashed(item: _Listed) -> bytes:
    """Names that are no UTF-8 are of DOS (code page 437); some of its writers part folders by backslashes."""
    name = item.name
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        name = name.decode("cp437").encode()
    return name.replace(b"\\", b"/") if item.system == _DOS and b"/" not in name else name


def _problem(item: _Listed) -> str:
    kind = stat.S_IFMT(item.mode) if item.system == _UNIX else 0
    if stat.S_ISLNK(kind):
        return "link"
    if kind and not stat.S_ISREG(kind):
        return "device"
    if item.flags & _ENCRYPTED:
        return "encrypted"
    return "" if item.method in (_STORED, *_DECODERS, _LZMA) else "unknown_compression"
