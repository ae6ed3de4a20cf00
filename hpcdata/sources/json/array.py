"""A JSON array as JSON lines, in constant memory: an element a line, its bytes as they are but for line breaks.

Only brackets and strings are looked at, so that an element that is no JSON stays one bad line and its neighbours good
ones. An array that ends too early leaves its last, broken element as a line or, where it ends between two elements, a
line that is a reject: nobody knows how many are lost.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from hpcdata.base.errors import UserError
from hpcdata.samples import Reason
from hpcdata.sources.base import InputFile, refusing_faults
from hpcdata.sources.json.marks import Marks
from hpcdata.sources.limits import bounded, most_records, require_few_records
from hpcdata.sources.sets.writing import reject_line
from hpcdata.sources.streams import BrokenStream, chunks

logger = logging.getLogger(__name__)

_SPACE = b" \t\r\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LINE_BREAKS = bytes.maketrans(b"\r\n", b"  ")


def flatten_json(file: InputFile, out_path: str) -> int:
    """Writes the elements of an array file as lines and returns how many. Raises UserError if it holds no array."""
    splitter = _Splitter()
    num_lines, is_open = 0, False
    most = most_records(os.stat(file.path).st_size)
    partial = f"{out_path}.{os.getpid()}.partial"
    with open(partial, "wb") as out:
        for piece in _pieces(file, splitter):
            if piece is None:
                num_lines += is_open
                require_few_records(file.path, num_lines, most)
                out.write(b"\n" if is_open else b"")
                is_open = False
                continue
            if not is_open:
                piece = piece.lstrip(_SPACE)
            out.write(piece.translate(_LINE_BREAKS))
            is_open = is_open or bool(piece)
        if splitter.is_cut_between:
            out.write(reject_line(Reason.TRUNCATED, "the array does not end: what came behind this is lost") + b"\n")
            num_lines += 1
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, out_path)
    if not splitter.is_closed:
        logger.warning("%s is cut short: its array does not end", file.label)
    return num_lines


def _pieces(file: InputFile, splitter: _Splitter) -> Iterator[bytes | None]:
    """Bytes of elements, with None behind each element."""
    try:
        with refusing_faults(file.path):
            for chunk in bounded(file, chunks(file)):
                yield from splitter.split(chunk, file)
    except BrokenStream:
        splitter.is_closed = False
    yield None


class _Splitter:
    """Where in an array the chunks so far have led."""

    def __init__(self) -> None:
        self.is_closed = False
        self._depth = 0
        self._marks = Marks(b"[]{},")
        self._beginning = b""

    @property
    def is_cut_between(self) -> bool:
        """Whether the array ended too early, and not within an element."""
        return not self.is_closed and self._depth == 1 and not self._marks.is_string

    def split(self, chunk: bytes, file: InputFile) -> Iterator[bytes | None]:
        if self._depth == 0 and not self.is_closed:
            chunk = self._opened(chunk, file)
        start = 0
        for match in self._marks.of(chunk):
            if self.is_closed:
                break
            if self._ends(match[0]):
                yield chunk[start : match.start()]
                yield None
                start = match.end()
        if self.is_closed:
            self._check_rest(chunk[start:], file)
        else:
            yield chunk[start:]

    def _ends(self, mark: bytes) -> bool:
        """Whether an element ends at this mark."""
        if mark == b",":
            return self._depth == 1
        self._depth += 1 if mark in (b"[", b"{") else -1
        self.is_closed = self._depth == 0
        return self.is_closed

    def _opened(self, chunk: bytes, file: InputFile) -> bytes:
        """The chunk behind the opening bracket, empty if that has not come yet."""
        self._beginning = (self._beginning + chunk).removeprefix(_BYTE_ORDER_MARK).lstrip(_SPACE)
        if not self._beginning:
            return b""
        if self._beginning[:1] != b"[":
            raise UserError(f"{file.path} does not begin with an array: expected [ {{...}}, {{...}} ]")
        self._depth = 1
        return self._beginning[1:]

    @staticmethod
    def _check_rest(rest: bytes, file: InputFile) -> None:
        if rest.strip(_SPACE):
            raise UserError(f"{file.path} goes on behind the end of its array: expected one array")
