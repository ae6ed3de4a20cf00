"""Bytes of plain, gzip and zstd files as bounded chunks, from any offset of the uncompressed stream.

How a file is compressed is decided by its first bytes (`codec_of`): a stream read as text is one untrue reject.

A compressed stream cannot be sought: reading starts at the front. A thread that left one may go on where it was, so
that a file that was cut into many shards is decompressed once by a task that works on them in turn.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator

from hpcdata.base.errors import UserError
from hpcdata.base.reads import read_at, read_beginning
from hpcdata.sources.base import InputFile, refusing_faults
from hpcdata.sources.decoding import CHUNK_BYTES, BrokenStream, gunzipped, unzstd

logger = logging.getLogger(__name__)

_LEAST_BYTES = 1 << 16
"""Smaller pieces of a compressed stream are joined, so that one of many tiny members costs no more than its bytes."""
_PACKED_PIECE_BYTES = 1 << 16
_COARSEST_TICK_S = 2.0
_IDENTITY = ("st_dev", "st_ino", "st_size", "st_mtime_ns")


_CODECS = {".gz": (b"\x1f\x8b\x08",), ".zst": (b"\x28\xb5\x2f\xfd",)}
PARQUET = "parquet"
_PARQUET_MARK = b"PAR1"
_UNREAD = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x04\x22\x4d\x18": "lz4",
    b"ARROW1\0\0": "Arrow",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"SQLite format 3\0": "SQLite",
    b"\xff\xfe": "UTF-16 or UTF-32 text",
    b"\xfe\xff": "UTF-16 text",
    b"\0\0\xfe\xff": "UTF-32 text",
}
_BEGINNING_BYTES = 512
_TAR_MAGIC = slice(257, 262)


def codec_of(path: str, *, is_tar: bool = False, is_document: bool = False) -> str:
    """`.gz`, `.zst` or nothing: how the file is compressed, and a log line where its name says something else.

    `PARQUET` for a file of that format, which has its own compression.

    A file that is named as compressed and holds neither such a stream nor what its name says without it keeps the
    codec of its name: it is damaged. Raises UserError for what no source reads, named by its content; not for a
    document, which is one sample and becomes one reject.
    """
    with refusing_faults(path):
        beginning = read_beginning(path, _BEGINNING_BYTES)
    named = _named(path.lower())
    found = next((codec for codec, marks in _CODECS.items() if beginning.startswith(marks)), "")
    if not found and not is_document:
        _refuse(path, beginning, is_tar)
    if beginning.startswith(_PARQUET_MARK):
        return PARQUET
    if found == named or not beginning or (not found and not _is_plain(beginning, is_tar)):
        return named
    logger.warning("%s is %s, whatever its name says: read as that", path, _words(found))
    return found


def is_tar_header(beginning: bytes) -> bool:
    """By the mark that all writers of the last thirty years leave."""
    return beginning[_TAR_MAGIC] == b"ustar"


def _named(path: str) -> str:
    return ".gz" if path.endswith(".tgz") else next((codec for codec in _CODECS if path.endswith(codec)), "")


def _refuse(path: str, beginning: bytes, is_tar: bool) -> None:
    found = next((what for mark, what in _UNREAD.items() if beginning.startswith(mark)), None)
    if found is None and not is_tar and _is_wide(beginning):
        found = "UTF-16 text"
    if found is not None:
        raise UserError(f"{path} holds {found}, which is not read so: convert it")


def _is_wide(beginning: bytes) -> bool:
    """Whether it is text of two bytes a character without a mark: of every two bytes, one is 0."""
    start = beginning[:32]
    return len(start) >= 8 and any(not zero.strip(b"\0") and b"\0" not in text for zero, text in _halves(start))


def _halves(data: bytes) -> tuple[tuple[bytes, bytes], ...]:
    even, odd = data[::2], data[1::2]
    return (even, odd), (odd, even)


def _is_plain(beginning: bytes, is_tar: bool) -> bool:
    if is_tar:
        return is_tar_header(beginning)
    try:
        text = beginning[:-3].decode("utf-8") if len(beginning) == _BEGINNING_BYTES else beginning.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and b"\0" not in beginning
    return "\0" not in text


def _words(codec: str) -> str:
    return {".gz": "a gzip stream", ".zst": "a zstd stream", "": "not compressed"}[codec]


def open_input(file: InputFile) -> int:
    """A read-only descriptor of a regular file. Raises OSError."""
    return os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def chunks(file: InputFile, *, seek: int = 0) -> Generator[bytes, None, None]:
    """Pieces of the (uncompressed) file from offset `seek` on. Raises BrokenStream behind the last good byte."""
    if not file.format.endswith((".gz", ".zst")):
        with _closing(open_input(file)) as descriptor:
            yield from _pieces(descriptor, CHUNK_BYTES, seek)
        return
    stream = _left_at(file, seek) or _Stream(file)
    try:
        yield from stream.chunks(seek)
        stream.close()
    except GeneratorExit:
        _leave(stream)
        raise
    except BaseException:
        stream.close()
        raise


class _Left(threading.local):
    """The compressed stream that a thread has not read to its end: the next shard of a file begins where one ends."""

    stream: _Stream | None = None


_left = _Left()


def _left_at(file: InputFile, seek: int) -> _Stream | None:
    """The stream that was left, if it can go on with this offset of this file; closes it if not."""
    stream, _left.stream = _left.stream, None
    if stream is not None and not stream.can_give(file, seek):
        stream.close()
        return None
    return stream


def _leave(stream: _Stream) -> None:
    if _left.stream is not None:
        _left.stream.close()
        _left.stream = None
    if stream.is_settled():
        _left.stream = stream
    else:
        stream.close()


class _Stream:
    """A compressed file that is being read, and the pieces that it gave last."""

    def __init__(self, file: InputFile) -> None:
        self._path, self._descriptor = file.path, open_input(file)
        packed = _pieces(self._descriptor, _PACKED_PIECE_BYTES)
        self._pieces = _joined((gunzipped if file.format.endswith(".gz") else unzstd)(packed))
        self._last: deque[tuple[int, bytes]] = deque([(0, b"")], maxlen=2)

    def is_settled(self) -> bool:
        """Whether a later change of the file would show in its time: two within a tick of a clock have the same."""
        return time.time() - os.fstat(self._descriptor).st_mtime > _COARSEST_TICK_S

    def can_give(self, file: InputFile, seek: int) -> bool:
        """Whether this offset lies in the last pieces or behind them, and the file is the one that was opened."""
        if self._path != file.path or seek < self._last[0][0]:
            return False
        try:
            mine, other = os.fstat(self._descriptor), os.stat(file.path)
        except OSError:
            return False
        return all(getattr(mine, name) == getattr(other, name) for name in _IDENTITY)

    def chunks(self, seek: int) -> Iterator[bytes]:
        for start, piece in [*self._last]:
            if seek < start + len(piece):
                yield piece[max(seek - start, 0) :]
        start, piece = self._last[-1]
        for fresh in self._pieces:
            start, piece = start + len(piece), fresh
            self._last.append((start, piece))
            if seek < start + len(piece):
                yield piece[max(seek - start, 0) :]

    def close(self) -> None:
        os.close(self._descriptor)


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _pieces(descriptor: int, size: int, offset: int = 0) -> Iterator[bytes]:
    while piece := read_at(descriptor, size, offset):
        yield piece
        if len(piece) < size:
            return
        offset += size


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes, in pieces that are not tiny, also before a stream breaks."""
    held, size = list[bytes](), 0
    try:
        for piece in pieces:
            if held and len(piece) >= _LEAST_BYTES:
                yield b"".join(held)
                held, size = [], 0
            held.append(piece)
            size += len(piece)
            if size >= _LEAST_BYTES:
                yield held[0] if len(held) == 1 else b"".join(held)
                held, size = [], 0
    except BrokenStream:
        if held:
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)
