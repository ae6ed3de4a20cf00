"""The members of a tar archive from its 512-byte headers alone, through damage. Nothing is ever extracted.

Reads v7, ustar, GNU (long names, base-256 sizes) and PAX (path, size) headers; global PAX headers are skipped. Where
a header should stand and none with a valid checksum does, the walk goes on block by block to the next valid one and
reports the region between. Zeros that end on a 10 KiB record before a valid header join two archives and lose nothing.
A walk may start at any member or damage that an earlier walk reported, and goes on like that one.
The layout is in POSIX pax(1) and the GNU tar manual.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from hpcdata.base.reads import read_at
from hpcdata.samples import Reason

BLOCK = 512
_RECORD_BYTES = 20 * BLOCK
_ZEROS = bytes(BLOCK)
_EXTENSION_LIMIT_BYTES = 1 << 20
_MOST_DIGITS = 7
"""Of the length of a line in a PAX header."""
_LONG_NAME, _SPARSE = b"LS"
_LONG_LINK = ord("K")
_NAME_TYPES = b"LKxX"  # GNU long name, GNU long name of a link's target, PAX header, PAX header of old Solaris
_SKIPPED_TYPES = b"g"  # global PAX header
_NO_DATA_TYPES = b"123456"  # links, devices, folders, pipes
_LINK_TYPES = b"12"  # hard, symbolic
_DEVICE_TYPES = b"346"  # of characters, of blocks, pipes
_SYMBOLIC = ord("2")
_REGULAR_TYPES = b"\x0007S"
_SIGNED_BYTES = struct.Struct("148b8x356b")


class Member(NamedTuple):
    """A regular file: its name as stored, where its first header starts, and where its bytes are. Or a link."""

    start: int
    name: bytes
    offset: int
    size: int
    is_sparse: bool
    target: bytes = b""
    """What a link leads to, as stored: for a hard link a name in the archive, else a path from the link's folder."""
    is_symbolic: bool = False
    kind: int = 0
    """Its type flag, of devices and pipes alone."""


class Damage(NamedTuple):
    """A region without readable members."""

    start: int
    reason: Reason
    message: str


class Links:
    """How many members are stored as links; a walk that goes over a part again counts it once."""

    def __init__(self) -> None:
        self.count = 0
        self._last = -1

    def add(self, offset: int) -> None:
        if offset > self._last:
            self.count, self._last = self.count + 1, offset


class ByteSource(Protocol):
    """What a walk needs of a file: blocks at growing offsets, and how much there is."""

    links: Links

    def view(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes, fewer only at the end."""
        ...

    def length(self) -> int:
        """Bytes known to be there: all of them once `view` has come back short."""
        ...

    def problem(self) -> tuple[Reason, str] | None:
        """Why the bytes end where they do, if not because the file does."""
        ...


class FileSource:
    """An uncompressed file: headers that lie close together are read ahead, others one by one."""

    _AHEAD_BYTES = 1 << 16
    _NEAR_BYTES = 1 << 14

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.links = descriptor, Links()
        self._length = os.fstat(descriptor).st_size
        self._buffer = b""
        self._start = 0
        self._last = -self._NEAR_BYTES

    def view(self, offset: int, size: int) -> bytes:
        begin = offset - self._start
        if begin < 0 or begin + size > len(self._buffer):
            ahead = self._AHEAD_BYTES if 0 <= offset - self._last < self._NEAR_BYTES else size
            self._buffer = read_at(self.descriptor, max(size, ahead), offset)
            self._start, begin = offset, 0
        self._last = offset
        return self._buffer[begin : begin + size]

    def length(self) -> int:
        return self._length

    def problem(self) -> None:
        return None


def members(
    source: ByteSource, start: int = 0, *, with_links: bool = False, with_others: bool = False
) -> Iterator[Member | Damage]:
    """Regular files, links and devices if they are asked for, and damaged regions in order, from a header at `start`.

    with_others: devices and pipes.
    """
    offset = start
    while len(block := source.view(offset, BLOCK)) == BLOCK:
        if block == _ZEROS:
            after = _skip_zeros(source, offset)
            if _is_end_of_archive(source, offset, after):
                offset = after
            else:
                yield Damage(offset, Reason.DAMAGED_ARCHIVE, "zeros instead of a tar header")
                offset = _next_header(source, after)
            continue
        step = _step(source, block, offset, with_links, with_others)
        if step.is_damaged:
            yield Damage(offset, Reason.DAMAGED_ARCHIVE, "not a tar header")
            offset = _next_header(source, step.end + BLOCK)
            continue
        if step.member is not None:
            yield step.member
        following = step.end + -step.end % BLOCK
        source.view(following, BLOCK)
        if step.end > source.length():
            yield Damage(offset, *(source.problem() or (Reason.TRUNCATED, "the archive ends inside a member")))
            return
        offset = following
    if (problem := source.problem()) is not None:
        yield Damage(min(offset, source.length()), *problem)
    elif block.strip(b"\0"):
        yield Damage(offset, Reason.TRUNCATED, "the archive ends inside a tar header")


class _Step(NamedTuple):
    """What stands at an offset: a file (None for what is no regular file) and the end of its data, or a bad block."""

    member: Member | None
    end: int
    is_damaged: bool = False


def _step(source: ByteSource, block: bytes, start: int, with_links: bool, with_others: bool) -> _Step:
    offset, is_sparse = start, False
    known = _Extended()
    while _is_header(block):
        kind, stored, data = block[156], _number(block[124:136]), offset + BLOCK
        if stored < 0:
            break
        if kind in _NO_DATA_TYPES:
            if kind in _LINK_TYPES:
                source.links.add(start)
                if with_links:
                    return _Step(_link(block, start, data, known), data)
            if with_others and kind in _DEVICE_TYPES:
                return _Step(Member(start, known.name or _stored_name(block), data, 0, False, kind=kind), data)
            return _Step(None, data)
        if kind in _NAME_TYPES and not (kind == _LONG_LINK and stored > _EXTENSION_LIMIT_BYTES):
            if stored > _EXTENSION_LIMIT_BYTES:
                break
            value = source.view(data, stored)
            if kind == _LONG_NAME:
                known.name = value.partition(b"\0")[0]
            elif kind == _LONG_LINK:
                known.target = value.partition(b"\0")[0]
            else:
                is_sparse = known.add(value)
        elif kind not in _SKIPPED_TYPES and kind != _LONG_LINK:
            size = stored if known.size < 0 else known.size
            return _file(source, block, start, data, known.name, size, is_sparse)
        offset = data + stored + -stored % BLOCK
        block = source.view(offset, BLOCK)
    if len(block) < BLOCK:  # the file ends between an extension header and what it extends
        return _Step(None, source.length() + 1)
    return _Step(None, offset, is_damaged=True)


def _link(block: bytes, start: int, data: int, known: _Extended) -> Member:
    target = known.target or block[157:257].partition(b"\0")[0]
    return Member(start, known.name or _stored_name(block), data, 0, False, target, block[156] == _SYMBOLIC)


def _file(source: ByteSource, block: bytes, start: int, data: int, name: bytes, size: int, is_sparse: bool) -> _Step:
    kind = block[156]
    if kind == _SPARSE:
        is_sparse, is_extended = True, bool(block[482])
        while is_extended and len(extension := source.view(data, BLOCK)) == BLOCK:
            data, is_extended = data + BLOCK, bool(extension[504])
    name = name or _stored_name(block)
    if kind not in _REGULAR_TYPES or name.endswith(b"/"):
        return _Step(None, data + size)
    return _Step(Member(start, name, data, size, is_sparse), data + size)


def _stored_name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:
        return block[345:500].partition(b"\0")[0] + b"/" + name
    return name


class _Extended:
    """What extension headers say of the member that follows them."""

    def __init__(self) -> None:
        self.name = self.target = b""
        self.size = -1

    def add(self, value: bytes) -> bool:
        """Takes the `length key=value` lines of a PAX header; returns whether they are of a sparse file."""
        is_sparse, place = False, 0
        while (space := value.find(b" ", place, place + _MOST_DIGITS + 1)) >= 0:
            length = value[place:space]
            if not length.isdigit() or int(length) <= len(length) + 1:
                break
            key, _, text = value[space + 1 : place + int(length) - 1].partition(b"=")
            if key == b"size" and text.isdigit() and len(text) < 20:
                self.size = int(text)
            elif key == b"path" or key == b"GNU.sparse.name":
                self.name = text.partition(b"\0")[0]
            elif key == b"linkpath":
                self.target = text.partition(b"\0")[0]
            is_sparse = is_sparse or key.startswith(b"GNU.sparse.")
            place += int(length)
        return is_sparse


def _is_header(block: bytes) -> bool:
    """Whether the checksum is right: the sum of all bytes, itself as spaces (signed bytes by some old writers)."""
    if len(block) < BLOCK:
        return False
    expected = _number(block[148:156])
    if expected <= 0:
        return False
    # The low half of adler32 is 1 + the sum modulo 65521: eight times faster than sum().
    others = (zlib.adler32(block) & 0xFFFF) - 1 - sum(block[148:156]) + 8 * ord(" ")
    return (others - expected) % 65521 == 0 or sum(_SIGNED_BYTES.unpack(block)) + 8 * ord(" ") == expected


def _number(field: bytes) -> int:
    """An octal or base-256 field; negative if it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.rstrip(b" \0") or b"0", 8)
    except ValueError:
        pass
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        return -1


def _skip_zeros(source: ByteSource, offset: int) -> int:
    """The offset of the first block that is not all zeros, or the length if there is none."""
    while len(block := source.view(offset, BLOCK)) == BLOCK and block == _ZEROS:
        offset += BLOCK
    return offset if block.strip(b"\0") else source.length()


def _is_end_of_archive(source: ByteSource, offset: int, after: int) -> bool:
    if after == source.length():
        return True
    return after - offset >= 2 * BLOCK and after % _RECORD_BYTES == 0 and _is_header(source.view(after, BLOCK))


def _next_header(source: ByteSource, offset: int) -> int:
    """The offset of the first header at or after `offset`, or the length if there is none."""
    while len(block := source.view(offset, BLOCK)) == BLOCK:
        if _is_header(block):
            return offset
        offset += BLOCK
    return source.length()
