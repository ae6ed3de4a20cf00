"""Files written by hand, their data stored as it is: the same bytes whatever zlib, zstd or Pillow is installed."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Iterable

_STORED_BYTES = 65_535
"""Longest stored block of deflate."""
_COLORS = {"gray": (0, 1), "rgb": (2, 3), "palette": (3, 1), "gray+alpha": (4, 2), "rgba": (6, 4)}
"""Color type of PNG, and bytes a pixel where a channel has eight bits."""

Member = tuple[str, bytes]


def lines_of(rows: Iterable[object]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def tar_of(members: Iterable[Member], tar_format: int, *, ends: bool = True) -> bytes:
    """No times and owners. ends: with the zeros behind the last member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        size = tar.offset
    return buffer.getvalue() if ends else buffer.getvalue()[:size]


def gzip_of(data: bytes) -> bytes:
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return head + _deflate_of(data) + struct.pack("<2I", zlib.crc32(data), len(data))


def zstd_of(data: bytes) -> bytes:
    """One frame that says its size, of raw blocks, without a checksum."""
    pieces = [data[start : start + 2**17] for start in range(0, len(data), 2**17)]
    blocks = [
        (len(piece) << 3 | (number == len(pieces) - 1)).to_bytes(3, "little") + piece
        for number, piece in enumerate(pieces)
    ]
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data)) + b"".join(blocks)


def png_of(
    width: int, height: int, data: bytes, color: str, *, bits: int = 8, palette: bytes = b"", alpha: bytes = b""
) -> bytes:
    """data: rows without filters, end to end; what is missing of them is missing in the picture."""
    kind, channels = _COLORS[color]
    row = -(-width * channels * bits // 8)
    rows = [data[start : start + row] for start in range(0, min(len(data), row * height), row)]
    chunks = [(b"IHDR", struct.pack(">2I5B", width, height, bits, kind, 0, 0, 0))]
    chunks += [(b"PLTE", palette)] if palette else []
    chunks += [(b"tRNS", alpha)] if alpha else []
    chunks += [(b"IDAT", _zlib_of(b"".join(b"\0" + values for values in rows))), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(value)) + name + value + struct.pack(">I", zlib.crc32(name + value))
        for name, value in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _zlib_of(data: bytes) -> bytes:
    return b"\x78\x01" + _deflate_of(data) + struct.pack(">I", zlib.adler32(data))


def _deflate_of(data: bytes) -> bytes:
    """Stored blocks."""
    pieces = [data[start : start + _STORED_BYTES] for start in range(0, len(data), _STORED_BYTES)] or [b""]
    blocks = [
        struct.pack("<B2H", number == len(pieces) - 1, len(piece), len(piece) ^ 0xFFFF) + piece
        for number, piece in enumerate(pieces)
    ]
    return b"".join(blocks)
