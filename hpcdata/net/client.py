"""GET and HEAD over kept connections, from any number of threads, or from the coroutines of a loop.

    with Client(Settings(agent="hpcdata (+mailto:you@lab.org)")) as client:
        with client.get(url, headers={"Range": "bytes=100-"}, until=time.monotonic() + 60) as answer:
            answer.status, answer.headers.get("etag"), answer.url
            answer.read_into(memoryview(buffer)), or answer.read(most=1 << 20)

    client = Client(settings, loop)              in its coroutines:
        with await client.ask(url, until=time.monotonic() + 60) as answer:
            await answer.body(most=1 << 20)

Redirects are followed, few of them, each address checked as the first; `Authorization` goes to the first host only. No
cookies are kept. A kept connection that the host has closed meanwhile is opened again once.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from hpcdata.net import proxies
from hpcdata.net.addresses import Address, joined, parse
from hpcdata.net.connecting import Connection, Deadlines
from hpcdata.net.errors import Cut, NetError, Refused, Unreachable
from hpcdata.net.loop import Loop, drive
from hpcdata.net.wire import EndsEarly, Head, Wire, request

REDIRECTS = (301, 302, 303, 307, 308)
_IDLE_S, _MOST_IDLE = 15.0, 256
_CHUNK = 1 << 18
_LATE = "no answer in time"
_MOST_OF_A_REDIRECT = 1 << 16
_BROKEN = (OSError, ValueError)
"""What reading an answer raises: NoHTTP is a ValueError."""


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

    def __init__(self, client: Client, connection: Connection, wire: Wire, head: Head, until: float) -> None:
        self.status, self.headers = head.status, head.headers
        self._address = connection.address
        self.size = wire.left
        """Of the body, as far as the headers tell."""
        self._client, self._connection, self._wire, self._until = client, connection, wire, until

    @property
    def url(self) -> str:
        """After redirects; with its query, so not for messages."""
        return self._address.url

    def read_into(self, buffer: memoryview) -> int:
        """Reads some bytes of the body; 0 at its end. Raises Cut where it ends before it is whole."""
        return drive(self.body_into(buffer))

    def read(self, most: int) -> bytes:
        """See `body`."""
        return drive(self.body(most))

    async def body_into(self, buffer: memoryview) -> int:
        """See `read_into`."""
        try:
            return await self._wire.read_into(buffer)
        except _BROKEN as error:
            raise Cut(_LATE if time.monotonic() >= self._until else _why(error)) from None

    async def body(self, most: int) -> bytes:
        """The whole body, unpacked where it is gzipped; one byte more than `most` where it is larger. Raises Cut."""
        found = self._wire.all_at_hand() if self.size is not None and self.size <= most else None
        if found is None:
            data, buffer = bytearray(), memoryview(bytearray(min(most + 1, self.size or _CHUNK, _CHUNK) or 1))
            while len(data) <= most and (size := await self.body_into(buffer)):
                data += buffer[:size]
            found = bytes(data[: most + 1])
        is_packed = self.headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate")
        return _unpacked(found, most) if is_packed and len(found) <= most else found

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """Its connection is kept where the whole body was read."""
        self._client._give_back(self._connection, self._wire)


class Client:
    """Connections that are kept, most of them to hosts that are asked often. A context manager."""

    def __init__(self, settings: Settings, loop: Loop | None = None, *, most_connecting: int = 32) -> None:
        """loop: in which all is asked, and threads connect, so many at most. None: whoever asks waits himself."""
        self._settings, self._deadlines, self._loop = settings, Deadlines(), loop
        self._connecting = ThreadPoolExecutor(most_connecting, thread_name_prefix="connect")
        self._own = {"User-Agent": settings.agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self._idle: collections.OrderedDict[Connection, None] = collections.OrderedDict()
        self._idle_of: dict[_Place, list[Connection]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            idle = list(self._idle)
            self._idle.clear()
            self._idle_of.clear()
        for connection in idle:
            connection.end()
        self._connecting.shutdown(wait=False, cancel_futures=True)
        self._deadlines.close()

    def get(self, url: str, *, headers: Mapping[str, str] | None = None, until: float, method: str = "GET") -> Answer:
        """See `ask`."""
        return drive(self.ask(url, headers=headers, until=until, method=method))

    async def ask(
        self, url: str, *, headers: Mapping[str, str] | None = None, until: float, method: str = "GET"
    ) -> Answer:
        """The answer to a request, behind its redirects. until: `time.monotonic()` at which all of it is interrupted.

        Raises Refused or Unreachable, and UserError for a proxy that cannot be used.
        """
        address, sent = parse(url), dict(headers or {})
        for _ in range(self._settings.most_redirects + 1):
            answer = await self._ask(method, address, sent, until)
            location = answer.headers.get("location")
            if answer.status not in REDIRECTS or not location:
                return answer
            with answer, contextlib.suppress(Cut):
                await answer.body(_MOST_OF_A_REDIRECT)
            before, address = address, joined(address, location)
            if _place(before) != _place(address):
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

    async def _ask(self, method: str, address: Address, headers: Mapping[str, str], until: float) -> Answer:
        connection = self._kept(address) or self._new(address)
        while True:
            if time.monotonic() >= until:
                connection.end()
                raise Unreachable(_LATE)
            try:
                wire = await self._connected(connection, until)
                head = await self._exchange(connection, wire, method, headers)
                return Answer(self, connection, wire, head, until)
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

    async def _connected(self, connection: Connection, until: float) -> Wire:
        """With its deadline set."""
        wire = connection.wire
        if self._loop is None:
            self._deadlines.start(connection, until)
            wire = wire or connection.connect()
        elif wire is None:
            self._deadlines.start(connection, until)
            try:
                wire = await self._loop.in_thread(connection.connect, self._connecting)
            finally:
                self._deadlines.stop(connection)
        wire.until = until
        return wire

    async def _exchange(self, connection: Connection, wire: Wire, method: str, headers: Mapping[str, str]) -> Head:
        address, proxy = connection.address, connection.proxy
        target = address.target
        sent = {"Host": address.name, **self._own, **headers}
        if proxy is not None and address.scheme == "http":
            target, sent = address.url, sent | proxy.headers
        return await wire.ask(request(method, target, sent), has_body=method != "HEAD")

    def _new(self, address: Address) -> Connection:
        settings = self._settings
        return Connection(
            address,
            proxies.find(address),
            self._loop,
            connect_s=settings.connect_s,
            read_s=settings.read_s,
            allows=settings.allows_private,
        )

    def _kept(self, address: Address) -> Connection | None:
        """The last one that was given back, if it is still fresh."""
        with self._lock:
            waiting = self._idle_of.get(_place(address))
            if not waiting:
                return None
            found = waiting.pop()
            if not waiting:
                del self._idle_of[_place(address)]
            del self._idle[found]
        if time.monotonic() - found.idle_since > _IDLE_S:
            found.end()
            return None
        found.address = address
        return found

    def _give_back(self, connection: Connection, wire: Wire) -> None:
        if self._loop is None:
            self._deadlines.stop(connection)
        if not wire.is_reusable:
            connection.end()
            return
        connection.num_answers, connection.idle_since, oldest = connection.num_answers + 1, time.monotonic(), None
        with self._lock:
            self._idle[connection] = None
            self._idle_of.setdefault(_place(connection.address), []).append(connection)
            if len(self._idle) > _MOST_IDLE:
                oldest = self._idle.popitem(last=False)[0]
                self._idle_of[_place(oldest.address)].remove(oldest)
        if oldest is not None:
            oldest.end()

    def _drop(self, connection: Connection) -> None:
        self._deadlines.stop(connection)
        connection.end()


_Place = tuple[str, str, int]


def _place(address: Address) -> _Place:
    return address.scheme, address.host, address.port


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
    if isinstance(error, TimeoutError | BlockingIOError):
        return _LATE
    if isinstance(error, EndsEarly):
        return str(error)
    if isinstance(error, OSError):
        return "the connection was closed"
    return "its answer is no HTTP"
