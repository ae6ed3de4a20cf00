"""HTTP/1.1 on one socket: a request out, the head and the body of its answer in (RFC 9112).

`http.client` does the same in three times the CPU, most of it in the parser of mail headers. What servers get wrong and
clients bear is borne here too: line feeds alone in a head, lines that are no field, one length said twice. What could
hide where a body ends is not: two lengths, a length that is no number, a chunk without one, a coding other than chunks.

Coroutines do it: on a socket of a `Loop` they wait in the loop, on a blocking one they wait for nothing (`drive`).
"""

from __future__ import annotations

import functools
import math
import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass

from hpcdata.net.loop import Loop

_AT_ONCE = 1 << 16
_MOST_OF_A_HEAD, _MOST_OF_A_LINE, _MOST_INTERIM = 1 << 16, 1 << 12, 16
_MOST_OF_A_USUAL = 100
"""Characters of a field that is remembered: most of them a host sends with each answer."""
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) +([1-9][0-9]{2})(?: .*)?", re.DOTALL)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIZE_OF_CHUNK = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_FIRST_COUNTS = frozenset(("location", "retry-after", "etag", "last-modified", "content-type", "content-range"))
"""Of these a second one is an error, and not another item of a list."""
_NOT_YET = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class NoHTTP(ValueError):
    """What came is no answer in HTTP/1."""


class EndsEarly(OSError):
    """The connection ended before the answer did."""


@dataclass(frozen=True, kw_only=True)
class Head:
    status: int
    headers: Mapping[str, str]
    """Names in lower case; values of one name in a row, parted by commas."""
    is_1_0: bool = False


def request(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """The bytes of a request without a body. Raises ValueError for what would be another line."""
    first = f"{method} {target} HTTP/1.1\r\n"
    if first.count("\n") > 1 or first.count("\r") > 1:
        raise ValueError("a target holds a line break")
    return first.encode("latin-1") + _lines(tuple(headers.items()))


@functools.lru_cache(256)
def _lines(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Of headers, with the empty one behind them: a host is asked with the same ones again and again."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers])
    if text.count("\n") > len(headers) or text.count("\r") > len(headers):
        raise ValueError("a header holds a line break")
    return text.encode("latin-1") + b"\r\n"


def parsed(data: bytes) -> Head:
    """A head up to its empty line. Raises NoHTTP."""
    text = data.decode("latin-1").replace("\r\n", "\n")
    if "\r" in text.rstrip("\r"):  # for some the end of a line, for others not
        raise NoHTTP("a carriage return within a line")
    first, *lines = text.split("\n")
    status = _STATUS_LINE.fullmatch(first.rstrip("\r"))
    if status is None:
        raise NoHTTP("no status line")
    headers: dict[str, str] = {}
    name = ""
    for line in lines:
        if line[:1] in (" ", "\t"):  # the rest of the line before
            if name and line.strip():
                headers[name] = f"{headers[name]} {line.strip()}"
            continue
        name, value = _usual_field(line) if len(line) <= _MOST_OF_A_USUAL else _field(line)
        if name not in headers:
            if name:
                headers[name] = value
        elif name not in _FIRST_COUNTS:
            headers[name] = f"{headers[name]}, {value}"
        else:
            name = ""
    return Head(status=int(status[2]), headers=headers, is_1_0=status[1] == "0")


def _field(line: str) -> tuple[str, str]:
    """Name and value; no name of what is no field."""
    name, colon, value = line.partition(":")
    name = name.rstrip().lower()
    return (name, value.strip()) if colon and _NAME.fullmatch(name) else ("", "")


_usual_field = functools.lru_cache(1024)(_field)


class Wire:
    """One request after another on a socket. Whatever it raises, the socket is of no more use."""

    def __init__(self, sock: socket.socket, loop: Loop | None = None, *, read_s: float = 0.0) -> None:
        """loop: waits for the socket, which does not block then, and no longer than `read_s` at a time."""
        self.socket, self._loop, self._read_s = sock, loop, read_s
        self.until = math.inf
        """By `time.monotonic()`: when a wait in the loop ends, whatever came. Where a body ends later, it is cut."""
        self._rest, self._at = b"", 0
        """Received, and taken up to there."""
        self.left: int | None = 0
        """Bytes of the body that are still to come; None where its head does not say."""
        self.is_whole = True
        """The body was read to its end."""
        self._chunk_left: int | None = None
        """None: the body has no chunks."""
        self._keeps = False

    @property
    def is_reusable(self) -> bool:
        return self.is_whole and self._keeps and self._at == len(self._rest)

    async def ask(self, request: bytes, *, has_body: bool = True) -> Head:
        """The head of the answer. has_body: false for HEAD and CONNECT. Raises OSError or NoHTTP."""
        await self._send(request)
        if self._loop is not None:
            await self._readable()
        for _ in range(_MOST_INTERIM):
            head = await self._head()
            if head.status >= 200:
                self._begin(head, has_body)
                return head
        raise NoHTTP("interim answers without end")

    async def read_into(self, buffer: memoryview) -> int:
        """Some bytes of the body; 0 at its end. Raises OSError or NoHTTP where it ends before it is whole."""
        if self.is_whole or not len(buffer):
            return 0
        most = self.left if self._chunk_left is None else await self._chunk()
        if most == 0:
            self.is_whole = True
            return 0
        size = await self._take(buffer if most is None or most >= len(buffer) else buffer[:most])
        if not size:
            if most is not None or time.monotonic() >= self.until:
                raise EndsEarly("its body ends early")
            self.is_whole = True
        elif self._chunk_left is not None:
            self._chunk_left -= size
            if not self._chunk_left and await self._line():
                raise NoHTTP("a chunk is longer than it says")
        elif self.left is not None:
            self.left -= size
            self.is_whole = not self.left
        return size

    def all_at_hand(self) -> bytes | None:
        """The body, if all of it is here already."""
        if self._chunk_left is not None or self.left is None or self.left > len(self._rest) - self._at:
            return None
        data = self._rest[self._at : self._at + self.left]
        self._at, self.left, self.is_whole = self._at + self.left, 0, True
        return data

    async def _head(self) -> Head:
        data, seen = self._rest[self._at :], 0
        while (found := _END_OF_HEAD.search(data, max(0, seen - 2))) is None:
            if len(data) > _MOST_OF_A_HEAD:
                raise NoHTTP("headers without end")
            if len(data) >= 5 and not data.startswith(b"HTTP/"):
                raise NoHTTP("no status line")
            more = await self._received()
            if not more:
                if data:
                    raise NoHTTP("its head ends early")
                raise EndsEarly("the connection was closed")
            data, seen = data + more if data else more, len(data)
        self._rest, self._at = data, found.end()
        return parsed(data[: found.start()])

    def _begin(self, head: Head, has_body: bool) -> None:
        """How the body ends: RFC 9112, 6.3."""
        headers = head.headers
        coding, length = headers.get("transfer-encoding"), headers.get("content-length")
        self._chunk_left, self.left, self.is_whole = None, None, False
        if not has_body or head.status in (204, 304):
            self.left, self.is_whole = 0, True
        elif coding is not None:
            if coding.lower() != "chunked":  # bytes as they are sent would pass for the body
                raise NoHTTP("a transfer coding that nobody asked for")
            self._chunk_left = 0
        elif length is not None:
            self.left = _length(length)
            self.is_whole = not self.left
        words = headers.get("connection", headers.get("proxy-connection", "")).lower()
        self._keeps = "keep-alive" in words if head.is_1_0 else "close" not in words
        if coding is not None and (head.is_1_0 or length is not None):
            self._keeps = False
        if self.left is None and self._chunk_left is None:
            self._keeps = False

    async def _chunk(self) -> int:
        """Bytes that are left of this chunk, or of the next; 0: there is none, and all behind it is read."""
        assert self._chunk_left is not None
        if not self._chunk_left:
            size = _SIZE_OF_CHUNK.fullmatch(await self._line())
            if size is None:
                raise NoHTTP("a chunk without a size")
            self._chunk_left = int(size[1], 16)
            for _ in range(0 if self._chunk_left else 1 + _MOST_OF_A_HEAD // _MOST_OF_A_LINE):
                if not await self._line():
                    break
        return self._chunk_left

    async def _line(self) -> bytes:
        """Of what stands between chunks. A line feed alone is none: a byte of the chunk may be missing then."""
        while (end := self._rest.find(b"\n", self._at)) < 0:
            if len(self._rest) - self._at > _MOST_OF_A_LINE:
                raise NoHTTP("a line without end")
            more = await self._received()
            if not more:
                raise EndsEarly("its body ends early")
            self._rest, self._at = self._rest[self._at :] + more, 0
        line, self._at = self._rest[self._at : end], end + 1
        if line[-1:] != b"\r":
            raise NoHTTP("a line that ends in a line feed alone")
        return line[:-1]

    async def _take(self, buffer: memoryview) -> int:
        size = min(len(buffer), len(self._rest) - self._at)
        if not size:
            return await self._received_into(buffer)
        buffer[:size] = self._rest[self._at : self._at + size]
        self._at += size
        return size

    async def _send(self, data: bytes) -> None:
        if self._loop is None:
            self.socket.sendall(data)
            return
        while data:
            try:
                data = data[self.socket.send(data) :]
            except _NOT_YET as error:
                await self._ready(error, wants_to_send=True)

    async def _received(self) -> bytes:
        while True:
            try:
                return self.socket.recv(_AT_ONCE)
            except _NOT_YET as error:
                await self._ready(error)

    async def _received_into(self, buffer: memoryview) -> int:
        while True:
            try:
                return self.socket.recv_into(buffer)
            except _NOT_YET as error:
                await self._ready(error)

    async def _ready(self, error: Exception, *, wants_to_send: bool = False) -> None:
        """Raises the error where nobody but the socket waits: its time is over."""
        if self._loop is None:
            raise error
        if isinstance(error, ssl.SSLWantWriteError) or (wants_to_send and isinstance(error, BlockingIOError)):
            await self._loop.writable(self.socket, until=self._end())
        else:
            await self._readable()

    async def _readable(self) -> None:
        assert self._loop is not None
        await self._loop.readable(self.socket, until=self._end())

    def _end(self) -> float:
        return min(self.until, time.monotonic() + self._read_s)


def _length(text: str) -> int:
    """Of a body, by a header that may stand there twice. Raises NoHTTP."""
    values = {item.strip() for item in text.split(",")} if "," in text else {text}
    value = values.pop()
    if values or not (value.isascii() and value.isdigit() and len(value) < 19):
        raise NoHTTP("no length")
    return int(value)
