"""GET and HEAD over kept connections, from any number of threads.

    with Client(Settings(agent="hpcdata (+mailto:you@lab.org)")) as client:
        with client.get(url, headers={"Range": "bytes=100-"}, until=time.monotonic() + 60) as answer:
            answer.status, answer.headers.get("etag"), answer.url
            answer.read_into(memoryview(buffer)), or answer.read(most=1 << 20)

Redirects are followed, few of them, each address checked as the first; `Authorization` goes to the first host only. No
cookies are kept. A kept connection that the host has closed meanwhile is opened again once.
"""

from __future__ import annotations

import collections
import contextlib
import http.client
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from hpcdata.net import proxies
from hpcdata.net.addresses import Address, joined, parse
from hpcdata.net.connecting import Connection, Deadlines
from hpcdata.net.errors import Cut, NetError, Refused, Unreachable

REDIRECTS = (301, 302, 303, 307, 308)
_IDLE_S, _MOST_IDLE = 15.0, 256
_CHUNK = 1 << 18
_LATE = "no answer in time"
_MOST_OF_A_REDIRECT = 1 << 16
_BROKEN = (OSError, http.client.HTTPException, ValueError)
"""What reading an answer raises; ValueError for a socket that was closed under it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    agent: str
    connect_s: float = 10.0
    """Of one attempt to connect, and of TLS."""
    read_s: float = 30.0
    """Most seconds without a byte."""
    most_redirects: int = 5
    allows_private: bool = False
    """Also ask hosts of this machine and its site."""


class Answer:
    """What a host says: status, headers, and a body that is read by whoever wants it. A context manager."""

    def __init__(
        self, client: Client, connection: Connection, response: http.client.HTTPResponse, until: float
    ) -> None:
        self.status, self.headers = response.status, response.headers
        self.url = connection.address.url
        """After redirects; with its query, so not for messages."""
        self._client, self._connection, self._response = client, connection, response
        self._left, self._until = response.length, until
        self._is_whole = response.length == 0

    @property
    def size(self) -> int | None:
        """Of the body, as far as the headers tell."""
        return self._left

    def read_into(self, buffer: memoryview) -> int:
        """Reads some bytes of the body; 0 at its end. Raises Cut where it ends before it is whole."""
        try:
            size = self._response.readinto(buffer)
        except _BROKEN as error:
            raise Cut(_LATE if time.monotonic() >= self._until else _why(error)) from None
        if not size and len(buffer):
            if self._response.length:  # http.client tells it by no error here
                raise Cut(_LATE if time.monotonic() >= self._until else "its body ends early")
            self._is_whole = True
        return size

    def read(self, most: int) -> bytes:
        """The whole body, unpacked where it is gzipped; one byte more than `most` where it is larger. Raises Cut."""
        data, buffer = bytearray(), memoryview(bytearray(min(most + 1, self._left or _CHUNK, _CHUNK) or 1))
        while len(data) <= most and (size := self.read_into(buffer)):
            data += buffer[:size]
        is_packed = self.headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate")
        if is_packed and len(data) <= most:
            return _unpacked(bytes(data), most)
        return bytes(data[: most + 1])

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Its connection is kept where the whole body was read."""
        self._client._give_back(self._connection, self._response, self._is_whole)


class Client:
    """Connections that are kept, most of them to hosts that are asked often. A context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._deadlines = settings, Deadlines()
        self._idle: collections.OrderedDict[Connection, tuple[str, str, int]] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            idle = list(self._idle)
            self._idle.clear()
        for connection in idle:
            connection.end()
        self._deadlines.close()

    def get(self, url: str, *, headers: Mapping[str, str] | None = None, until: float, method: str = "GET") -> Answer:
        """The answer to a request, behind its redirects. until: `time.monotonic()` at which all of it is interrupted.

        Raises Refused or Unreachable, and UserError for a proxy that cannot be used.
        """
        address, sent = parse(url), dict(headers or {})
        for _ in range(self._settings.most_redirects + 1):
            answer = self._ask(method, address, sent, until)
            location = answer.headers.get("location")
            if answer.status not in REDIRECTS or not location:
                return answer
            with answer, contextlib.suppress(Cut):
                answer.read(_MOST_OF_A_REDIRECT)
            before, address = address, joined(address, location)
            if (before.scheme, before.host, before.port) != (address.scheme, address.host, address.port):
                sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
        raise Refused(f"more than {self._settings.most_redirects} redirects")

    def reach(self, url: str, *, until: float) -> None:
        """Connects, TLS included, and asks nothing. Raises Refused or Unreachable."""
        connection = self._new(parse(url))
        self._deadlines.start(connection, until)
        try:
            connection.connect()
        finally:
            self._deadlines.stop(connection)
            connection.end()

    def _ask(self, method: str, address: Address, headers: Mapping[str, str], until: float) -> Answer:
        connection = self._kept(address) or self._new(address)
        while True:
            if time.monotonic() >= until:
                connection.end()
                raise Unreachable(_LATE)
            self._deadlines.start(connection, until)
            try:
                return Answer(self, connection, self._exchange(connection, method, headers), until)
            except _BROKEN as error:
                self._drop(connection)
                if time.monotonic() >= until:
                    raise Unreachable(_LATE) from None
                if not connection.num_answers:
                    raise Unreachable(_why(error)) from None
                connection = self._new(address)  # it was kept, and closed by the host since
            except BaseException:
                self._drop(connection)
                raise

    def _exchange(self, connection: Connection, method: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        address, proxy = connection.address, connection.proxy
        is_forwarded = proxy is not None and address.scheme == "http"
        connection.putrequest(
            method, address.url if is_forwarded else address.target, skip_host=True, skip_accept_encoding=True
        )
        own = {"Host": address.name, "User-Agent": self._settings.agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        sent = {**own, **headers, **(proxy.headers if proxy is not None and is_forwarded else {})}
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse()

    def _new(self, address: Address) -> Connection:
        settings = self._settings
        return Connection(
            address,
            proxies.find(address),
            connect_s=settings.connect_s,
            read_s=settings.read_s,
            allows=settings.allows_private,
        )

    def _kept(self, address: Address) -> Connection | None:
        key, now = (address.scheme, address.host, address.port), time.monotonic()
        ended = []
        with self._lock:
            found = next((item for item in reversed(self._idle) if self._idle[item] == key), None)
            if found is not None:
                del self._idle[found]
                if now - found.idle_since > _IDLE_S:
                    ended.append(found)
                    found = None
        for connection in ended:
            connection.end()
        if found is not None:
            found.address = address
        return found

    def _give_back(self, connection: Connection, response: http.client.HTTPResponse, is_whole: bool) -> None:
        self._deadlines.stop(connection)
        is_kept = is_whole and not response.will_close and connection.sock is not None
        response.close()
        if not is_kept:
            connection.end()
            return
        address = connection.address
        connection.num_answers, connection.idle_since, oldest = connection.num_answers + 1, time.monotonic(), None
        with self._lock:
            self._idle[connection] = (address.scheme, address.host, address.port)
            if len(self._idle) > _MOST_IDLE:
                oldest = self._idle.popitem(last=False)[0]
        if oldest is not None:
            oldest.end()

    def _drop(self, connection: Connection) -> None:
        self._deadlines.stop(connection)
        connection.end()


def _unpacked(data: bytes, most: int) -> bytes:
    """Raises Cut for what is no stream of its kind, or ends early."""
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        found = unpacker.decompress(data, most + 1)
    except zlib.error:
        raise Cut("its body is not packed as its headers say") from None
    if not unpacker.eof and len(found) <= most:
        raise Cut("its packed body ends early")
    return found


def _why(error: Exception) -> str:
    if isinstance(error, NetError):
        return str(error)
    if isinstance(error, TimeoutError):
        return _LATE
    if isinstance(error, http.client.IncompleteRead):
        return "its body ends early"
    if isinstance(error, OSError):
        return "the connection was closed"
    return "its answer is no HTTP"
