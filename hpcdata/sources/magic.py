"""What a file holds, by its first bytes: a name may lie, and a stream read as text is one untrue reject."""

from __future__ import annotations

import logging

from hpcdata.base.errors import UserError
from hpcdata.base.reads import read_beginning
from hpcdata.sources.base import refusing_faults

logger = logging.getLogger(__name__)

_CODECS = {".gz": (b"\x1f\x8b\x08",), ".zst": (b"\x28\xb5\x2f\xfd",)}
_UNREAD = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"PK\x03\x04": "zip",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x04\x22\x4d\x18": "lz4",
    b"ARROW1\0\0": "Arrow",
    b"PAR1": "Parquet",
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

    A file that is named as compressed and holds neither such a stream nor what its name says without it keeps the
    codec of its name: it is damaged. Raises UserError for what no source reads, named by its content; not for a
    document, which is one sample and becomes one reject.
    """
    with refusing_faults(path):
        beginning = read_beginning(path, _BEGINNING_BYTES)
    named = _named(path.lower())
    found = next((codec for codec, marks in _CODECS.items() if beginning.startswith(marks)), "")
    if not found and not is_document:
        _refuse(path, beginning)
    if found == named or not beginning or (not found and not _is_plain(beginning, is_tar)):
        return named
    logger.warning("%s is %s, whatever its name says: read as that", path, _words(found))
    return found


def _named(path: str) -> str:
    return ".gz" if path.endswith(".tgz") else next((codec for codec in _CODECS if path.endswith(codec)), "")


def _refuse(path: str, beginning: bytes) -> None:
    for mark, what in _UNREAD.items():
        if beginning.startswith(mark):
            raise UserError(f"{path} holds {what}, which its name does not say and which is not read so: convert it")


def _is_plain(beginning: bytes, is_tar: bool) -> bool:
    if is_tar:
        return beginning[_TAR_MAGIC] == b"ustar"
    try:
        text = beginning[:-3].decode("utf-8") if len(beginning) == _BEGINNING_BYTES else beginning.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and b"\0" not in beginning
    return "\0" not in text


def _words(codec: str) -> str:
    return {".gz": "a gzip stream", ".zst": "a zstd stream", "": "not compressed"}[codec]
